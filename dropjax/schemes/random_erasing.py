"""Random erasing: fills a rectangle of random shape in some training images.

Source: Zhong, Zheng, Kang, Li, Yang 2020, "Random Erasing Data Augmentation" (arXiv 1708.04896),
section 3.2, algorithm 1: an area and an aspect ratio are drawn, and a place.

Differs: the paper draws everything again until the rectangle fits, so small areas become more
likely. We draw the area once; then an aspect ratio at which it fits, uniform on a logarithmic
scale, so that tall is as likely as wide; then a place where it fits. In a long, narrow image no
aspect ratio in range may fit. Then the nearest that fits is taken.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Number, Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask
from dropjax.ops.boxes import inside
from dropjax.ops.checks import check_floating, check_known, normalize_axes
from dropjax.ops.gaussian import Normal
from dropjax.ops.keys import check_key, derive
from dropjax.ops.lazy import fused
from dropjax.ops.uniform import below, uniform
from dropjax.schemes.cutout import no_images

Array = jax.Array


@functools.partial(jax.jit, static_argnums=(4, 5), inline=True)
def _outside(
    whole: Mask, key: Array, area: Any, aspect: Any, shape: tuple[int, ...], axes: tuple[int, int]
) -> Array:
    """True outside of the rectangle of each image, and everywhere in an image that stays whole."""
    images = whole.shape
    check_known(shape, axes, "it decides which rectangles fit")
    height, width = (shape[axis] for axis in axes)
    low, high = (jnp.asarray(limit, jnp.float32) for limit in area)
    pixels = (low + (high - low) * uniform(derive(key, "area"), images)) * (height * width)
    # Neither side is longer than the image's at a ratio of pixels / width**2 to height**2 / pixels.
    narrow, tall = jnp.log(pixels) - 2 * math.log(width), 2 * math.log(height) - jnp.log(pixels)
    flat, steep = (
        jnp.clip(jnp.log(jnp.asarray(ratio, jnp.float32)), narrow, tall) for ratio in aspect
    )
    stretch = jnp.exp((flat + (steep - flat) * uniform(derive(key, "aspect"), images)) / 2)
    first, size = {}, {}
    for axis, side in zip(
        axes, (jnp.sqrt(pixels) * stretch, jnp.sqrt(pixels) / stretch), strict=True
    ):
        size[axis] = jnp.clip(jnp.round(side).astype(jnp.int32), 1, shape[axis])
        places = shape[axis] - size[axis] + 1
        first[axis] = below(derive(key, "place", axis), images, places)
    return whole.keep() | ~inside(shape, first, size)


def _noise(key: Array, shape: Sequence[int]) -> Normal:
    return Normal.of(derive(key, "fill"), shape)


@fused
def _noisy(outside: Array, noise: Normal, x: Array) -> Array:
    return jnp.where(outside, x, noise.values().astype(x.dtype))


def random_erasing(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike = 0.5,
    *,
    area: tuple[float, float] = (0.02, 0.33),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    fill: ArrayLike | Literal["noise"] = 0.0,
    spatial_axes: Sequence[int] = (-3, -2),
    channel_axis: int | None = -1,
) -> Array:
    """Fills a rectangle of random shape in each image with probability `rate`.

    Args:
      key: PRNG key, typed or raw.
      x: images, floats, (..., height, width, channels) for the default axes; each image of a
        batch gets a rectangle of its own.
      rate: probability that an image gets one, in [0, 1]; may be traced, or an array that
        broadcasts to x with size 1 along the spatial axes and the channels.
      area: the least and the largest share of the image that it covers, uniform in between; its
        sides are rounded to whole pixels, of which there is at least one. Typical: up to 0.33, in
        the paper 0.4.
      aspect: the least and the largest ratio of its height to its width, the logarithm uniform in
        between as far as the rectangle fits.
      fill: what it is filled with: a number, an array that broadcasts to x, such as a value for
        each channel, or "noise": a standard normal number for each pixel and channel. The paper
        found noise best; it suits images of mean 0 and variance 1.
      spatial_axes: the axes of height and width, in this order.
      channel_axis: the axis of channels, which share a rectangle; None if there is none.

    Returns:
      An array of the shape and dtype of x; nothing is rescaled.

    Raises:
      TypeError: x holds no floats, fill is complex but x is not, or key is no PRNG key.
      ValueError: rate outside [0, 1]; area not in (0, 1] or aspect not positive, or not in order;
        fill that does not broadcast to x; x has no such axis.

    Cost: 160 random bits an image, and with fill="noise" 32 an element; about the time of reading x
      and writing the result. For the backward pass the mask is kept, a byte a pixel.

    Source: Zhong et al. 2020, section 3.2. For training only.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> y = dropjax.random_erasing(jax.random.key(0), jnp.ones((8, 8, 3)), 1.0)
      >>> y.shape, float(y.min())
      ((8, 8, 3), 0.0)
    """
    key, x = check_key(key), check_floating(x)
    _check_range(area, "area", 1)
    _check_range(aspect, "aspect", math.inf)
    axes = normalize_axes(spatial_axes, x.ndim, "spatial_axes")
    if len(axes) != 2:
        raise ValueError(f"spatial_axes must name height and width, got {spatial_axes!r}")
    channels = () if channel_axis is None else normalize_axes(channel_axis, x.ndim, "channel_axis")
    if set(axes) & set(channels):
        raise ValueError(f"channel_axis={channel_axis} is among spatial_axes={spatial_axes}")
    shape = tuple(1 if axis in channels else length for axis, length in enumerate(x.shape))
    images = [1 if axis in axes else length for axis, length in enumerate(shape)]
    whole = Mask.of(derive(key, "image"), rate, images)
    value = None if isinstance(fill, str) else _value(fill, x)
    if isinstance(fill, str) and fill != "noise":
        raise ValueError(f'fill must be a number, an array or "noise"; got {fill!r}')
    if not x.size:
        return x
    height, width = (int(axis) % x.ndim for axis in spatial_axes)
    outside = _outside(whole, key, area, aspect, shape, (height, width))
    if value is None:
        return _noisy(outside, _noise(key, x.shape), x)
    return _filled(outside, x, value)


@fused
def _filled(outside: Array, x: Array, value: Array) -> Array:
    return jnp.where(outside, x, value)


def _value(fill: ArrayLike, x: Array) -> Array:
    value = jnp.asarray(fill)
    if jnp.iscomplexobj(value) and not jnp.iscomplexobj(x):
        raise TypeError(f"fill must be real, as x is; got {fill!r}")
    value = value.astype(x.dtype)
    try:
        return jnp.broadcast_to(value, x.shape)
    except ValueError:
        raise ValueError(
            f"fill of shape {value.shape} does not broadcast to x, of shape {x.shape}"
        ) from None


def _check_range(limits: tuple[float, float], name: str, most: float) -> None:
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        raise ValueError(f"{name} must be the least and the largest, got {limits!r}")
    if any(isinstance(limit, Tracer) for limit in limits):
        return
    low, high = (np.asarray(limit, np.float64) for limit in limits)
    if not (0 < low <= high <= most and high < math.inf):
        within = f"positive and at most {most}" if most < math.inf else "positive"
        raise ValueError(f"{name} must be the least and the largest, {within}; got {limits!r}")


@scheme
class RandomErasing(Scheme):
    """Random erasing on input images, in training only; `rate` of the images get a rectangle.

    Evaluates with x, which is not the mean: pixels are taken away and nothing is scaled up.

    Args:
      rate: the probability that an image gets a rectangle, in [0, 1].
      area: the least and the largest share of the image that the rectangle covers.
      aspect: the least and the largest ratio of its height to its width.
      fill: "value" fills it with `value`, "noise" with a standard normal number for each pixel and
        channel.
      value: the number that fills it with `fill="value"`.
    """

    rate: Rate = 0.5
    area: tuple[float, float] = (0.02, 0.33)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    fill: Literal["value", "noise"] = "value"
    value: Number = 0.0

    acts_on: ClassVar = frozenset({Kind.INPUT})
    made_for: ClassVar = "cnn"
    expected_is_mean: ClassVar = False
    train_only: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range(self.area, "area", 1)
        _check_range(self.aspect, "aspect", math.inf)
        if self.fill == "noise" and not isinstance(self.value, Tracer) and self.value != 0:
            raise ValueError(f'value={self.value} does nothing under fill="noise"')

    def refuses(self, sites: Sequence[Site]) -> str | None:
        return no_images(sites)

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> tuple[Array | Normal, ...]:
        key, (height, width) = keys.example, map(site.axes.index, ("height", "width"))
        shapes = site.shared(shape, "feature")
        images = site.shared(shapes, "height", "width")
        whole = Mask.of(derive(key, "image"), self.rate, images)
        outside = _outside(whole, key, self.area, self.aspect, shapes, (height, width))
        return (outside, _noise(key, shape)) if self.fill == "noise" else (outside,)

    def apply(self, noise: tuple[Any, ...], x: Array, site: Site, fallback: Array | None) -> Array:
        outside, *normal = noise
        if normal:
            return _noisy(outside, normal[0], x)
        return _filled(outside, x, _value(self.value, x))
