"""Facts of Gastaldi 2017: one number forward, an independent one backward, uniform in [0, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dropjax.blocks import shake_shake
from tests.statistics import assert_mean

KEY = jax.random.key(7)
MANY = 20_000


def numbers(n=MANY):
    """The forward and the backward number of each example."""
    ones = jnp.ones((n, 2))
    u, pullback = jax.vjp(lambda a: shake_shake(KEY, a, jnp.zeros_like(a), batch_axes=0), ones)
    (v,) = pullback(ones)
    assert (u == u[:, :1]).all() and (v == v[:, :1]).all()
    return np.asarray(u)[:, 0], np.asarray(v)[:, 0]


def test_numbers_are_uniform_and_independent():
    u, v = numbers()
    for values in (u, v):
        assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3
    assert_mean((u - 0.5) * (v - 0.5), 0)


def test_a_convex_combination_forward_and_another_backward():
    rng = np.random.default_rng(1)
    a, b, ct = (jnp.asarray(rng.normal(size=(6, 3)), jnp.float32) for _ in range(3))
    u, v = (number[:, None] for number in numbers(6))
    y, pullback = jax.vjp(lambda a, b: shake_shake(KEY, a, b, batch_axes=0), a, b)
    np.testing.assert_allclose(y, u * a + (1 - u) * b, rtol=1e-5, atol=1e-6)
    to_a, to_b = pullback(ct)
    np.testing.assert_allclose(to_a, v * ct, rtol=1e-5)
    np.testing.assert_allclose(to_b, (1 - v) * ct, rtol=1e-5)
    primal, tangent = jax.jvp(lambda a: shake_shake(KEY, a, b, batch_axes=0), (a,), (ct,))
    np.testing.assert_array_equal(primal, y)
    np.testing.assert_allclose(tangent, v * ct, rtol=1e-5)


def test_the_mean_is_one_half_of_each():
    y = np.asarray(shake_shake(KEY, jnp.full((MANY, 1), 3.0), jnp.ones((MANY, 1)), batch_axes=0))
    assert_mean(y, 2)


def test_under_vmap_each_key_has_numbers_of_its_own_backward_too():
    keys = jax.random.split(KEY, 40)
    a = jnp.ones((40, 3))

    def total(a):
        one = jax.vmap(lambda key, a: shake_shake(key, a, 0 * a, batch_axes=()))
        return one(keys, a).sum()

    gradient = np.asarray(jax.jit(jax.grad(total))(a))
    assert (gradient == gradient[:, :1]).all() and len(np.unique(gradient)) == 40
    alone = jax.grad(lambda a: shake_shake(keys[5], a, 0 * a, batch_axes=()).sum())(a[5])
    np.testing.assert_allclose(gradient[5], alone, rtol=1e-6)


def test_one_number_for_the_batch():
    y = shake_shake(KEY, jnp.ones((8, 2)), jnp.zeros((8, 2)), batch_axes=())
    assert len(np.unique(y)) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes_are_kept_and_the_numbers_are_not_rounded_to_them(dtype):
    a = jnp.full((100, 1), 1.5, dtype)
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
