"""Augmentation: random changes of the examples of training, each by a key of its own.

    problem = Problem(..., augment=parse("shift(pixels=2)|flip"), mix=mixup(alpha=0.2))

A change takes a key and an image (height, width, channels). The key is that of the example in this
step (`train.keys`), so that no change depends on the size of the batch or on the devices. `rotate`,
`scale` and `mixup` make float32 of integers, in the same units; the others keep the dtype. Noise
and erased parts are schemes: `gaussian_noise`, `cutout`, `random_erasing`.

Source: Simard, Steinkraus, Platt 2003, "Best practices for convolutional neural networks" (ICDAR),
for affine changes; He, Zhang, Ren, Sun 2016 (arXiv 1512.03385), section 4.2, for shifts and flips;
Zhang, Cisse, Dauphin, Lopez-Paz 2018, "mixup" (arXiv 1710.09412), section 2; Yun et al. 2019,
"CutMix" (arXiv 1905.04899), section 3.1.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from dropjax.core.literals import format_call, parse_call, split
from dropjax.ops.keys import derive

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Change:
    """A random change; equal to another if their texts are.

    Args:
      text: what made it, such as "shift(pixels=2)".
      function: its work.
    """

    text: str
    function: Callable[..., Any] = dataclasses.field(compare=False, repr=False)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __str__(self) -> str:
        return self.text


def shift(pixels: int = 2) -> Change:
    """Moves the image by up to `pixels` along height and width; zeros move in.

    The same is known as padding by `pixels` and cropping at random. Each of the (2 pixels + 1)**2
    moves is as likely.

    Args:
      pixels: at least 1.

    Raises:
      ValueError: it is not.
    """
    if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 1:
        raise ValueError(f"pixels must be a whole number from 1 on, got {pixels!r}")

    def move(key: Array, x: Array) -> Array:
        padded = jnp.pad(x, [(pixels, pixels)] * 2 + [(0, 0)] * (x.ndim - 2))
        top, left = jax.random.randint(derive(key, "move"), (2,), 0, 2 * pixels + 1)
        return jax.lax.dynamic_slice(padded, (top, left) + (0,) * (x.ndim - 2), x.shape)

    return Change(format_call("shift", {"pixels": pixels}), move)


def flip() -> Change:
    """Turns the image left to right, with probability 1/2."""

    def turn(key: Array, x: Array) -> Array:
        return jnp.where(jax.random.bernoulli(derive(key, "flip")), x[:, ::-1], x)

    return Change("flip", turn)


def rotate(degrees: float = 10.0) -> Change:
    """Rotates the image around its centre by an angle that is uniform in [-degrees, degrees].

    Between pixels it is interpolated linearly; outside of the image is 0.

    Args:
      degrees: above 0, at most 180.

    Raises:
      ValueError: it is not.
    """
    if not isinstance(degrees, (int, float)) or not 0 < degrees <= 180:
        raise ValueError(f"degrees must be above 0 and at most 180, got {degrees!r}")

    def turn(key: Array, x: Array) -> Array:
        angle = math.radians(degrees) * _between(derive(key, "angle"), -1.0, 1.0)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return _resampled(x, jnp.array([[cos, sin], [-sin, cos]]))

    return Change(format_call("rotate", {"degrees": float(degrees)}), turn)


def scale(factor: float = 1.2) -> Change:
    """Makes what is drawn larger or smaller, by up to `factor`, around the image's centre.

    The logarithm of the change is uniform in [-log factor, log factor]. Between pixels the image is
    interpolated linearly; outside of it is 0.

    Args:
      factor: above 1.

    Raises:
      ValueError: it is not.
    """
    if not isinstance(factor, (int, float)) or not 1 < factor < math.inf:
        raise ValueError(f"factor must be a finite number above 1, got {factor!r}")

    def zoom(key: Array, x: Array) -> Array:
        by = jnp.exp(math.log(factor) * _between(derive(key, "factor"), -1.0, 1.0))
        return _resampled(x, jnp.eye(2) / by)

    return Change(format_call("scale", {"factor": float(factor)}), zoom)


CHANGES = {function.__name__: function for function in (flip, rotate, scale, shift)}
"""By name."""


def chain(*changes: Callable[[Array, Any], Any]) -> Callable[[Array, Any], Any]:
    """Several changes, one after another, each with a key of its own."""
    if len(changes) == 1:
        return changes[0]

    def each(key: Array, x: Any) -> Any:
        for number, change in enumerate(changes):
            x = change(derive(key, f"change {number}"), x)
        return x

    return Change("|".join(map(str, changes)), each)


def parse(text: str) -> Callable[[Array, Any], Any] | None:
    """The changes that a text names, such as "shift(pixels=2)|flip"; None for "none".

    Raises:
      ValueError: there is no such change, or an argument is wrong.
    """
    if text.strip() == "none":
        return None
    return chain(*(_make(part, CHANGES, "augment") for part in split(text, "|")))


def mixup(alpha: float = 0.2) -> Change:
    """Mixes an example with another one of the training data: share x + (1 - share) other.

    The loss is that of both targets, in the same shares.

    Args:
      alpha: the share is drawn from Beta(alpha, alpha); above 0.

    Raises:
      ValueError: it is not.
    """
    alpha = _checked_alpha(alpha)

    def mix(key: Array, x: Array, other: Array) -> tuple[Array, Array]:
        share = jax.random.beta(derive(key, "share"), alpha, alpha)
        return share * _floating(x) + (1 - share) * _floating(other), share

    return Change(format_call("mixup", {"alpha": alpha}), mix)


def cutmix(alpha: float = 1.0) -> Change:
    """Puts a rectangle of another image of the training data into the image.

    Its sides have the proportions of the image, its centre lies anywhere, and what of it is outside
    is cut. The loss is that of both targets, by their parts of the area.

    Args:
      alpha: the area that the image keeps, before the rectangle is cut, is drawn from Beta(alpha,
        alpha); above 0.

    Raises:
      ValueError: it is not.
    """
    alpha = _checked_alpha(alpha)

    def mix(key: Array, x: Array, other: Array) -> tuple[Array, Array]:
        side = jnp.sqrt(1 - jax.random.beta(derive(key, "share"), alpha, alpha))
        inside = jnp.ones((), bool)
        for axis, size in enumerate(x.shape[:2]):
            centre = jax.random.randint(derive(key, "centre", axis), (), 0, size)
            half = jnp.floor(size * side) / 2
            at = jnp.arange(size, dtype=jnp.float32) - centre.astype(jnp.float32)
            along = (at >= jnp.floor(-half)) & (at < jnp.floor(half))
            inside = inside & along.reshape([-1 if i == axis else 1 for i in range(2)])
        mixed = jnp.where(inside.reshape(inside.shape + (1,) * (x.ndim - 2)), other, x)
        return mixed, 1 - jnp.mean(inside.astype(jnp.float32))

    return Change(format_call("cutmix", {"alpha": alpha}), mix)


MIXES = {"cutmix": cutmix, "mixup": mixup}
"""By name."""


def parse_mix(text: str) -> Callable[..., Any] | None:
    """The mix that a text names, such as "mixup(alpha=0.2)"; None for "none".

    Raises:
      ValueError: there is no such mix, or an argument is wrong.
    """
    return None if text.strip() == "none" else _make(text, MIXES, "mix")


def _make(text: str, functions: dict[str, Callable[..., Change]], flag: str) -> Change:
    name, arguments = parse_call(text)
    if name not in functions:
        raise ValueError(f"{flag}={text!r}: there is no {name}, but {', '.join(functions)}, none")
    try:
        return functions[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{flag}={text!r}: {error}") from error


def _checked_alpha(alpha: Any) -> float:
    if not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a finite number above 0, got {alpha!r}")
    return float(alpha)


def _between(key: Array, low: float, high: float) -> Array:
    return jax.random.uniform(key, (), jnp.float32, low, high)


def _floating(x: Array) -> Array:
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _resampled(x: Array, matrix: Array) -> Array:
    """The image whose pixel at p, from the centre, is that of x at `matrix` p."""
    height, width = x.shape[:2]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = jnp.stack([rows, columns]).astype(jnp.float32) - centre[:, None, None]
    at = jnp.einsum("ab,bhw->ahw", matrix, places) + centre[:, None, None]

    def of_channel(channel: Array) -> Array:
        return map_coordinates(channel, list(at), order=1, mode="constant")

    flat = _floating(x).reshape(height, width, -1)
    return jax.vmap(of_channel, in_axes=-1, out_axes=-1)(flat).reshape(x.shape)
