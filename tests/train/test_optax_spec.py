"""Optimisers and schedules from text, against optax itself."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax.train.optax_spec import OPTIMIZERS, SCHEDULES, parse_optimizer, parse_strength

PARAMS = {"w": np.full((3, 2), 0.5, np.float32), "b": np.zeros(2, np.float32)}
GRADIENTS = {"w": np.full((3, 2), 0.1, np.float32), "b": np.array([0.2, -0.3], np.float32)}

ARGUMENTS = {
    "cosine_decay_schedule": "init_value=1.0,decay_steps=10",
    "cosine_onecycle_schedule": "transition_steps=10,peak_value=1.0",
    "exponential_decay": "init_value=1.0,transition_steps=5,decay_rate=0.5,staircase=True",
    "linear_onecycle_schedule": "transition_steps=10,peak_value=1.0",
    "linear_schedule": "init_value=0.0,end_value=1.0,transition_steps=10",
    "piecewise_constant_schedule": "init_value=1.0,boundaries_and_scales={5:0.5}",
    "piecewise_interpolate_schedule": (
        "interpolate_type='linear',init_value=1.0,boundaries_and_scales={5:0.5}"
    ),
    "polynomial_schedule": "init_value=0.0,end_value=1.0,power=2,transition_steps=10",
    "warmup_constant_schedule": "init_value=0.0,peak_value=1.0,warmup_steps=5",
    "warmup_cosine_decay_schedule": "init_value=0.0,peak_value=1.0,warmup_steps=5,decay_steps=9",
    "warmup_exponential_decay_schedule": (
        "init_value=0.0,peak_value=1.0,warmup_steps=5,transition_steps=5,decay_rate=0.5"
    ),
}

STEPS = (0, 3, 7, 11)


def update(optimizer):
    """The second update: the first of rprop has no gradient before it, and is 0."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        start = optimizer.init(PARAMS)
        _, state = optimizer.update(GRADIENTS, start, PARAMS)
        updates, state = optimizer.update(GRADIENTS, state, PARAMS)
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, state)
    return updates


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_builds_and_steps_at_the_learning_rate_that_is_given(name):
    updates, still = (update(parse_optimizer(name, rate)) for rate in (0.1, 0.0))
    assert jax.tree.map(np.shape, updates) == jax.tree.map(np.shape, PARAMS)
    for leaf in jax.tree.leaves(updates):
        assert np.isfinite(leaf).all()
    # Against the gradient; the biases are 0, so no decay of weights moves them.
    assert (np.asarray(updates["b"]) * GRADIENTS["b"] < 0).all()
    if name != "rprop":  # that has a least step
        assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(still))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("sgd", optax.sgd(0.1)),
        ("sgd(momentum=0.9,nesterov=True)", optax.sgd(0.1, momentum=0.9, nesterov=True)),
        (" adamw ( weight_decay = 0.5 ) ", optax.adamw(0.1, weight_decay=0.5)),
        ("rmsprop(decay=0.5,centered=True)", optax.rmsprop(0.1, decay=0.5, centered=True)),
    ],
)
def test_arguments_arrive(text, expected):
    found = update(parse_optimizer(text, 0.1))
    jax.tree.map(np.testing.assert_array_equal, found, update(expected))


def test_the_lists_are_sorted_and_of_optax():
    assert list(OPTIMIZERS) == sorted(OPTIMIZERS)
    assert list(SCHEDULES) == sorted(SCHEDULES) == sorted(ARGUMENTS)
    assert len({*OPTIMIZERS, *SCHEDULES}) == len(OPTIMIZERS) + len(SCHEDULES)
    for name in OPTIMIZERS:
        parameters = inspect.signature(getattr(optax, name)).parameters
        required = [p.name for p in parameters.values() if p.default is p.empty]
        assert required in (["learning_rate"], []), name
        assert "learning_rate" in parameters


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_that_of_optax(name):
    text = ARGUMENTS[name]
    ours = parse_strength(f"{name}({text})")
    theirs = eval(f"optax.{name}({text})", {"optax": optax})
    with jax.numpy_dtype_promotion("standard"):
        values = [float(ours(jnp.int32(step))) for step in STEPS]
        assert values == [float(theirs(jnp.int32(step))) for step in STEPS]
    assert len(set(values)) > 1
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize("text, value", [("0.5", 0.5), ("1", 1), (" 0 ", 0), ("1e-3", 0.001)])
def test_a_strength_may_be_a_number(text, value):
    assert parse_strength(text) == value
    assert isinstance(parse_strength(text), float)


@pytest.mark.parametrize(
    "text, match",
    [
        ("adm", "no optimizer 'adm'; did you mean adam[?] There are: adabelief, .*yogi$"),
        ("zzzz", "no optimizer 'zzzz'[.] There are: adabelief"),
        ("chain", "no optimizer 'chain'"),
        ("apply_if_finite", "no optimizer 'apply_if_finite'"),
        ("linear_schedule", "no optimizer 'linear_schedule'"),
        ("sgd(momentun=0.9)", "sgd has no argument 'momentun'; it takes momentum, nesterov, acc"),
        ("sgd(learning_rate=0.1)", "sgd has no argument 'learning_rate'; it takes momentum"),
        ("sgd(0.1)", "name each argument"),
        ("sgd(momentum=half)", "the value of momentum must be a literal"),
        ("sgd(", r"expected sgd\(argument=value, ...\)"),
        ("", "expected a name"),
    ],
)
def test_a_wrong_optimizer(text, match):
    with pytest.raises(ValueError, match=match):
        parse_optimizer(text, 0.1)


@pytest.mark.parametrize("learning_rate", [-0.1, float("nan"), float("inf"), -float("inf")])
def test_a_wrong_learning_rate(learning_rate):
    with pytest.raises(ValueError, match=f"learning_rate must be a finite.*got {learning_rate}"):
        parse_optimizer("sgd", learning_rate)


@pytest.mark.parametrize(
    "text, match",
    [
        ("liner_schedule", "no schedule .liner_schedule.; did you mean linear_schedule[?] There"),
        ("adam", "no schedule .adam.[.] There are: annealed, cosine_decay_sch.*, curriculum"),
        ("constant", "no schedule .constant."),
        ("linear_schedule(end=1.0)", "no argument 'end'; it takes init_value, end_value, trans"),
        ("linear_schedule", r"strength='linear_schedule' is no number.*missing 3 required"),
        ("linear_schedule(init_value=x)", "the value of init_value must be a literal"),
        ("0,5", "expected a name"),
        ("", "expected a name"),
    ],
)
def test_a_wrong_strength(text, match):
    with pytest.raises(ValueError, match=match):
        parse_strength(text)
