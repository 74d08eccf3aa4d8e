"""Means over the batch of training, from inside a model of one example."""

from typing import TypeAlias

import jax
import jax.numpy as jnp

from dropjax.core.site import BATCH_AXES

Array: TypeAlias = jax.Array


def mean_over_batch(x: Array, weight: Array | None) -> Array:
    """The mean of a value over the examples of the global batch, without those that fill it up.

    To be called in training, where the axes `BATCH_AXES` are mapped.

    Args:
      x: one example's value, floats of any shape.
      weight: the example's, 1 or 0: `draw.weight`, or the keyword `weight` of a model that takes a
        key (`train.Problem(weighted=True)`). None if no batch is filled up: a plain mean.

    Returns:
      Of the shape of x, the same for all examples of the batch.
    """
    if weight is None:
        return jax.lax.pmean(x, BATCH_AXES)
    weight = weight.astype(x.dtype)
    # An example without weight must not count even where it is infinite.
    weighted = jnp.where(weight > 0, weight * x, jnp.zeros_like(x))
    total, of = jax.lax.psum((weighted, weight), BATCH_AXES)
    return total / of
