"""Cutout: sets a square of each training image to 0.

Source: DeVries, Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout"
(arXiv 1708.04552), section 3: the centre is any pixel, so part of the square may lie outside of
the image.

Differs: a square of odd size has that size; the paper's code makes it one smaller.
"""

import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop
from dropjax.ops.boxes import inside
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.ops.keys import check_key, derive
from dropjax.ops.uniform import below

Array = jax.Array


def _outside(
    key: Array, rate: ArrayLike, shape: Sequence[int], size: int, axes: Sequence[int]
) -> Array:
    """True outside of the hole, of `shape`. Along axes other than `axes` lie different images."""
    images = [1 if axis in axes else length for axis, length in enumerate(shape)]
    whole = Mask.of(derive(key, "image"), rate, images)
    return _outside_of_holes(whole, key, tuple(shape), int(size), tuple(axes))


@functools.partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
def _outside_of_holes(
    whole: Mask, key: Array, shape: tuple[int, ...], size: int, axes: tuple[int, ...]
) -> Array:
    first = {
        axis: below(derive(key, "centre", axis), whole.shape, shape[axis]) - size // 2
        for axis in axes
    }
    return whole.keep() | ~inside(shape, first, dict.fromkeys(axes, size))


def cutout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike = 1.0,
    *,
    size: int,
    spatial_axes: Sequence[int] = (-3, -2),
    channel_axis: int | None = -1,
) -> Array:
    """Sets a square of each image to 0.

    Args:
      key: PRNG key, typed or raw.
      x: images, floats, (..., height, width, channels) for the default axes; each image of a
        batch gets a square of its own. 0 should be the mean pixel: normalise first.
      rate: probability that an image gets one, in [0, 1]; may be traced, or an array that
        broadcasts to x with size 1 along the spatial axes and the channels. The paper's is 1.
      size: side of the square, pixels. Typical: 16 for CIFAR-10, 8 for CIFAR-100.
      spatial_axes: the axes that the square lies in: one, two or three.
      channel_axis: the axis of channels, which share a square; None if there is none.

    Returns:
      An array of the shape and dtype of x; nothing is rescaled.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1]; size less than 1; x has no such axis.

    Cost: 32 random bits an image and 32 for each spatial axis; about the time of reading x and
      writing the result. For the backward pass the mask is kept, a byte a pixel.

    Source: DeVries & Taylor 2017, section 3. For training only.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> y = dropjax.cutout(jax.random.key(0), jnp.ones((8, 8, 3)), size=4)
      >>> y.shape, float(y.min())
      ((8, 8, 3), 0.0)
    """
    key, x = check_key(key), check_floating(x)
    _check_size(size)
    axes = normalize_axes(spatial_axes, x.ndim, "spatial_axes")
    if not 1 <= len(axes) <= 3:
        raise ValueError(f"spatial_axes must name one, two or three axes, got {spatial_axes!r}")
    channels = () if channel_axis is None else normalize_axes(channel_axis, x.ndim, "channel_axis")
    if set(axes) & set(channels):
        raise ValueError(f"channel_axis={channel_axis} is among spatial_axes={spatial_axes}")
    shape = [1 if axis in channels else length for axis, length in enumerate(x.shape)]
    return drop(_outside(key, rate, shape, size, axes), x, 0.0, "test")


def _check_size(size: int) -> None:
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, at least 1; got {size!r}")


def no_images(sites: Sequence[Site]) -> str | None:
    """Why nothing can be cut out at these sites; None if it can."""
    if all("height" in site.axes and "width" in site.axes for site in sites):
        return None
    return "its input has no height and width"


@scheme
class Cutout(Scheme):
    """Cutout on input images, in training only; `rate` of the images get a hole.

    Evaluates with x, which is not the mean: pixels are taken away and nothing is scaled up.

    Args:
      rate: the probability that an image gets a hole, in [0, 1].
      size: side of the hole in pixels. Typical: 16 for CIFAR-10, 8 for CIFAR-100.
    """

    rate: Rate = 1.0
    size: int = 8

    acts_on: ClassVar = frozenset({Kind.INPUT})
    made_for: ClassVar = "cnn"
    expected_is_mean: ClassVar = False
    train_only: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_size(self.size)

    def refuses(self, sites: Sequence[Site]) -> str | None:
        return no_images(sites)

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        images = site.shared(shape, "feature")
        axes = [site.axes.index(axis) for axis in ("height", "width")]
        return _outside(keys.example, self.rate, images, self.size, axes)

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, 0.0, "test")
