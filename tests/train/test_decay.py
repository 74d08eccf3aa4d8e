"""What a scheme learns is left out of weight decay, and weights are not."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax.core.site import Kind, Site
from dropjax.train import Examples, Lane, Lanes, Problem
from dropjax.train.decay import check_spares_learned, weights_alone
from dropjax.train.optax_spec import OPTIMIZERS, optimizer_of
from tests.throwaway import KeptRate, LearnedRate

VALUES = {
    "params": {"learned": jnp.array([0.5, -2.0, 1.0])},  # a layer of that name is a layer
    "learned": {"rate": jnp.array([0.7, -0.3, 4.0])},
}
SLOPES = {
    "params": {"learned": jnp.array([0.1, -0.2, 0.3])},
    "learned": {"rate": jnp.array([0.02, 0.3, -0.1])},
}
SCHEME = LearnedRate(rate=0.0, weight=0.0)


def argument(name: str) -> str | None:
    """What an optimiser of optax calls its weight decay; None if it has none."""
    names = {"weight_decay", "weight_decay_rate"} & {
        *inspect.signature(getattr(optax, name)).parameters
    }
    return names.pop() if names else None


DECAYING = sorted(name for name in OPTIMIZERS if argument(name))
MASKED = [name for name in DECAYING if name != "novograd"]


def trained(optimizer, steps=2):
    values, state = VALUES, optimizer.init(VALUES)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for _ in range(steps):
            updates, state = optimizer.update(SLOPES, state, values)
            values = optax.apply_updates(values, updates)
    return jax.tree.map(np.asarray, values)


@pytest.mark.parametrize("name", MASKED)
def test_what_is_learned_is_trained_as_without_decay_and_weights_as_with_it(name):
    decay = argument(name)
    plain = trained(getattr(optax, name)(0.1, **{decay: 0.3}))
    found, without = (trained(optimizer_of(f"{name}({decay}={d})", 0.1)) for d in (0.3, 0.0))
    np.testing.assert_array_equal(found["learned"]["rate"], without["learned"]["rate"])
    np.testing.assert_array_equal(found["params"]["learned"], plain["params"]["learned"])
    assert np.abs(plain["learned"]["rate"] - without["learned"]["rate"]).max() > 1e-4
    assert np.abs(plain["params"]["learned"] - without["params"]["learned"]).max() > 1e-4


LATE = {
    "of a schedule that starts late": lambda: optax.adamw(
        lambda count: jnp.where(count < 10, 0.0, 1e-3), weight_decay=1.0
    ),
    "of steps that are gathered": lambda: optax.MultiSteps(
        optax.adamw(1e-2, weight_decay=1.0), 5
    ).gradient_transformation(),
    "of arrays alone": lambda: optax.adamw(
        1e-2, mask=lambda both: jax.tree.map(lambda leaf: leaf.size > 1, both)
    ),
}


@pytest.mark.parametrize("name", LATE)
def test_a_decay_that_comes_late_or_by_size_is_refused(name):
    with pytest.raises(ValueError, match="decays what the scheme learns"):
        check_spares_learned(LATE[name](), SCHEME, VALUES)


@pytest.mark.parametrize("name", DECAYING)
def test_an_optimizer_of_ones_own_that_decays_what_is_learned_is_refused(name):
    decaying = getattr(optax, name)(optax.linear_schedule(0.0, 0.1, 1000), **{argument(name): 0.1})
    with pytest.raises(ValueError, match="decays what the scheme learns"):
        check_spares_learned(decaying, SCHEME, VALUES)


def test_one_that_decays_weights_alone_or_nothing_is_taken():
    for text in ("adamw(weight_decay=0.1)", "novograd", "adafactor", "lamb", "rprop"):
        check_spares_learned(optimizer_of(text, 0.1), SCHEME, VALUES)
    own = optax.chain(
        optax.adaptive_grad_clip(0.1), optax.adamw(0.1, weight_decay=0.3, mask=weights_alone)
    )
    check_spares_learned(own, SCHEME, VALUES)
    # What only keeps values in a range decays none that lie in it.
    clipped = optax.chain(optax.adam(1e-3), optax.keep_params_nonnegative())
    positive = jax.tree.map(jnp.abs, VALUES)
    check_spares_learned(clipped, SCHEME, positive)


def apply(params, x, draw):
    return draw(x, Site("hidden", Kind.HIDDEN, ("feature",))) @ params["w"]


def metrics(outputs, y):
    return {"loss": jnp.sum((outputs - y) ** 2)}


def test_of_lanes_each_optimizer_is_looked_at():
    problem = Problem(apply, metrics, SCHEME, optax.sgd(0.1))
    data = Examples(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32))

    def lanes(*decays):
        return [Lane(jax.random.key(0), numbers={"weight_decay": decay}) for decay in decays]

    def make(weight_decay):
        return optax.adamw(1e-2, weight_decay=weight_decay)

    def init(key):
        return {"w": jnp.ones((3, 1))}

    with pytest.raises(ValueError, match="decays what the scheme learns"):
        Lanes(problem, init, data, lanes(0.0, 0.5), batch_size=2, optimizer=make)
    taken = Lanes(problem, init, data, lanes(0.0, 0.0), batch_size=2, optimizer=make)
    with pytest.raises(ValueError, match="decays what the scheme learns"):
        taken.with_lanes(lanes(0.5, 0.5))


def test_what_is_kept_beside_the_weights_but_not_trained_may_be_decayed():
    kept = KeptRate(rate=0.0, weight=0.0)
    check_spares_learned(optax.adamw(0.1, weight_decay=0.1), kept, VALUES)
