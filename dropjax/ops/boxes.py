"""Boxes in a map: which positions lie inside."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Array = jax.Array


def inside(
    shape: Sequence[int], first: Mapping[int, Array], size: Mapping[int, ArrayLike]
) -> Array:
    """Which positions lie inside a box. The box may reach beyond the map.

    Args:
      shape: of the map. Only the sizes along the axes of the box are used.
      first: the first position inside, along each axis of the box: integers of size 1 along these
        axes.
      size: how many positions the box has along each of its axes.

    Returns:
      Booleans of the shape of `first`, but with the sizes of the map along the axes of the box.
    """
    is_inside = jnp.ones((), bool)
    for axis, start in first.items():
        ends = [shape[axis] if i == axis else n for i, n in enumerate(start.shape)]
        place = jax.lax.broadcasted_iota(jnp.int32, ends, axis) - start
        is_inside = is_inside & (place >= 0) & (place < size[axis])
    return is_inside
