"""Facts of Gastaldi 2017: one number forward, an independent one backward, uniform in [0, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dropjax import blocks
from tests.compiled import compiled, normal, ones
from tests.statistics import assert_mean

KEY = jax.random.key(7)
shake_shake = compiled(blocks.shake_shake)
MANY = 20_000


def numbers(n=MANY):
    """The forward and the backward number of each example."""

    @compiled
    def both(a):
        u, pullback = jax.vjp(lambda a: shake_shake(KEY, a, jnp.zeros_like(a), batch_axes=0), a)
        return u, pullback(a)[0]

    u, v = both(ones(n, 2))
    assert (u == u[:, :1]).all() and (v == v[:, :1]).all()
    return u[:, 0], v[:, 0]


def test_numbers_are_uniform_and_independent():
    u, v = numbers()
    for values in (u, v):
        assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3
    assert_mean((u - 0.5) * (v - 0.5), 0)


def test_a_convex_combination_forward_and_another_backward():
    a, b, ct = normal(3, 6, 3, seed=1)
    u, v = (number[:, None] for number in numbers(6))

    @compiled
    def both_ways(a, b, ct):
        y, pullback = jax.vjp(lambda a, b: shake_shake(KEY, a, b, batch_axes=0), a, b)
        forward = jax.jvp(lambda a: shake_shake(KEY, a, b, batch_axes=0), (a,), (ct,))
        return y, pullback(ct), forward

    y, (to_a, to_b), (primal, tangent) = both_ways(a, b, ct)
    np.testing.assert_allclose(y, u * a + (1 - u) * b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_a, v * ct, rtol=1e-5)
    np.testing.assert_allclose(to_b, (1 - v) * ct, rtol=1e-5)
    np.testing.assert_array_equal(primal, y)
    np.testing.assert_allclose(tangent, v * ct, rtol=1e-5)


def test_the_mean_is_one_half_of_each():
    y = shake_shake(KEY, 3 * ones(MANY, 1), ones(MANY, 1), batch_axes=0)
    assert_mean(y, 2)


def test_under_vmap_each_key_has_numbers_of_its_own_backward_too():

    def total(key, a):
        return shake_shake(key, a, 0 * a, batch_axes=()).sum()

    @compiled
    def mapped_and_alone(a):
        keys = jax.random.split(KEY, 40)
        mapped = jax.grad(lambda a: jax.vmap(total)(keys, a).sum())(a)
        return mapped, jax.grad(lambda a: total(keys[5], a))(a[5])

    gradient, alone = mapped_and_alone(ones(40, 3))
    assert (gradient == gradient[:, :1]).all() and len(np.unique(gradient)) == 40
    np.testing.assert_allclose(gradient[5], alone, rtol=1e-6)


def test_one_number_for_the_batch():
    y = shake_shake(KEY, ones(8, 2), 0 * ones(8, 2), batch_axes=())
    assert len(np.unique(y)) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes_are_kept_and_the_numbers_are_not_rounded_to_them(dtype):
    a = (1.5 * ones(100, 1)).astype(dtype)
    low = shake_shake(KEY, a, -a, batch_axes=0)
    exact = shake_shake(KEY, a.astype("float32"), -a.astype("float32"), batch_axes=0)
    assert low.dtype == dtype
    np.testing.assert_array_equal(low, exact.astype(dtype))


@pytest.mark.parametrize(
    "key, a, b, axes, error, match",
    [
        (0, jnp.ones(3), jnp.ones(3), 0, TypeError, "^key must be a PRNG key"),
        (KEY, jnp.ones(3, int), jnp.ones(3), 0, TypeError, "^a must be an array of floats"),
        (KEY, jnp.ones(3), jnp.ones(3, int), 0, TypeError, "^b must be an array of floats"),
        (KEY, jnp.ones(3), jnp.ones((1, 3)), 0, ValueError, "^b must be like a"),
        (KEY, jnp.ones(3), jnp.ones(3, "float16"), 0, ValueError, "^b must be like a"),
        (KEY, jnp.ones(3), jnp.ones(3), 1, ValueError, "batch_axes names axis 1"),
    ],
)
def test_errors(key, a, b, axes, error, match):
    with pytest.raises(error, match=match):
        shake_shake(key, a, b, batch_axes=axes)
