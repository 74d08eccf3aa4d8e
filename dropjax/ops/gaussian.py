"""Gaussian noise and what is done with it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import wide_dtype, wide_rate
from dropjax.ops.bits import seed_of, sharding_like, words
from dropjax.ops.checks import check_shape
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import Lazy, fused

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Normal(Lazy):
    """Independent standard normal numbers that are not drawn yet.

    A number is the inverse of the normal distribution function at one of 2**23 midpoints, as
    `jax.random.normal` has it: none is further out than 5.3.
    """

    @classmethod
    def of(cls, key: Array, shape: Sequence[int]) -> Self:
        """The numbers of a key, typed or raw."""
        return cls(seed_of(check_key(key)), (), check_shape(shape))

    def values(self, sharding: NamedSharding | None = None) -> Array:
        """The numbers as an array, float32; for `sharding` see `ops.bits.words`."""
        word = words(self.seed, self.whole, self.index, sharding=sharding)
        # Odd numbers over 2**23: symmetric, exact in float32, and never +-1.
        odd = (word >> np.uint32(8)) | np.uint32(1)
        uniform = odd.astype(jnp.float32) * np.float32(2**-23) - np.float32(1)
        return jax.lax.erf_inv(uniform) * np.float32(math.sqrt(2))

    def drawn(self) -> Array:
        return self.values()


@fused
def _times(noise: Normal, x: Array, rate: Array) -> Array:
    wide = wide_dtype(x.dtype)
    q = 1 - rate
    spread = jnp.sqrt(rate / jnp.where(q > 0, q, 1)).astype(wide)
    factor = 1 + spread * noise.values(sharding_like(x, noise.shape)).astype(wide)
    scaled = (x.astype(wide) * factor).astype(x.dtype)
    return jnp.where(q > 0, scaled, jnp.zeros((), x.dtype))


def multiply(noise: Normal, x: Array, rate: ArrayLike) -> Array:
    """`x` times 1 + sqrt(rate / (1 - rate)) `noise`; zeros, with zero gradients, at rate 1.

    Args:
      noise: broadcasts to `x`.
      x: values of any floating dtype.
      rate: the drop rate of the Bernoulli dropout whose variance the noise has.

    Returns:
      An array like `x`. Nothing is kept for the backward pass but a few bytes.
    """
    return _times(noise, x, wide_rate(x, rate))
