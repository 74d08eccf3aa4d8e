"""The hash of `dropjax.ops.bits` in Python's integers, from its description."""

import math

import jax
import numpy as np

FACTORS = [2654435761, 2246822519, 3266489917, 668265263, 374761393]
SHIFTS = [16, 15, 16, 15, 16]


def word(counter: int, first: int, second: int) -> int:
    """Word `counter` of the seed (first, second)."""
    left, right = (counter + first) % 2**32, second
    for factor, shift in zip(FACTORS, SHIFTS, strict=True):
        folded = left ^ (left >> shift)
        left, right = (right + folded * factor) % 2**32, folded
    return left


def words_of(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """The words of a key, in a loop."""
    seed = [int(w) for w in jax.random.bits(key, (2,), np.uint32)]
    found = [word(i, *seed) for i in range(math.prod(shape))]
    return np.array(found, np.uint32).reshape(shape)
