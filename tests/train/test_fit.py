"""Training in one call."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax import schemes, train
from dropjax.core.site import Kind, Site
from dropjax.train.checkpoint import tree_hash
from dropjax.train.fit import says_stop
from tests.throwaway import LearnedRate

SITE = Site("hidden", Kind.HIDDEN, ("feature",))
X = jax.random.normal(jax.random.key(0), (20, 5))
Y = X @ jnp.arange(5.0)
PARAMS = {"w": jnp.zeros(5)}
KEY = jax.random.key(1)


def apply(params, x, draw):
    return jnp.sum(draw(x, SITE) * params["w"])


def problem(scheme="bernoulli(rate=0.2)"):
    parsed = schemes.parse(scheme) if isinstance(scheme, str) else scheme
    return train.Problem(apply, train.OBJECTIVES["regression"], parsed, optax.sgd(0.1))


def fit(of=None, params=PARAMS, x=X, y=Y, **changes):
    arguments = {"key": KEY, "epochs": 3, "batch_size": 8, "devices": jax.devices()[:1]}
    return train.fit(of or problem(), params, x, y, **arguments | changes)


def test_it_is_the_loop_over_a_program_and_reports_each_epoch():
    program = train.Program(
        problem(), train.Examples(X, Y), key=KEY, batch_size=8, devices=jax.devices()[:1]
    )
    state, losses = program.init(PARAMS), []
    for chunk in train.chunks(program, state, epochs=3):
        state = chunk.state
        if chunk.ends_epoch:
            losses.append(state.means()["loss"])
    seen = []
    fitted = fit(after_epoch=lambda number, state: seen.append((number, int(state.step))))
    assert seen == [(1, 3), (2, 6), (3, 9)]
    assert tree_hash(fitted.params) == tree_hash(state.params["params"])
    assert [record["loss"] for record in fitted.history] == losses
    assert fitted.learned == fitted.mutable == {}


def test_what_a_scheme_learns_is_returned():
    fitted = fit(problem(LearnedRate()))
    assert set(fitted.learned) == {"hidden"}


def test_examples_may_be_trees():
    def apply(params, x, draw):
        return jnp.sum(draw(x["a"], SITE) * params["w"]) + x["b"]

    of = train.Problem(apply, train.OBJECTIVES["regression"], schemes.parse("none"), optax.sgd(0.1))
    assert len(fit(of, x={"a": X, "b": np.zeros(20, np.float32)}).history) == 3


def test_it_ends_when_after_epoch_says_so():
    """With what there was then: early stopping."""
    stopped = fit(epochs=9, after_epoch=lambda number, state: True if number == 2 else None)
    wanted = fit(epochs=2)
    assert tree_hash(stopped.params) == tree_hash(wanted.params)
    assert stopped.history == wanted.history


def test_only_true_is_a_reason_to_stop():
    assert all(map(says_stop, [True, np.True_, jnp.bool_(True)]))
    others = [None, False, np.False_, jnp.bool_(False), 1, 2.5, "stop", np.ones(2, bool)]
    assert not any(map(says_stop, others))
