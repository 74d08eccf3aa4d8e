"""Every scheme on every model: a training step traces, or the scheme is refused with a reason."""

import jax
import jax.numpy as jnp
import optax
import pytest

from dropjax import models
from dropjax.core import plan
from dropjax.core.draw import CLEAN
from dropjax.train import Examples, Problem, Program
from dropjax.train.objectives import classification
from tests.cases import SCHEME_VALUES
from tests.throwaway import PreActivation

MODELS = {
    "mlp": ["mlp(widths=(5,4))", "mlp(widths=())"],
    "rnn": [f'rnn(cell="{cell}",width=5,layers=2)' for cell in ("lstm", "gru", "elman")],
}
SHAPE = (4, 3, 1)


def test_every_model_is_in_the_grid():
    assert sorted(MODELS) == models.names()


def problem(text, scheme):
    model = models.parse(text, outputs=3)

    def apply(params, x, draw):
        return model.apply({"params": params}, x, draw)

    init = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(SHAPE), CLEAN))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), init["params"])
    sites = plan.record(lambda draw: apply(params, jnp.zeros(SHAPE), draw))
    return Problem(apply, classification, scheme, sites, optax.sgd(0.1)), params


@pytest.mark.parametrize("text", [text for texts in MODELS.values() for text in texts])
@pytest.mark.parametrize("scheme", [*SCHEME_VALUES, PreActivation()], ids=str)
def test_scheme_on_model(scheme, text):
    of, params = problem(text, scheme)
    kinds = {site.kind for site, _ in of.sites.values()}
    wanted = [name for name, (site, _) in of.sites.items() if site.kind in scheme.acts_on]
    timed = any("time" in of.sites[name][0].axes for name in wanted)
    fits = wanted and (timed or scheme.made_for != "rnn")
    if scheme.acts_on and not fits:
        with pytest.raises(ValueError, match=r"acts on|time axis"):
            plan.check(scheme, of.sites, text)
        assert not wanted or scheme.made_for == "rnn", f"{scheme} should act on {kinds}"
        return
    plan.check(scheme, of.sites, text)
    acting = {row["site"] for row in plan.rows(scheme, of.sites) if row["scheme"] != "-"}
    assert acting == set(wanted)
    examples = Examples(jnp.ones((6, *SHAPE)), jnp.zeros(6, jnp.int32))
    program = Program(of, examples, key=jax.random.key(0), batch_size=4, devices=jax.devices()[:1])
    state = program.init(params)
    after = jax.eval_shape(lambda state: program.run(state, 0, 2), state)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), after, state)
    assert all(jax.tree.leaves(same))
