"""What a scheme learns is left out of weight decay, and nothing else changes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax.train.decay import sparing_learned
from dropjax.train.optax_spec import OPTIMIZERS

VALUES = {
    "params": {"learned": jnp.array([0.5, -2.0, 1.0])},  # a layer of that name is a layer
    "learned": {"rate": jnp.array([0.7, -0.3, 4.0])},
}
SLOPES = {
    "params": {"learned": jnp.array([0.1, -0.2, 0.3])},
    "learned": {"rate": jnp.array([0.02, 0.3, -0.1])},
}
DECAY = ("weight_decay", "weight_decay_rate")


def named(name: str):
    """The optimiser of that name with a decay, or None if it has none."""
    (argument,) = [n for n in DECAY if n in inspect.signature(getattr(optax, name)).parameters] or [
        None
    ]
    return argument and (lambda decay: getattr(optax, name)(0.1, **{argument: decay}))


DECAYING = {name: named(name) for name in OPTIMIZERS if named(name)} | {
    "before sgd": lambda d: optax.chain(optax.add_decayed_weights(d), optax.sgd(0.1, momentum=0.9)),
    "before adam": lambda d: optax.chain(
        optax.clip_by_global_norm(1.0), optax.add_decayed_weights(d), optax.adam(0.1)
    ),
    "beside a norm": lambda d: optax.chain(
        optax.adaptive_grad_clip(0.1), optax.adamw(0.1, weight_decay=d)
    ),
    "a schedule": lambda d: optax.adamw(0.1, weight_decay=lambda step: d),
    "injected": lambda d: optax.inject_hyperparams(optax.adamw)(learning_rate=0.1, weight_decay=d),
    "masked": lambda d: optax.masked(optax.adamw(0.1, weight_decay=d), True),
    "of two": lambda d: optax.partition(
        {"a": optax.adamw(0.1, weight_decay=d), "b": optax.adamw(0.2, weight_decay=d)},
        {"params": "a", "learned": "b"},
    ),
}


def trained(optimizer, steps=2):
    values, state = VALUES, optimizer.init(VALUES)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for _ in range(steps):
            updates, state = optimizer.update(SLOPES, state, values)
            values = optax.apply_updates(values, updates)
    return jax.tree.map(np.asarray, values)


@pytest.mark.parametrize("name", DECAYING)
def test_what_is_learned_is_trained_as_without_decay_and_weights_as_with_it(name):
    make = DECAYING[name]
    found, plain, without = (
        trained(of) for of in (sparing_learned(make(0.3)), make(0.3), make(0.0))
    )
    np.testing.assert_array_equal(found["learned"]["rate"], without["learned"]["rate"])
    np.testing.assert_array_equal(found["params"]["learned"], plain["params"]["learned"])
    assert np.abs(plain["learned"]["rate"] - without["learned"]["rate"]).max() > 1e-4
    assert np.abs(plain["params"]["learned"] - without["params"]["learned"]).max() > 1e-4


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {*DECAYING}))
def test_an_optimizer_that_decays_nothing_is_the_very_same(name):
    optimizer = getattr(optax, name)(0.1)
    assert sparing_learned(optimizer) is optimizer
    chained = optax.chain(optax.clip(1.0), optimizer)
    assert sparing_learned(chained) is chained


def test_the_state_of_steps_that_are_gathered_is_of_the_copy():
    """`optax.MultiSteps` is an object, whose methods hold the optimiser."""
    steps = optax.MultiSteps(optax.adamw(0.1, weight_decay=0.3), 2)
    before = steps.gradient_transformation()
    after = sparing_learned(before)
    assert after is not before and after.update.__self__ is not before.update.__self__
    assert type(after.update.__self__) is optax.MultiSteps
    assert before.update.__self__ is steps
