"""Facts of Li et al. 2019: x times U(1 - b, 1 + b)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dropjax
from dropjax.ops.uniform import Uniform
from tests.compiled import jit, normal, ones, ops
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(17)
MANY = 100_000


@pytest.mark.parametrize("width", [0.1, 1.0])
def test_the_factor_is_uniform_around_1(width):
    factor = np.asarray(ops.uout(KEY, ones(MANY), width), np.float64)
    assert scipy.stats.kstest(factor, "uniform", (1 - width, 2 * width)).pvalue > 1e-3
    assert_mean(factor, 1)
    assert_mean((factor - 1) ** 2, width**2 / 3)


def test_the_variance_of_x_shifts_by_3_over_3_plus_the_square_of_the_width():
    """300 / 301 at width 0.1, where dropout of half the units shifts it by a half."""
    x = normal(MANY, seed=1)
    for width in (0.1, 1.0):
        ratio = np.asarray(ops.uout(KEY, x, width) ** 2 - x**2 * (3 + width**2) / 3)
        assert_mean(ratio, 0)
    assert abs(3 / (3 + 0.1**2) - 300 / 301) < 1e-12


def test_it_is_the_product_with_the_numbers_of_the_key():
    x = jnp.asarray([0.0, 1.0, -2.0, 1e6])
    u = Uniform.of(KEY, x.shape).values()
    np.testing.assert_allclose(ops.uout(KEY, x, 0.5), x * (1 + 0.5 * u), rtol=1e-6)


def test_width_0_is_the_identity_to_the_bit():
    x = jnp.asarray([0.0, -0.0, 1.5, -jnp.inf])
    y = jit(dropjax.uout)(KEY, x, 0.0)
    assert np.asarray(y).tobytes() == np.asarray(x).tobytes()


def test_the_gradient_is_the_factor_none_goes_to_the_width_and_nothing_is_kept():
    x = ones(64, 32)
    total = jax.grad(lambda x, w: ops.uout(KEY, x, w).sum(), argnums=(0, 1))
    to_x, to_width = total(3 * x, 0.5)
    np.testing.assert_allclose(to_x, ops.uout(KEY, x, 0.5), rtol=1e-6)
    assert to_width == 0
    assert bytes_kept(lambda x: ops.uout(KEY, x, 0.5), x) <= 24


def test_half_precision_rounds_the_product_not_the_noise():
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, 2000), jnp.bfloat16)
    y = ops.uout(KEY, x, 0.1)
    assert y.dtype == x.dtype
    exact = ops.uout(KEY, x.astype(jnp.float32), 0.1)
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_axes_may_share_and_widths_differ():
    y = np.asarray(ops.uout(KEY, ones(4, 5, 6), 0.5, shared_axes=(0, -1)))
    assert (y == y[:1, :, :1]).all() and len(np.unique(y)) == 5
    y = np.asarray(ops.uout(KEY, ones(50, 2), jnp.asarray([0.0, 1.0])))
    assert (y[:, 0] == 1).all() and (y[:, 1] != 1).all()


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ((KEY, jnp.ones(3, jnp.int32), 0.5), TypeError, "^x must be an array of floats"),
        ((0, jnp.ones(3), 0.5), TypeError, "^key must be a PRNG key"),
        ((KEY, jnp.ones(3), -0.1), ValueError, "^width must be finite and at least 0"),
        ((KEY, jnp.ones(3), 1.1), ValueError, "^width must be at most 1.*got 1.1"),
        ((KEY, jnp.ones(3), None), TypeError, "^width must be a number"),
        ((KEY, jnp.ones(3), jnp.ones(2)), ValueError, "^width of shape .* does not broadcast"),
        ((KEY, jnp.ones(3), 0.5, 1), ValueError, "shared_axes names axis 1"),
    ],
)
def test_errors(arguments, error, match):
    key, x, width, *axes = arguments
    with pytest.raises(error, match=match):
        dropjax.uout(key, x, width, shared_axes=axes)
