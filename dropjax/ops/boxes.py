"""Boxes at random places, as what lies inside them."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Array = jax.Array


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
