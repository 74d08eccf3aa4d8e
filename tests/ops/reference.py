"""The hash of `dropjax.ops.bits` in Python's integers, from its description."""

import math

import jax
import numpy as np

FACTORS = [2654435761, 2246822519, 3266489917, 668265263, 374761393]
SHIFTS = [16, 15, 16, 15, 16]


def mixed(left, right):
    """Both halves after five rounds: Python's integers, or arrays of 64 bits of NumPy."""
    for factor, shift in zip(FACTORS, SHIFTS, strict=True):
        folded = left ^ (left >> shift)
        left, right = (right + folded * factor) % 2**32, folded
    return left, right


def word(counter: int, first: int, second: int) -> int:
    """Word `counter` of the seed (first, second)."""
    return mixed((counter + first) % 2**32, second)[0]


def seed(key: jax.Array) -> tuple[int, int]:
    """The seed of a key, whose words are taken two by two."""
    data = [int(w) for w in jax.random.key_data(key)]
    left, right = 0x243F6A88, 0x85A308D3
    for first, second in zip(data[::2], data[1::2], strict=True):
        left, right = mixed(left ^ first, right ^ second)
    return left, right


def words_of(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """The words of a key, all counters at once: in 64 bits nothing overflows before `% 2**32`."""
    first, second = seed(key)
    counters = np.arange(math.prod(shape), dtype=np.uint64)
    words, _ = mixed((counters + np.uint64(first)) % 2**32, np.uint64(second))
    return words.astype(np.uint32).reshape(shape)
