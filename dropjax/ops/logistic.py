"""Logistic noise and relaxed masks."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.bits import seed_of, sharding_like, words
from dropjax.ops.checks import check_shape
from dropjax.ops.gaussian import symmetric
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import Lazy, fused

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Logistic(Lazy):
    """Independent standard logistic numbers that are not drawn yet.

    A number is log(u / (1 - u)) at one of 2**23 midpoints u: none is further out than 16.7.
    """

    @classmethod
    def of(cls, key: Array, shape: Sequence[int]) -> Self:
        """The numbers of a key, typed or raw."""
        return cls(seed_of(check_key(key)), (), check_shape(shape))

    def values(self, sharding: NamedSharding | None = None) -> Array:
        """The numbers as an array, float32; for `sharding` see `ops.bits.words`."""
        between = symmetric(words(self.seed, self.whole, self.index, sharding=sharding))
        return jnp.log1p(between) - jnp.log1p(-between)


@fused
def relaxed_drop(noise: Logistic, x: Array, logit: Array, temperature: Array) -> Array:
    """`x` times a relaxed mask, over 1 - rate.

    Args:
      noise: broadcasts to `x`.
      x: values of any floating dtype.
      logit: of the rate; broadcasts to `x`. Its gradient is that along the given noise.
      temperature: above 0.

    Returns:
      An array like `x`.
    """
    wide = wide_dtype(x.dtype)
    logit, temperature = logit.astype(wide), temperature.astype(wide)
    drawn = (logit + noise.values(sharding_like(x, noise.shape)).astype(wide)) / temperature
    # In logarithms: 1 / (1 - rate) alone overflows.
    factor = jnp.exp(jax.nn.softplus(logit) - jax.nn.softplus(drawn))
    return (x.astype(wide) * factor).astype(x.dtype)
