"""Every scheme on every model: a training step traces, or the scheme is refused with a reason."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

from dropjax import models
from dropjax.core import plan
from dropjax.core.scheme import Chain
from dropjax.runs import Network
from dropjax.train import Examples, Problem, Program
from dropjax.train.objectives import classification
from tests.cases import FIRST_VARIANTS, SCHEME_VALUES
from tests.throwaway import PreActivation

MODELS = {
    "cnn": [
        "cnn(channels=(3,2),dense=(4,))",
        'cnn(channels=(2,3),blocks=2,residual=True,norm="batch",pooling="average",dense=())',
    ],
    "mlp": ["mlp(widths=(5,4))", "mlp(widths=())"],
    "transformer": [
        "transformer(width=4,heads=2,hidden=5,patch=2)",
        'transformer(width=4,layers=1,heads=2,hidden=5,patch=2,pooling="token")',
    ],
    "rnn": [f'rnn(cell="{cell}",width=5,layers=2)' for cell in ("lstm", "gru", "elman")]
    + ['rnn(cell="gru",width=5,layers=2,gates="untied")'],
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


def problem(text, scheme):
    network = Network(models.parse(text, outputs=3), scheme)
    params, mutable, sites = without_noise(text)
    of = Problem(
        network.forward,
        classification,
        scheme,
        optax.sgd(0.1),
        sites,
        stateful=bool(mutable),
    )
    return of, params, mutable or None


# Every scheme on every form of a model, and each of its variants on the first form.
CELLS = [
    (scheme, text)
    for scheme in [*SCHEME_VALUES, PreActivation()]
    for texts in MODELS.values()
    for text in (texts if scheme in [*FIRST_VARIANTS, PreActivation()] else texts[:1])
]


@pytest.mark.parametrize("scheme, text", CELLS, ids=str)
def test_scheme_on_model(scheme, text):
    of, params, mutable = problem(text, scheme)
    kinds = {site.kind for site, _ in of.sites.values()}
    wanted = [name for name, (site, _) in of.sites.items() if site.kind in scheme.acts_on]
    reason = scheme.refuses([of.sites[name][0] for name in wanted]) if wanted else "acts on"
    if scheme.acts_on and reason:
        with pytest.raises(ValueError, match=reason):
            plan.check(scheme, of.sites, text)
        made_for = scheme.made_for and models.parse(scheme.made_for, outputs=3)
        assert models.parse(text, outputs=3) != made_for, f"{scheme} should act on {kinds}"
        return
    plan.check(scheme, of.sites, text)
    acting = {row["site"] for row in plan.rows(scheme, of.sites) if row["scheme"] != "-"}
    assert acting == set(wanted)
    examples = Examples(jnp.ones((6, *SHAPE)), jnp.zeros(6, jnp.int32))
    program = Program(of, examples, key=jax.random.key(0), batch_size=4, devices=jax.devices()[:1])
    state = program.init(params, mutable)
    after = jax.eval_shape(lambda state: program.run(state, 0, 2), state)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), after, state)
    assert all(jax.tree.leaves(same))
