"""The number that multiplies every rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax.core.strength import check_strength, compiled_strength_at, strength_at

RAMP = optax.linear_schedule(0.0, 1.0, 10)


def test_a_number_is_the_same_at_every_step():
    for strength in (0, 1, 0.25, np.float64(0.25), jnp.float32(0.25)):
        for step in (0, 7, 10**6):
            value = strength_at(strength, jnp.int32(step))
            assert value.dtype == jnp.float32
            assert value == float(strength)


def test_a_schedule_is_asked_at_the_step():
    with jax.numpy_dtype_promotion("standard"):
        at = [float(strength_at(RAMP, jnp.int32(step))) for step in range(15)]
        traced = jax.jit(lambda step: strength_at(RAMP, step))(jnp.int32(3))
    np.testing.assert_allclose(at, np.minimum(np.arange(15) / 10, 1), atol=1e-6)
    np.testing.assert_allclose(traced, 0.3, rtol=1e-6)
    assert traced.dtype == jnp.float32


def test_any_function_of_the_step_will_do():
    assert strength_at(lambda step: step % 2, jnp.int32(5)) == 1
    check_strength(lambda step: step % 2, 10)


@pytest.mark.parametrize("strength", [0, 1, 0.5, 1.0, np.float32(0.3)])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_what_stays_in_range_is_let_through(strength, steps):
    check_strength(strength, steps)


@pytest.mark.parametrize("strength", [-0.1, 1.5, np.nan, np.inf, -np.inf, 2])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_number_out_of_range_is_refused(strength, steps):
    match = rf"strength must stay in \[0, 1\]; it is {strength:g} at step 0"
    with pytest.raises(ValueError, match=match):
        check_strength(strength, steps)


def test_without_a_bound_infinity_is_refused():
    def rising(step):
        return 1 / (3 - step.astype(jnp.float32))

    check_strength(rising, 3, "penalty", at_most=np.inf)  # steps 0 to 2
    with pytest.raises(ValueError, match=r"penalty must stay in \[0, inf\); it is inf at step 3"):
        check_strength(rising, 4, "penalty", at_most=np.inf)


def test_the_first_wrong_step_is_named():
    def rising(step):
        return step.astype(jnp.float32) * 0.25

    check_strength(rising, 5)  # steps 0 to 4
    with pytest.raises(ValueError, match=r"it is 1\.25 at step 5"):
        check_strength(rising, 6)
    with pytest.raises(ValueError, match=r"it is 1\.25 at step 5"):
        check_strength(rising, 100)
    with pytest.raises(ValueError, match="it is nan at step 3"):
        check_strength(lambda step: jnp.where(step == 3, jnp.nan, 0.5), 10)
    with pytest.raises(ValueError, match=r"it is -0\.5 at step 2"):
        check_strength(lambda step: 0.5 - 0.5 * step.astype(jnp.float32), 10)


def test_schedules_of_optax():
    with jax.numpy_dtype_promotion("standard"):
        check_strength(RAMP, 1000)
        check_strength(optax.cosine_decay_schedule(1.0, 50), 60)
        with pytest.raises(ValueError, match="at step 11"):
            check_strength(optax.linear_schedule(0.0, 2.0, 20), 20)


def test_a_schedule_that_never_leaves_0_is_refused():
    with pytest.raises(ValueError, match="never leaves 0"):
        check_strength(optax.linear_schedule(0.0, 1.0, 0), 10)


def test_more_steps_than_can_be_counted_are_refused_at_once():
    with pytest.raises(ValueError, match=r"2\*\*31 - 1"):
        check_strength(1.0, 2**31)
    check_strength(1.0, 2**31 - 1)  # a number is looked at once


@pytest.mark.parametrize("unhashable", [False, True])
def test_a_schedule_is_compiled_once(unhashable):
    """For each number of steps; one that cannot be told from others, each time."""
    traced = []

    class Rising:
        if unhashable:
            __hash__ = None  # type: ignore[assignment]

        def __call__(self, step):
            traced.append(1)
            return step / 10

    rising = Rising()
    for _ in range(3):
        assert compiled_strength_at(rising, jnp.int32(3)) == jnp.float32(3) / 10
    assert len(traced) == (3 if unhashable else 1)
