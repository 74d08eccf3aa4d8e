"""Bernoulli masks and what is done with them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.ops.checks import as_rate, check_choice

Array = jax.Array

STREAM = 1
"""Names the mapping (key, shape, rate) -> mask. Raised whenever any mask changes; recorded with
every run, and a run is not resumed under another stream."""

SCALINGS = ("train", "test")


def keep_mask(key: Array, rate: ArrayLike, shape: Sequence[int]) -> Array:
    """A mask that is True, independently, with probability 1 - rate.

    The mask depends on the key, the shape and the rate rounded to float32: not on x64 mode, on
    whether the rate is traced, or on sharding. `haiku.dropout`, `equinox.nn.Dropout` and
    `flax.nnx.Dropout` draw the same mask from the same key, but for one element in 10**7 at rates
    where 1 - rate rounds otherwise: they round the difference, we the rate, so that a traced rate
    makes the mask of a static one.

    Args:
      key: one typed PRNG key.
      rate: probability of dropping; see `as_rate`.
      shape: the mask's shape.

    Returns:
      A boolean array of that shape. The realised rate is within 2**-23 of the requested one.

    Cost: 32 random bits an element.
    """
    keep = 1 - as_rate(rate, shape)
    return jax.random.uniform(key, tuple(shape), dtype=jnp.float32) < keep


def wide_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which values of `dtype` are scaled: at least float32."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def drop(keep: Array, x: Array, rate: ArrayLike, scaling: str = "train") -> Array:
    """`x` where `keep`, else 0; scaled by 1 / (1 - rate) if `scaling` is "train".

    The scale is computed in at least float32 (bfloat16 `x / 0.9` is off by 0.15 %), and rate 1
    gives zeros with zero gradients, not NaN.

    Args:
      keep: boolean, broadcasts to `x`.
      x: values of any floating dtype.
      rate: the rate that `keep` was drawn at; broadcasts to `x`.
      scaling: "train" (inverted dropout) or "test" (the original: see `expected_drop`).

    Returns:
      An array like `x`.
    """
    check_choice(scaling, SCALINGS, "scaling")
    zero = jnp.zeros((), x.dtype)
    if scaling == "test":
        return jnp.where(keep, x, zero)
    wide = wide_dtype(x.dtype)
    q = 1 - as_rate(rate, x.shape, dtype=jnp.finfo(wide).dtype)
    scale = jnp.where(q > 0, 1 / jnp.where(q > 0, q, 1), 0).astype(wide)
    return jnp.where(keep, (x.astype(wide) * scale).astype(x.dtype), zero)


def expected_drop(x: Array, rate: ArrayLike, scaling: str = "train") -> Array:
    """The exact expectation of `drop` over masks: `x`, or `(1 - rate) * x` if scaled at test."""
    check_choice(scaling, SCALINGS, "scaling")
    wide = wide_dtype(x.dtype)
    q = 1 - as_rate(rate, x.shape, dtype=jnp.finfo(wide).dtype)
    if scaling == "train":
        return x
    return (x.astype(wide) * q.astype(wide)).astype(x.dtype)


def choose(keep: Array, x: Array, other: Array) -> Array:
    """`x` where `keep`, else `other`, bit for bit; all of one shape."""
    # On an Explicit mesh `select` wants a mask that is sharded as x is. A False that is makes it
    # so, and is gone once compiled.
    return jnp.where(keep | jnp.zeros_like(x, dtype=bool), x, other)
