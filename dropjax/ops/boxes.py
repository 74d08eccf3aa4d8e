"""Boxes at random places, as what lies inside them."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.ops.bits import seed_of, words

Array = jax.Array


def uniform(key: Array, shape: Sequence[int]) -> Array:
    """Uniform multiples of 2**-24 in [0, 1), float32."""
    word = words(seed_of(key), shape)
    return (word >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def uniform_below(key: Array, bound: ArrayLike, shape: Sequence[int]) -> Array:
    """Uniform integers in [0, bound), int32; the bound is a number or of `shape`."""
    bound = jnp.asarray(bound, jnp.int32)
    scaled = uniform(key, shape) * bound.astype(jnp.float32)
    return jnp.minimum(scaled.astype(jnp.int32), bound - 1)


def inside(
    shape: Sequence[int], first: Mapping[int, Array], size: Mapping[int, ArrayLike]
) -> Array:
    """Where a box is; it may stick out.

    Args:
      shape: of the result along the axes of the box.
      first: the first position inside along each axis of the box, of size 1 along these axes.
      size: how many positions follow it, it included.

    Returns:
      Booleans, of the shape of `first` but for the axes of the box.
    """
    found = jnp.ones((), bool)
    for axis, start in first.items():
        ends = [shape[axis] if i == axis else n for i, n in enumerate(start.shape)]
        place = jax.lax.broadcasted_iota(jnp.int32, ends, axis) - start
        found = found & (place >= 0) & (place < size[axis])
    return found
