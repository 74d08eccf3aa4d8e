"""Every scheme on every model: a training step traces, or the scheme is refused with a reason."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax import models, schemes
from dropjax.core import plan
from dropjax.core.scheme import Chain
from dropjax.core.site import Kind
from dropjax.runs import Network
from dropjax.train import Examples, Problem, Program
from dropjax.train.objectives import classification
from dropjax.train.step import Step, on_one_device
from scripts import reference
from tests.cases import FIRST_VARIANTS, SCHEME_VALUES
from tests.throwaway import PreActivation

MODELS = {
    "cnn": [
        "cnn(channels=(3,2),dense=(4,))",
        'cnn(channels=(2,),blocks=2,residual=True,norm="batch",pooling="average",dense=())',
    ],
    "mlp": ["mlp(widths=(5,4))", "mlp(widths=())"],
    "transformer": [
        "transformer(width=4,heads=2,hidden=5,patch=2)",
        'transformer(width=4,layers=1,heads=2,hidden=5,patch=2,pooling="token")',
    ],
    "rnn": [
        'rnn(cell="lstm",width=5,layers=2)',
        'rnn(cell="gru",width=5)',
        'rnn(cell="elman",width=5)',
        'rnn(cell="gru",width=5,gates="untied")',
    ],
}
SHAPE = (4, 4, 1)


def test_every_model_is_in_the_grid():
    assert sorted(MODELS) == models.names()


@functools.cache
def without_noise(text):
    """What no scheme changes: parameters, variables that are not trained, and sites."""
    network = Network(models.parse(text, outputs=3), Chain())
    x = jnp.zeros(SHAPE)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x))
    params, mutable = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
    sites = plan.record(lambda draw: network.outputs(params, x, draw, mutable))
    return params, mutable, sites


def test_every_site_of_a_model_is_on_the_page_of_reference():
    page = reference.PAGE.read_text().partition("## Sites of models")[2].partition("\n## ")[0]
    for text in itertools.chain(*MODELS.values()):
        for name in without_noise(text)[2]:
            last = name.rpartition("/")[2]
            assert re.search(rf"[`/]{last}`", page), (
                f'the site {name!r}: name it under "Sites:" in the docstring of the model, or of '
                "the layer, that declares it, and run python -m scripts.reference"
            )


def problem(text, scheme):
    network = Network(models.parse(text, outputs=3), scheme)
    params, mutable, sites = without_noise(text)
    trained = Problem(
        network.forward,
        classification,
        scheme,
        optax.sgd(0.1),
        sites,
        stateful=bool(mutable),
    )
    return trained, params, mutable


FIRST = [*FIRST_VARIANTS, PreActivation()]
# Every scheme on every form of a model, and each of its variants on the first form. The schemes of
# one form stand side by side: many of them are traced as one chain.
CELLS = [
    (text, scheme)
    for texts in MODELS.values()
    for text in texts
    for scheme in [*SCHEME_VALUES, PreActivation()]
    if text == texts[0] or scheme in FIRST
]
EXAMPLES = Examples(np.ones((6, *SHAPE), np.float32), np.zeros(6, np.int32))
BATCH_SIZE = 4


def trace_step(text, scheme):
    """Traces a step of training, and looks whether all that it changes keeps its shape."""
    trained, params, mutable = problem(text, scheme)
    step = Step(trained, len(EXAMPLES), BATCH_SIZE, jax.devices()[:1])
    key, number = jax.random.key(0), jnp.int32(0)

    def before_and_after():
        data = (jnp.asarray(EXAMPLES.x), jnp.asarray(EXAMPLES.y))
        state = step.state(key, data[0][0], params, mutable, ["accuracy", "loss"])
        return state, step(number, state, key, data, jnp.arange(len(EXAMPLES)), number, 0)

    before, after = jax.eval_shape(lambda: on_one_device(before_and_after))
    same_shapes(before, after)


def same_shapes(before, after):
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), before, after)
    assert all(jax.tree.leaves(same))


@functools.cache
def groups(text):
    """Chains of the schemes that act on a model, as few as it takes: one acts on a dense layer.

    A variant that is not its class's first acts on one of the dense layers; the first on all.
    """
    _, _, sites = without_noise(text)
    dense = [name for name, (site, _) in sites.items() if site.kind is Kind.LINEAR]
    chains = []
    for _, scheme in [cell for cell in CELLS if cell[0] == text]:
        if refusal(text, scheme):
            continue
        links = [scheme]
        if Kind.LINEAR in scheme.acts_on and scheme not in FIRST:
            others = [n for n, (s, _) in sites.items() if n not in dense and scheme.wants(s)]
            patterns = ["|".join(map(re.escape, (name, *others))) for name in dense]
            links = [dataclasses.replace(scheme, at=f"^({pattern})$") for pattern in patterns]
        if not any(added(chain, link, sites) for chain in chains for link in links):
            chains.append({scheme: links[0]})
    return chains


def added(chain, link, sites):
    """Puts a link into a chain, if its dense layers are free there."""
    try:
        plan.check(Chain((*chain.values(), link)), sites)
    except ValueError:
        return False
    chain[dataclasses.replace(link, at="")] = link
    return True


@functools.cache
def fails(text, number):
    """What a step under a group of schemes, as one chain, raises; None if it is traced."""
    links = tuple(groups(text)[number].values())
    try:
        trace_step(text, Chain(links) if len(links) > 1 else links[0])
    except Exception as error:
        return error
    return None


def refusal(text, scheme):
    """Why a scheme is to be refused on a model; "" if it is to act there."""
    _, _, sites = without_noise(text)
    wanted = [site for site, _ in sites.values() if site.kind in scheme.acts_on]
    reason = scheme.refuses(wanted) if wanted else "acts on"
    return (scheme.acts_on and reason) or ""


@pytest.mark.parametrize("text, scheme", CELLS, ids=str)
def test_scheme_on_model(text, scheme):
    _, _, sites = without_noise(text)
    if reason := refusal(text, scheme):
        with pytest.raises(ValueError, match=reason):
            plan.check(scheme, sites, text)
        made_for = scheme.made_for and models.parse(scheme.made_for, outputs=3)
        assert models.parse(text, outputs=3) != made_for, f"{scheme} should act on {text}"
        return
    plan.check(scheme, sites, text)
    acting = {row["site"] for row in plan.rows(scheme, sites) if row["scheme"] != "-"}
    assert acting == {name for name, (site, _) in sites.items() if site.kind in scheme.acts_on}
    (number,) = [i for i, group in enumerate(groups(text)) if scheme in group]
    if fails(text, number):  # then alone, to see which scheme it is
        trace_step(text, scheme)


@pytest.mark.parametrize("text", [text for texts in MODELS.values() for text in texts])
def test_the_schemes_of_a_model_are_traced_together(text):
    errors = [fails(text, number) for number in range(len(groups(text)))]
    assert not any(errors), errors


@pytest.mark.parametrize("text", [MODELS["mlp"][0], MODELS["cnn"][1]])
def test_a_program_is_traced_under_schemes_that_learn_and_do_not(text):
    scheme = schemes.parse("bernoulli|concrete|gaussian")
    trained, params, mutable = problem(text, scheme)
    program = Program(
        trained, EXAMPLES, key=jax.random.key(0), batch_size=BATCH_SIZE, devices=jax.devices()[:1]
    )
    state = program.init(params, mutable or None)
    same_shapes(state, jax.eval_shape(lambda state: program.run(state, 0, 2), state))
