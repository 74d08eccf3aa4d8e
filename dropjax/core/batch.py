"""Means over the batch of training, from inside a model of one example."""

from typing import TypeAlias

import jax
import jax.numpy as jnp

from dropjax.core.site import BATCH_AXES

Array: TypeAlias = jax.Array


def mean_over_batch(x: Array, weight: Array | None) -> Array:
    """The mean of a value over the examples of the global batch.

    Examples that only fill up an epoch's last, smaller batch are left out. Call it in training
    alone, where the axes `BATCH_AXES` are mapped.

    Args:
      x: one example's value, floats of any shape.
      weight: of this example: 1, or 0 if it only fills up the batch. It is `draw.weight`, or the
        keyword `weight` of a model that takes a key (`train.Problem(weighted=True)`). None for a
        plain mean.

    Returns:
      An array of the shape of x, the same for all examples of the batch.
    """
    if weight is None:
        return jax.lax.pmean(x, BATCH_AXES)
    weight = weight.astype(x.dtype)
    # An example without weight must not count even where it is infinite.
    weighted = jnp.where(weight > 0, weight * x, jnp.zeros_like(x))
    total, total_weight = jax.lax.psum((weighted, weight), BATCH_AXES)
    return total / total_weight
