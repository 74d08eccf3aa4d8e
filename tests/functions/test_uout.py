"""Facts of Li et al. 2019: x times U(1 - b, 1 + b)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dropjax
from dropjax.ops.uniform import Uniform
from tests.compiled import normal, ones, ops
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


def test_it_is_the_product_with_the_numbers_of_the_key():
    x = jnp.asarray([0.0, 1.0, -2.0, 1e6])
    u = Uniform.of(KEY, x.shape).values()
    np.testing.assert_allclose(ops.uout(KEY, x, 0.5), x * (1 + 0.5 * u), rtol=1e-6)


def test_the_gradient_is_the_factor():
    x = ones(64, 32)
    slopes = jax.grad(lambda x: ops.uout(KEY, x, 0.5).sum())(3 * x)
    np.testing.assert_allclose(slopes, ops.uout(KEY, x, 0.5), rtol=1e-6)


def test_widths_may_differ_by_element():
    y = np.asarray(ops.uout(KEY, ones(50, 2), jnp.asarray([0.0, 1.0])))
    assert (y[:, 0] == 1).all() and (y[:, 1] != 1).all()


def test_a_width_above_1_is_refused():
    with pytest.raises(ValueError, match=r"^width must be at most 1.*got 1\.1"):
        dropjax.uout(KEY, jnp.ones(3), 1.1)
