"""Uniform noise."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from dropjax.ops.bits import seed_of, words
from dropjax.ops.checks import check_shape
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import Lazy

Array = jax.Array


def centred(word: Array) -> Array:
    """Uniform words as numbers in (-1, 1), float32: midpoints, symmetric about 0, never +-1."""
    odd = (word >> np.uint32(8)) | np.uint32(1)
    return odd.astype(jnp.float32) * np.float32(2**-23) - np.float32(1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Uniform(Lazy):
    """Independent numbers, uniform in (-1, 1), that are not drawn yet; see `centred`."""

    @classmethod
    def of(cls, key: Array, shape: Sequence[int]) -> Self:
        """The numbers of a key, typed or raw."""
        return cls(seed_of(check_key(key)), (), check_shape(shape))

    def values(self, sharding: NamedSharding | None = None) -> Array:
        """The numbers as an array, float32; for `sharding` see `ops.bits.words`."""
        return centred(words(self.seed, self.whole, self.index, sharding=sharding))
