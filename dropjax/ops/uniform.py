"""Uniform numbers, drawn at once: for the few that decide for a whole example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.ops.bits import seed_of, words
from dropjax.ops.keys import check_key

Array = jax.Array


def uniform(key: Array, shape: Sequence[int]) -> Array:
    """Independent numbers in [0, 1), multiples of 2**-24, float32."""
    word = words(seed_of(check_key(key)), shape)
    return (word >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def below(key: Array, shape: Sequence[int], bound: int) -> Array:
    """Independent integers in [0, bound), int32; uniform to within bound * 2**-24."""
    return jnp.minimum((uniform(key, shape) * bound).astype(jnp.int32), bound - 1)
