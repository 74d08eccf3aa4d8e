"""Facts of Santos et al. 2020: what lies in the upper part of the range becomes 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from tests.compiled import jit, ones, ops

X = np.random.default_rng(0).normal(size=(5, 4, 3, 6)).astype(np.float32)


def written_out(x, rate):
    """Of one example, as the paper normalises it: (x - min) / (max - min), in float64."""
    x = x.astype(np.float64)
    normalised = (x - x.min()) / (x.max() - x.min())
    return np.where(normalised > 1 - rate, 0, x)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.77, 1.0])
def test_the_upper_part_of_each_example_s_range_is_dropped(rate):
    y = jit(lambda r: ops.max_dropout(X, r, batch_axes=0))(rate)
    np.testing.assert_array_equal(y, [written_out(x, rate) for x in X])
    together = ops.max_dropout(X, rate, batch_axes=())
    np.testing.assert_array_equal(together, written_out(X, rate))


def test_an_example_does_not_depend_on_the_rest_of_its_batch():
    """As it does in the authors' code, where one large value saves all others."""
    loud = X.copy()
    loud[1] *= 1000
    y, with_loud = (np.asarray(ops.max_dropout(x, 0.3, batch_axes=0)) for x in (X, loud))
    np.testing.assert_array_equal(with_loud[0], y[0])
    assert (y[0] != X[0]).any()
    assert (np.asarray(ops.max_dropout(loud, 0.3, batch_axes=()))[0] == X[0]).all()
    alone = jax.vmap(lambda x: ops.max_dropout(x, 0.3, batch_axes=()))(X)
    np.testing.assert_array_equal(alone, y)


def test_equal_values_are_kept_with_a_finite_gradient():
    """Their range is 0, and 0 / 0 is NaN in the authors' code."""
    x = jnp.full((2, 7), 3.0)
    for rate in (0.0, 0.5, 1.0):
        y, pullback = jax.vjp(lambda x, r=rate: ops.max_dropout(x, r, batch_axes=0), x)
        assert (y == 3).all()
        assert (pullback(jnp.ones_like(x))[0] == 1).all()
    assert ops.max_dropout(ones(0, 3), 0.5, batch_axes=0).shape == (0, 3)


def test_the_gradient_is_1_where_kept_and_0_where_dropped():
    slope = jax.grad(lambda x: ops.max_dropout(x, 0.4, batch_axes=0).sum())(jnp.asarray(X))
    np.testing.assert_array_equal(slope, np.asarray([written_out(x, 0.4) for x in X]) != 0)


def test_the_rate_is_a_part_of_the_range_not_of_the_values():
    x = np.float32([[0, 1, 2, 3, 100]])
    assert ops.max_dropout(x, 0.9, batch_axes=0).tolist() == [[0, 1, 2, 3, 0]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_compares_in_float32(dtype):
    x = jnp.asarray(X, dtype)
    y = ops.max_dropout(x, 0.3, batch_axes=0)
    assert y.dtype == x.dtype
    wide = ops.max_dropout(x.astype(jnp.float32), 0.3, batch_axes=0)
    np.testing.assert_array_equal(y.astype(jnp.float32), wide)


@pytest.mark.parametrize(
    "x, rate, axes, error, match",
    [
        (X.astype(int), 0.5, 0, TypeError, "^x must be an array of floats"),
        (X, 1.5, 0, ValueError, "^rate .* in \\[0, 1\\]"),
        (X, jnp.full(6, 0.5), 0, ValueError, "^rate of shape"),
        (X, 0.5, 4, ValueError, "batch_axes names axis 4"),
    ],
)
def test_errors(x, rate, axes, error, match):
    with pytest.raises(error, match=match):
        dropjax.max_dropout(x, rate, batch_axes=axes)
    with pytest.raises(TypeError, match="batch_axes"):
        dropjax.max_dropout(X, 0.5)
