"""Schedules of the strength: values at steps, from the papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax import schemes
from dropjax.core.strength import check_strength
from dropjax.train import schedules
from dropjax.train.optax_spec import SCHEDULES, parse_strength
from dropjax.train.schedules import annealed, curriculum, early, late, scheduled_drop_path

STEPS = np.arange(40)
ALL = {
    curriculum(gamma=0.25): 1 - np.exp(-0.25 * STEPS),
    curriculum(steps=20): 1 - np.exp(-0.5 * STEPS),
    annealed(10): np.maximum(0, 1 - STEPS / 10),
    # The authors' code: linspace(rate, 0, steps), an entry a step, and zeros after it.
    early(10): np.concatenate([np.linspace(1, 0, 10), np.zeros(30)]),
    early(10, mode="constant"): np.concatenate([np.ones(10), np.zeros(30)]),
    early(1): np.concatenate([np.linspace(1, 0, 1), np.zeros(39)]),
    late(10): np.concatenate([np.zeros(10), np.ones(30)]),
    scheduled_drop_path(20): np.minimum(1, STEPS / 20),
}
over_all = pytest.mark.parametrize("schedule", ALL, ids=str)


@over_all
def test_values(schedule):
    found = jax.jit(jax.vmap(schedule))(jnp.asarray(STEPS, jnp.int32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, ALL[schedule], rtol=1e-6, atol=1e-6)
    assert schedule(7) == pytest.approx(float(found[7]), rel=1e-6)
    check_strength(schedule, 40)


@over_all
def test_the_text_makes_it_again(schedule):
    again = parse_strength(str(schedule))
    assert again == schedule and hash(again) == hash(schedule) and str(again) == str(schedule)
    assert [float(again(step)) for step in (0, 3, 12)] == [
        float(schedule(step)) for step in (0, 3, 12)
    ]


def test_texts():
    assert str(curriculum(gamma=1e-3)) == "curriculum(gamma=0.001)"
    assert str(early(5, "constant")) == 'early(steps=5,mode="constant")'
    assert parse_strength("early(steps=5)") == early(5) != early(6)
    assert not set(schedules.SCHEDULES) & set(SCHEDULES)
    assert list(schedules.SCHEDULES) == sorted(schedules.SCHEDULES)


def test_curriculum_is_the_paper_s_probability_of_keeping():
    """keep(t) = (1 - k) exp(-g t) + k, for hidden units with k = 0.5 and g = 1e-3."""
    k, gamma = 0.5, 1e-3
    schedule = curriculum(gamma=gamma)
    for step in (0, 1, 1000, 100_000):
        rate = schemes.parse(f"bernoulli(rate={1 - k})").scaled(schedule(step)).rate
        assert 1 - rate == pytest.approx((1 - k) * np.exp(-gamma * step) + k, rel=1e-6)
    assert schedule(1) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "text, match",
    [
        ("early(steps=0)", "schedule='early.steps=0.': steps must be a whole number, at least 1"),
        ("late(steps=2.5)", "steps must be a whole number, at least 1; got 2.5"),
        ("annealed(steps=True)", "steps must be a whole number"),
        ("scheduled_drop_path", "missing 1 required"),
        ('early(steps=3,mode="cosine")', "mode must be one of linear, constant"),
        ("early(step=3)", "early has no argument 'step'; it takes steps, mode"),
        ("curriculum", "needs gamma or steps, got gamma=None, steps=None"),
        ("curriculum(gamma=0.1,steps=3)", "needs gamma or steps"),
        ("curriculum(gamma=0)", "gamma must be a finite number above 0, got 0"),
        ("curriculum(gamma='a')", "gamma must be a finite number above 0"),
        ("erly(steps=3)", "no schedule 'erly'; did you mean early[?]"),
    ],
)
def test_errors(text, match):
    with pytest.raises(ValueError, match=match):
        parse_strength(text)
