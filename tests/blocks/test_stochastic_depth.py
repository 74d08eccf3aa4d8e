"""Facts of Huang et al. 2016, section 3: a branch that is dropped is not computed."""

import doctest
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.blocks import depth_rates, stochastic_depth
from tests.statistics import assert_mean

KEY = jax.random.key(31)
X = jnp.arange(1.0, 7.0).reshape(2, 3)
KEYS = jax.random.split(KEY, 400)


def decisions(rate):
    """Which of the keys keep the branch."""
    kept = jax.lax.map(lambda k: stochastic_depth(k, jnp.ones_like, X, rate)[0, 0] > X[0, 0], KEYS)
    return np.asarray(kept)


def test_a_branch_is_dropped_at_the_rate():
    for rate in (0.0, 0.25, 1.0):
        assert_mean(decisions(rate), 1 - rate)


@pytest.mark.parametrize("scaling, kept", [("train", 4.0), ("test", 1.0), ("none", 1.0)])
def test_it_is_x_or_x_and_the_whole_scaled_branch(scaling, kept):
    keep = decisions(0.75)
    f = jax.jit(lambda key: stochastic_depth(key, jnp.square, X, 0.75, scaling=scaling))
    for key, kept_here in zip(KEYS[:12], keep[:12], strict=True):
        np.testing.assert_allclose(f(key), X + float(kept * kept_here) * X**2, rtol=1e-6)
    assert 0 < keep[:12].sum() < 12  # both happen


@pytest.mark.parametrize("gradient", [False, True])
def test_a_dropped_branch_is_not_run(gradient):
    """Counted by a callback from inside of it, under jit, at a traced rate."""
    calls = []

    def f(x):
        jax.debug.callback(lambda: calls.append(None))
        return jnp.sin(x)

    def loss(x, key, rate):
        return stochastic_depth(key, f, x, rate).sum()

    run = jax.jit(jax.grad(loss) if gradient else loss)
    keep = decisions(0.75)[:40]
    for key in KEYS[:40]:
        run(X, key, 0.75)
    jax.effects_barrier()
    assert 0 < len(calls) == keep.sum() < 40


def test_a_network_of_dropped_branches_runs_as_many_as_its_expected_depth():
    """54 branches, the last at 0.5: 40.25 of them on average, the paper's 110 layers."""
    rates = depth_rates(0.5, 54)
    assert abs(sum(1 - rate for rate in rates) - 40.25) < 1e-9
    stacked = jnp.asarray(rates)

    @jax.jit
    def active(key):
        def block(x, inputs):
            number, rate = inputs
            layer = dropjax.derive(key, number)
            return stochastic_depth(layer, jnp.ones_like, x, rate, scaling="test"), None

        return jax.lax.scan(block, jnp.zeros(()), (jnp.arange(54), stacked))[0]

    assert_mean(jax.lax.map(active, KEYS), 40.25)


def test_gradients_reach_what_the_branch_closes_over_and_none_goes_to_the_rate():
    def loss(w, x, rate, key):
        return stochastic_depth(key, lambda x: w * x, x, rate).sum()

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    keep = decisions(0.75)
    for key, kept in zip(KEYS[:12], keep[:12], strict=True):
        to_w, to_x, to_rate = slopes(3.0, X, 0.75, key)
        np.testing.assert_allclose(to_w, 4 * int(kept) * float(X.sum()), rtol=1e-6)
        np.testing.assert_allclose(to_x, np.full(X.shape, 1 + 12 * int(kept)), rtol=1e-6)
        assert to_rate == 0
    assert 0 < keep[:12].sum() < 12
    for rate in (0.0, 1.0):
        to_w, to_x, _ = slopes(3.0, X, rate, KEY)
        assert to_w == (X.sum() if rate == 0 else 0)
        assert (to_x == (4 if rate == 0 else 1)).all()


def test_rate_0_is_the_block_to_the_bit_and_rate_1_is_x_to_the_bit():
    x = jnp.asarray([0.0, -0.0, 1.7, jnp.inf])
    for rate in (0.0, 1.0):
        y = jax.jit(lambda r: stochastic_depth(KEY, jnp.negative, x, r))(rate)
        assert np.asarray(y).tobytes() == np.asarray(x - x if rate == 0 else x).tobytes()


def test_half_precision_is_scaled_in_float32():
    x = jnp.ones(3, jnp.bfloat16)
    y = stochastic_depth(KEYS[int(decisions(0.1).argmax())], lambda x: 3 * x, x, 0.1)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x + jnp.bfloat16(3 / 0.9))


def test_under_vmap_each_example_has_a_decision_of_its_own():
    one = jax.jit(lambda key: stochastic_depth(key, jnp.ones_like, X, 0.5))
    y, loop = jax.jit(jax.vmap(one))(KEYS), jax.lax.map(one, KEYS)
    np.testing.assert_array_equal(y, loop)
    assert len(np.unique(y[:, 0, 0])) == 2


def test_rates_of_a_rule():
    assert depth_rates(0.4, 2) == [0.2, 0.4]
    assert depth_rates(0.4, 3, rule="constant") == [0.4] * 3
    for depth in (1, 2, 5):
        wanted = np.linspace(0, 0.4, depth)
        np.testing.assert_allclose(depth_rates(0.4, depth, rule="from_zero"), wanted)
    traced = jax.jit(lambda r: jnp.stack(depth_rates(r, 4)))(0.5)
    np.testing.assert_allclose(traced, [0.125, 0.25, 0.375, 0.5])


def test_examples_run():
    failed, tried = doctest.testmod(importlib.import_module("dropjax.blocks.stochastic_depth"))
    assert failed == 0 and tried == 5


@pytest.mark.parametrize(
    "arguments, named, error, match",
    [
        ((0, jnp.sin, X, 0.5), {}, TypeError, "^key must be a PRNG key"),
        ((KEY, X, X, 0.5), {}, TypeError, "^f must be a function of x"),
        ((KEY, jnp.sin, X.astype(int), 0.5), {}, TypeError, "^x must be an array of floats"),
        ((KEY, jnp.sin, X, 1.5), {}, ValueError, "^rate is the probability"),
        ((KEY, jnp.sin, X, jnp.full((2, 1), 0.5)), {}, ValueError, "does not broadcast"),
        ((KEY, jnp.sum, X, 0.5), {}, ValueError, r"^f must return .*\[2, 3\]; .*float32\[\]"),
        ((KEY, jnp.sign, X, 0.5), {"scaling": "no"}, ValueError, "^scaling must be one of"),
    ],
)
def test_errors(arguments, named, error, match):
    with pytest.raises(error, match=match):
        stochastic_depth(*arguments, **named)


@pytest.mark.parametrize(
    "arguments, named, error, match",
    [
        ((1.5, 4), {}, ValueError, "^rate is the probability"),
        ((0.5, 0), {}, ValueError, "^depth must be at least 1"),
        ((0.5, 2.0), {}, TypeError, "^depth must be a number of branches"),
        (
            (0.5, 2),
            {"rule": "cosine"},
            ValueError,
            "^rule must be one of linear, from_zero, constant",
        ),
    ],
)
def test_errors_of_rates(arguments, named, error, match):
    with pytest.raises(error, match=match):
        depth_rates(*arguments, **named)
