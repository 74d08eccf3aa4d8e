"""Convolution and pooling against loops in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.nn.convolution import _by_patches, _by_xla, conv, pool
from tests.compiled import compiled

RNG = np.random.default_rng(5)
WAYS = {
    "conv": conv,
    "patches": functools.partial(_by_patches, "same"),
    "xla": functools.partial(_by_xla, "same"),
}
VALID = {
    "conv": functools.partial(conv, padding="valid"),
    "patches": functools.partial(_by_patches, "valid"),
    "xla": functools.partial(_by_xla, "valid"),
}
KERNELS = [(1, 1), (3, 3), (5, 3)]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def conv_by_hand(x, w):
    """y[i, j] = sum over a, b of x[i + a - A // 2, j + b - B // 2] @ w[a, b], 0 outside of x."""
    (height, width, _), (rows, columns, _, outputs) = x.shape, w.shape
    y = np.zeros((height, width, outputs))
    for i in range(height):
        for j in range(width):
            for a in range(rows):
                for b in range(columns):
                    p, q = i + a - rows // 2, j + b - columns // 2
                    if 0 <= p < height and 0 <= q < width:
                        y[i, j] += np.float64(x[p, q]) @ np.float64(w[a, b])
    return y


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_convolution_is_the_loop(way, kernel):
    """Of images by their leading axes, and of one under vmap."""
    x, w = normal(2, 4, 6, 3), normal(*kernel, 3, 2)
    wanted = np.stack([conv_by_hand(image, w) for image in x])
    close = {"rtol": 1e-5, "atol": 1e-5}
    mapped = jax.vmap(WAYS[way], (0, None))
    at_once, one_by_one = compiled(lambda x, w: (WAYS[way](x[None], w), mapped(x, w)))(x, w)
    np.testing.assert_allclose(at_once, wanted[None], **close)
    np.testing.assert_allclose(one_by_one, wanted, **close)


def valid_by_hand(x, w):
    """Of the convolution with zeros what no zero has entered."""
    rows, columns = w.shape[0] // 2, w.shape[1] // 2
    return conv_by_hand(x, w)[rows : x.shape[0] - rows, columns : x.shape[1] - columns]


@pytest.mark.parametrize("way", VALID)
def test_without_zeros_around_the_image_it_becomes_smaller(way):
    x, w = normal(2, 5, 6, 3), normal(5, 3, 3, 2)
    wanted = np.stack([valid_by_hand(image, w) for image in x])
    found = compiled(VALID[way])(x, w)
    assert found.shape == (2, 1, 4, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_leaves_nothing_of_an_image_is_refused():
    with pytest.raises(ValueError, match="the kernel, 5 x 3, is larger than the image, 4 x 6"):
        conv(normal(4, 6, 1), normal(5, 3, 1, 1), padding="valid")
    with pytest.raises(ValueError, match='padding must be "same" or "valid", got \'full\''):
        conv(normal(4, 6, 1), normal(3, 3, 1, 1), padding="full")


@pytest.mark.parametrize("way", WAYS)
def test_kernels_under_vmap(way):
    """One for each example, as noise on weights has it."""
    x, w = normal(2, 3, 4, 2), normal(2, 3, 3, 2, 1)
    wanted = np.stack([conv_by_hand(*pair) for pair in zip(x, w, strict=True)])
    np.testing.assert_allclose(compiled(jax.vmap(WAYS[way]))(x, w), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_a_convolution(way):
    """It is linear in both: the gradient of <y, g> is what the loop gives for unit arguments."""
    x, w, g = normal(3, 4, 2), normal(3, 3, 2, 1), normal(3, 4, 1)
    slopes = compiled(jax.grad(lambda x, w: (WAYS[way](x, w) * g).sum(), (0, 1)))
    to_x, to_w = slopes(x, w)

    def by_unit(shape, of_unit):
        units = np.eye(np.prod(shape), dtype=np.float32).reshape(-1, *shape)
        return np.reshape([np.sum(of_unit(unit) * g) for unit in units], shape)

    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(to_x, by_unit(x.shape, lambda u: conv_by_hand(u, w)), **close)
    np.testing.assert_allclose(to_w, by_unit(w.shape, lambda u: conv_by_hand(x, u)), **close)


def pool_by_hand(x, kind):
    height, width, channels = x.shape
    y = np.zeros((height // 2, width // 2, channels))
    for i in range(height // 2):
        for j in range(width // 2):
            window = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(4, channels)
            y[i, j] = window.max(0) if kind == "max" else window.mean(0)
    return y


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("size", [(2, 2), (4, 6), (5, 7), (3, 2)], ids=str)
def test_pooling_is_the_loop_and_leaves_out_a_last_odd_row_and_column(kind, size):
    x = normal(2, *size, 3)
    wanted = [pool_by_hand(image, kind) for image in x]
    np.testing.assert_allclose(compiled(pool)(x, kind), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["max", "average"])
def test_gradients_of_a_window_sum_to_that_of_its_value(kind):
    x = normal(5, 4, 1)
    x[:2, :2] = 9.0  # all equal

    @compiled
    def slopes(x):
        _, pullback = jax.vjp(lambda x: pool(x, kind), x)
        return pullback(1 + jnp.arange(4.0).reshape(2, 2, 1))

    (gradient,) = slopes(x)
    sums = pool_by_hand(np.asarray(gradient), "average") * 4
    np.testing.assert_allclose(sums.ravel(), [1, 2, 3, 4], rtol=1e-6)
    assert (gradient[4] == 0).all()
    assert np.allclose(gradient[:2, :2], 0.25)  # they share it
    if kind == "max":
        assert (np.asarray(gradient[2:4, 2:4]) != 0).sum() == 1
        where = np.argmax(x[2:4, 2:4])
        assert gradient[2:4, 2:4].ravel()[where] == 4
