"""Facts of Wu & Gu 2015, section 3, by enumeration of all masks of a window."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax import blocks
from tests.compiled import compiled, normal, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(6)
RNG = np.random.default_rng(0)
max_pool_dropout = compiled(blocks.max_pool_dropout)
weighted_max_pool = compiled(blocks.weighted_max_pool)


def mean_over_masks(window, rate):
    """The mean of the maximum over all 2**n masks, each with its probability."""
    total = 0.0
    for mask in itertools.product((0, 1), repeat=len(window)):
        kept = sum(mask)
        probability = (1 - rate) ** kept * rate ** (len(mask) - kept)
        total += probability * max(m * a for m, a in zip(mask, window, strict=True))
    return total


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("sign", ["positive", "mixed", "negative"])
def test_weighted_pooling_is_the_mean_over_all_masks(rate, sign):
    x = RNG.normal(size=(5, 6, 2)).astype(np.float32)
    x = {"positive": np.abs(x), "mixed": x, "negative": -np.abs(x)}[sign]
    y = np.asarray(weighted_max_pool(x, rate))
    assert y.shape == (2, 3, 2)  # the last row is left out
    for i, j, k in np.ndindex(y.shape):
        window = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, k].astype(np.float64).reshape(-1)
        assert y[i, j, k] == pytest.approx(mean_over_masks(window, rate), rel=1e-5, abs=1e-6)


def test_windows_of_any_size_along_any_axes():
    x = np.abs(RNG.normal(size=(7, 3))).astype(np.float32)
    y = np.asarray(weighted_max_pool(x, 0.4, size=3, spatial_axes=0))
    assert y.shape == (2, 3)
    for i, k in np.ndindex(y.shape):
        wanted = mean_over_masks(x[3 * i : 3 * i + 3, k].astype(np.float64), 0.4)
        assert y[i, k] == pytest.approx(wanted, rel=1e-5)
    cube = RNG.normal(size=(2, 4, 4, 4)).astype(np.float32)
    y = max_pool_dropout(KEY, cube, 0.0, spatial_axes=(1, 2, 3))
    np.testing.assert_array_equal(y, cube.reshape(2, 2, 2, 2, 2, 2, 2).max((2, 4, 6)))


@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_the_mean_of_max_pooling_dropout_is_weighted_pooling(rate):
    x = RNG.normal(size=(4, 2, 1)).astype(np.float32)

    @compiled
    def draws(x):
        keys = jax.random.split(KEY, 20_000)
        return jax.vmap(lambda key: max_pool_dropout(key, x, rate))(keys)

    assert_mean(draws(x), weighted_max_pool(x, rate))


def test_it_is_the_maximum_of_unscaled_dropout():
    """Nothing is rescaled, and the gradient goes to the element that was the maximum."""
    x = np.abs(normal(2, 4, 4, 3))
    dropped = ops.dropout(KEY, x, 0.6, scaling="test")
    y = max_pool_dropout(KEY, x, 0.6)
    np.testing.assert_array_equal(y, dropped.reshape(2, 2, 2, 2, 2, 3).max((2, 4)))
    gradient = compiled(jax.grad(lambda x: max_pool_dropout(KEY, x, 0.6).sum()))(x)
    largest = np.repeat(np.repeat(np.asarray(y), 2, 1), 2, 2)
    np.testing.assert_array_equal(gradient, (dropped == largest) & (dropped > 0))


def test_traced_rates_0_and_1():
    x = np.abs(normal(4, 4, 1))
    whole = x.reshape(2, 2, 2, 2, 1).max((1, 3))

    @compiled
    def values_and_slopes(x, rate):
        found = []
        for f in (lambda x, rate: max_pool_dropout(KEY, x, rate), weighted_max_pool):
            y, pullback = jax.vjp(f, x, rate)
            found.append((y, pullback(jnp.ones_like(y))))
        return found

    for rate, wanted in ((0.0, whole), (1.0, 0 * whole)):
        for y, (to_x, to_rate) in values_and_slopes(x, np.asarray(rate, np.float32)):
            np.testing.assert_array_equal(y, wanted)
            assert np.isfinite(to_x).all() and to_rate == 0
            assert to_x.sum() == (4 if rate == 0 else 0)


def test_rates_may_differ_by_channel():
    x, rate = ones(2, 2, 3), np.float32([0.0, 0.5, 1.0])
    np.testing.assert_allclose(weighted_max_pool(x, rate)[0, 0], [1, 1 - 0.5**4, 0])
    assert max_pool_dropout(KEY, x, rate)[0, 0, ::2].tolist() == [1, 0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes_are_kept(dtype):
    x = ones(2, 2, 1).astype(dtype)
    assert max_pool_dropout(KEY, x, 0.5).dtype == dtype
    y = weighted_max_pool(x, 0.5)
    assert y.dtype == dtype and y[0, 0, 0] == jnp.asarray(1 - 0.5**4, dtype)


@pytest.mark.parametrize(
    "x, rate, options, error, match",
    [
        (jnp.ones((2, 2, 1), jnp.int32), 0.5, {}, TypeError, "^x must be an array of floats"),
        (jnp.ones((2, 2, 1)), -0.5, {}, ValueError, "^rate is the probability"),
        (jnp.ones((2, 2, 1)), 0.5, {"size": 0}, ValueError, "size must be a whole number"),
        (jnp.ones((2, 2, 1)), 0.5, {"size": 2.0}, ValueError, "size must be a whole number"),
        (jnp.ones((2, 2, 1)), 0.5, {"size": 3}, ValueError, "size=3 is larger than an axis"),
        (jnp.ones((2, 2)), 0.5, {}, ValueError, "spatial_axes names axis -3"),
    ],
)
def test_errors(x, rate, options, error, match):
    for f in (lambda *a, **k: max_pool_dropout(KEY, *a, **k), weighted_max_pool):
        with pytest.raises(error, match=match):
            f(x, rate, **options)


def test_more_errors():
    with pytest.raises(TypeError, match=r"^key must be a PRNG key"):
        max_pool_dropout(0, jnp.ones((2, 2, 1)), 0.5)
    with pytest.raises(ValueError, match="does not broadcast"):
        weighted_max_pool(jnp.ones((2, 2, 1)), jnp.full((2, 2, 1), 0.5))
