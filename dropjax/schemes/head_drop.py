"""Head drop: drops whole attention heads.

Source: Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead" (arXiv 2004.13342), section 3: what is
kept is scaled by the number of heads over the number kept.

Differs: if every head is dropped, one of them, chosen at random, is kept after all: scaling would
divide by 0 otherwise, and the paper does not say. So the mean is exactly x. The paper's V-shaped
schedule is for `--strength`.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, wide_dtype
from dropjax.ops.checks import as_rate, check_floating, normalize_axes
from dropjax.ops.keys import check_key, derive
from dropjax.ops.lazy import fused
from dropjax.ops.uniform import below

Array = jax.Array


def head_drop(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    head_axis: int = -3,
    batch_axes: int | Sequence[int],
) -> Array:
    """Drops whole heads, but never all of them.

    Args:
      key: PRNG key, typed or raw.
      x: the output of each head, or its attention weights; floats, (..., heads, steps, features)
        for the default `head_axis`.
      rate: probability of dropping a head, in [0, 1]; may be traced, or an array that broadcasts
        to the choices, of size 1 along all but the batch axes. Typical: 0.1 to 0.2.
      head_axis: the axis of heads.
      batch_axes: the axes that hold examples, each with a choice of its own; () for one example.

    Returns:
      An array of the shape and dtype of x, with mean x. At rate 1 one head stays.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong axis.

    Cost: 32 random bits a head, and 32 an example; about the time of reading x and writing the
      result; a boolean a head and 4 bytes an example are kept for the backward pass.

    Source: Zhou et al. 2020, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.head_drop(jax.random.key(3), jnp.ones((4, 1, 1)), 0.5, batch_axes=()).reshape(-1)
      Array([0., 0., 2., 2.], dtype=float32)
    """
    key, x = check_key(key), check_floating(x)
    (axis,) = normalize_axes(head_axis, x.ndim, "head_axis")
    batch = normalize_axes(batch_axes, x.ndim, "batch_axes")
    if axis in batch:
        raise ValueError(f"head_axis={head_axis} is among batch_axes={batch_axes}")
    shape = [size if i == axis or i in batch else 1 for i, size in enumerate(x.shape)]
    return _scaled(_kept(key, rate, shape, axis), x, axis)


def _kept(key: Array, rate: ArrayLike, shape: Sequence[int], axis: int) -> Array:
    """Which heads are kept, at least one along `axis`."""
    one_head = [1 if i == axis else size for i, size in enumerate(shape)]
    # The scale is right only if all heads of an example have one rate.
    keep = Mask.of(key, as_rate(rate, one_head), shape).keep()
    survivor = below(derive(key, "survivor"), one_head, shape[axis])
    is_survivor = jax.lax.broadcasted_iota(jnp.int32, tuple(shape), axis) == survivor
    return keep | (is_survivor & ~keep.any(axis, keepdims=True))


def _scaled(keep: Array, x: Array, axis: int) -> Array:
    scale = keep.shape[axis] / keep.sum(axis, keepdims=True, dtype=jnp.float32)
    return _times(keep, scale, x)


@fused
def _times(keep: Array, scale: Array, x: Array) -> Array:
    wide = wide_dtype(x.dtype)
    scaled = (x.astype(wide) * scale.astype(wide)).astype(x.dtype)
    return jnp.where(keep, scaled, jnp.zeros((), x.dtype))


@scheme
class HeadDrop(Scheme):
    """Whole attention heads, chosen anew for each example.

    Args:
      rate: the probability of dropping a head, in [0, 1].
    """

    rate: Rate = 0.1

    acts_on: ClassVar = frozenset({Kind.HEADS})
    can_act_on: ClassVar = frozenset({Kind.ATTENTION})
    made_for: ClassVar = "transformer"

    def refuses(self, sites: Sequence[Site]) -> str | None:
        if all("head" in site.axes for site in sites):
            return None
        return "a site it acts on has no axis of heads"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        return _kept(keys.example, self.rate, site.own(shape, "head"), site.axes.index("head"))

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return _scaled(noise, x, site.axes.index("head"))
