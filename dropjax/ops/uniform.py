"""Uniform numbers: drawn at once where a few decide for a whole example, or lazily."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from dropjax.ops.bits import seed_of, words
from dropjax.ops.checks import check_shape
from dropjax.ops.gaussian import symmetric
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import Lazy

Array = jax.Array


def uniform(key: Array, shape: Sequence[int]) -> Array:
    """Independent numbers in [0, 1), multiples of 2**-24, float32."""
    word = words(seed_of(check_key(key)), shape)
    return (word >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def below(key: Array, shape: Sequence[int], bound: ArrayLike) -> Array:
    """Independent integers in [0, bound), int32; the bound, up to 2**24, is one or of `shape`."""
    # (1 - 2**-24) bound is never rounded up to the bound.
    return (uniform(key, shape) * jnp.asarray(bound, jnp.float32)).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Uniform(Lazy):
    """Independent numbers, uniform in (-1, 1), that are not drawn yet; see `symmetric`."""

    @classmethod
    def of(cls, key: Array, shape: Sequence[int]) -> Self:
        """The numbers of a key, typed or raw."""
        return cls(seed_of(check_key(key)), (), check_shape(shape))

    def values(self, sharding: NamedSharding | None = None) -> Array:
        """The numbers as an array, float32; for `sharding` see `ops.bits.words`."""
        return symmetric(words(self.seed, self.whole, self.index, sharding=sharding))
