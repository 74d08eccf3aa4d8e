"""Attention dropout, against NumPy; the row-normalised form of Lin et al. 2019."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import compiled, normal, ops

KEY = jax.random.key(5)
SITE = Site("weights", Kind.ATTENTION, ("head", "query", "key"))
X = scipy.special.softmax(normal(4, 6, 8, seed=1), axis=-1)


def mask(shape, rate=0.4):
    return np.asarray(ops.keep_mask(KEY, rate, shape))


def test_neither_heads_nor_examples_share_a_mask_unless_told():
    """Flax's `broadcast_dropout` does by default."""
    ones = np.ones((3, 2, 8, 8), np.float32)
    for axes, number in {(): 6, (0, 1): 1}.items():
        dropped = ops.attention_dropout(KEY, ones, 0.5, shared_axes=axes) == 0
        assert len({mask.tobytes() for mask in dropped.reshape(6, 64)}) == number


def test_rows_sum_to_what_they_did():
    y = np.asarray(ops.attention_dropout(KEY, X, 0.4, scaling="row"))
    keep = mask(X.shape)
    kept = np.where(keep, X, 0)
    assert keep.any(-1).all()
    np.testing.assert_allclose(y, kept / kept.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_that_of_float32_rounded_once(dtype):
    x = X.astype(dtype)
    wide = ops.attention_dropout(KEY, x.astype("float32"), 0.4, scaling="row")
    y = ops.attention_dropout(KEY, x, 0.4, scaling="row")
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, wide.astype(dtype))


def test_a_row_of_which_nothing_is_kept_is_0_with_finite_gradients():
    def f(x, rate):
        return ops.attention_dropout(KEY, x, rate, scaling="row")

    for rate in (1.0, 0.95):
        y, pullback = jax.vjp(f, X, rate)
        assert np.isfinite(y).all() and np.isfinite(pullback(y)[0]).all()
    assert (f(X, 1.0) == 0).all()


@compiled
def weighted_sum_and_slopes(key, logits, c):
    def total(logits):
        y = dropjax.attention_dropout(key, jax.nn.softmax(logits), 0.5, scaling="row")
        return jnp.sum(c * y), y

    return jax.value_and_grad(total, has_aux=True)(logits)


@pytest.mark.parametrize("gap", [5.0, 50.0, 80.0])
def test_gradients_are_right_where_the_peak_of_a_sharp_row_is_dropped(gap):
    """Then the weights that are kept sum to 1e-35, and the square of that is 0."""
    logits = jnp.asarray([[0.0, -gap, -gap - 1, -gap - 2]])
    key = next(
        key
        for key in map(jax.random.key, range(100))
        if ops.keep_mask(key, 0.5, (1, 4)).tolist() == [[False, True, True, False]]
    )
    c = jnp.asarray([[4.0, 1.0, 2.0, 3.0]])

    (_, y), gradient = weighted_sum_and_slopes(key, logits, c)
    kept = np.exp([0.0, -1.0]) / np.exp([0.0, -1.0]).sum()  # a softmax over these two alone
    np.testing.assert_allclose(y, [[0, *kept, 0]], rtol=1e-5)
    slopes = kept * ([1.0, 2.0] - kept @ [1.0, 2.0])
    np.testing.assert_allclose(gradient, [[0, *slopes, 0]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "shared, shape", [("none", (4, 6, 8)), ("head", (1, 6, 8)), ("query", (4, 1, 8))]
)
def test_what_a_scheme_shares(shared, shape):
    scheme = parse(f'attention(rate=0.4,shared="{shared}")')
    noise = scheme.sample(Keys.of(KEY), SITE, X.shape)
    assert noise.shape == shape
    one = sampled(scheme, Keys.of(KEY, 0))(X, SITE)
    other = sampled(scheme, Keys.of(KEY, 1))(X, SITE)
    assert (one != other).any()  # another example, another mask


def test_bad_input():
    with pytest.raises(ValueError, match="scaling must be one of train, row"):
        dropjax.attention_dropout(KEY, X, 0.1, scaling="test")  # type: ignore[arg-type]
    site = Site("w", Kind.ATTENTION, ("key", "query"))
    assert "queries and, last, keys" in (parse("attention").refuses([site]) or "")
