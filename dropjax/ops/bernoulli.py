"""Bernoulli masks and what is done with them."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from dropjax.ops.bits import seed_of, sharding_like, words
from dropjax.ops.checks import as_rate, check_choice, check_shape
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import Lazy, fused

Array = jax.Array

STREAM = 2
"""Names the mapping (key, shape, rate) -> mask. Raised whenever any mask changes; recorded with
every run, and a run is not resumed under another stream."""

SCALINGS = ("train", "test")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Mask(Lazy):
    """A Bernoulli mask that is not drawn yet: True, independently, with probability 1 - rate.

    It is a few bytes whatever its shape. `drop` and `choose` draw it inside the loop that uses it,
    forward and again backward, so that it costs no memory and next to no time; `keep` draws it as
    an array.

    The mask depends on the key, the shape and the rate rounded to float32: not on x64 mode, on
    whether the rate is traced, or on sharding. The realised rate is the rounded one to within
    2**-32, and so the requested one to within 2**-24.

    Args:
      seed, index, whole: see `Lazy`.
      rate: probability of dropping, float32, of rank 0 or of the rank of `shape`.
    """

    rate: Array

    @classmethod
    def of(cls, key: Array, rate: ArrayLike, shape: Sequence[int]) -> Self:
        """The mask of a key.

        Args:
          key: PRNG key, typed or raw.
          rate: probability of dropping; see `as_rate`.
          shape: the mask's shape.
        """
        shape = check_shape(shape)
        return cls(seed_of(check_key(key)), (), shape, as_rate(rate, shape))

    def row(self, i: ArrayLike) -> Self:
        row, rate = super().row(i), self.rate
        if rate.ndim:
            shared = self.shape[0] == 1 or rate.shape[0] == 1
            rate = rate[0] if shared else rate[i]
        return dataclasses.replace(row, rate=rate)

    def keep(self, sharding: NamedSharding | None = None) -> Array:
        """The mask as a boolean array; for `sharding` see `ops.bits.words`."""
        word = words(self.seed, self.whole, self.index, sharding=sharding)
        # float32 holds the product exactly, but at rate 1 uint32 cannot.
        threshold = (self.rate * jnp.float32(2**32)).astype(jnp.uint32)
        return (word >= threshold) & (self.rate < 1)

    def drawn(self) -> Array:
        return self.keep()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Undecided(Lazy):
    """A mask whose rates are not known yet, because they depend on the values that it will drop.

    `drawn` gives numbers in [0, 1): an element is dropped if its number lies below its rate.
    """

    @classmethod
    def of(cls, key: Array, shape: Sequence[int]) -> Self:
        """The mask of a key, typed or raw, for rates that are given later."""
        return cls(seed_of(check_key(key)), (), check_shape(shape))

    def at(self, rate: Array) -> Mask:
        """The mask at `rate`, float32, of rank 0 or of the rank of the shape."""
        return Mask(self.seed, self.index, self.whole, rate)

    def drawn(self) -> Array:
        word = words(self.seed, self.whole, self.index)
        # The upper 24 bits: what float32 holds.
        return (word >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def keep_mask(
    key: Array, rate: ArrayLike, shape: Sequence[int], *, bits: Literal[32] | None = None
) -> Array:
    """A boolean mask that is True, independently, with probability 1 - rate.

    `dropjax.dropout(key, x, rate)` is 0 where `keep_mask(key, rate, x.shape)` is False.

    Args:
      key: PRNG key, typed or raw.
      rate: probability of dropping, in [0, 1]: a number, or an array that broadcasts to `shape`.
        May be traced, and is then not range-checked.
      shape: the mask's shape.
      bits: 32 for the mask that `haiku.dropout`, `equinox.nn.Dropout`, `flax.nnx.Dropout` and, with
        `rng=key`, `flax.linen.Dropout` draw from this key: 32 bits of the key's own generator an
        element, ten times as slow, another mask in x64 mode (as theirs), and a realised rate within
        2**-23. Default: dropjax's own.

    Returns:
      Booleans of that shape.

    Raises:
      TypeError: key is no PRNG key, rate no number, or shape no sequence of integers.
      ValueError: rate outside [0, 1] or of a shape that does not fit; bits neither 32 nor None.

    Cost: 32 random bits an element; about the time of writing the mask, as no randomness is stored
      on the way. Nothing is kept for a backward pass: a mask has no gradient.

    Example:
      >>> import jax, dropjax
      >>> dropjax.keep_mask(jax.random.key(0), 0.5, (4,))
      Array([False, False,  True, False], dtype=bool)
    """
    key, shape = check_key(key), check_shape(shape)
    if bits is None:
        return _drawn(Mask.of(key, rate, shape))
    if bits != 32:
        raise ValueError(f"bits must be None, for dropjax's own masks, or 32; got {bits!r}")
    checked = as_rate(rate, shape)
    # As the peers compute it, to the bit: in Python for a Python number.
    keep = 1 - (float(rate) if isinstance(rate, (int, float)) else checked)
    return jax.random.bernoulli(key, keep, shape)


def wide_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which values of `dtype` are scaled: at least float32."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def drop(keep: Mask | Array, x: Array, rate: ArrayLike, scaling: str = "train") -> Array:
    """`x` where `keep`, else 0; scaled by 1 / (1 - rate) if `scaling` is "train".

    The scale is computed in at least float32 (bfloat16 `x / 0.9` is off by 0.15 %), and rate 1
    gives zeros with zero gradients, not NaN.

    Args:
      keep: a mask, or booleans; broadcasts to `x`.
      x: values of any floating dtype.
      rate: the rate that `keep` was drawn at; broadcasts to `x`.
      scaling: "train" (inverted dropout) or "test" (the original: see `expected_drop`).

    Returns:
      An array like `x`. For the backward pass a `Mask` keeps its few bytes, booleans themselves.
    """
    check_choice(scaling, SCALINGS, "scaling")
    if scaling == "test":
        return _kept(keep, x)
    return _kept_and_scaled(keep, x, wide_rate(x, rate))


def wide_rate(x: Array, rate: ArrayLike) -> Array:
    """A checked rate in the dtype in which `x` is scaled."""
    return as_rate(rate, x.shape, dtype=jnp.finfo(wide_dtype(x.dtype)).dtype)


@fused
def _drawn(mask: Mask) -> Array:
    return mask.keep()


@fused
def _kept(keep: Mask | Array, x: Array) -> Array:
    return jnp.where(booleans(keep, x), x, jnp.zeros((), x.dtype))


@fused
def _kept_and_scaled(keep: Mask | Array, x: Array, rate: Array) -> Array:
    q = 1 - rate
    wide = wide_dtype(x.dtype)
    scale = jnp.where(q > 0, 1 / jnp.where(q > 0, q, 1), 0).astype(wide)
    scaled = (x.astype(wide) * scale).astype(x.dtype)
    return jnp.where(booleans(keep, x), scaled, jnp.zeros((), x.dtype))


@fused
def choose(keep: Mask | Array, x: Array, other: Array) -> Array:
    """`x` where `keep`, else `other`, bit for bit; all of one shape."""
    # On an Explicit mesh `select` needs a mask that is sharded as x is. `or` with a False that is
    # sharded so does that, and the compiler removes it.
    return jnp.where(booleans(keep, x) | jnp.zeros_like(x, dtype=bool), x, other)


def booleans(keep: Mask | Array, x: Array) -> Array:
    """A mask as an array, sharded as `x` is; for use inside `ops.lazy.fused`."""
    return keep.keep(sharding_like(x, keep.shape)) if isinstance(keep, Mask) else keep


def expected_drop(x: Array, rate: ArrayLike, scaling: str = "train") -> Array:
    """The exact expectation of `drop` over masks: `x`, or `(1 - rate) * x` if scaled at test.

    At rate 1, where nothing is kept, it is 0 under both.
    """
    check_choice(scaling, SCALINGS, "scaling")
    if scaling == "train":
        return where_kept_at_all(x, rate)
    q = 1 - wide_rate(x, rate)
    wide = wide_dtype(x.dtype)
    return (x.astype(wide) * q.astype(wide)).astype(x.dtype)


def where_kept_at_all(x: Array, rate: ArrayLike, other: Array | None = None) -> Array:
    """`x` where the rate is below 1, else `other`: None for 0."""
    # Masks compare with the rate in float32: one that is rounded to 1 there drops everything.
    checked = as_rate(rate, x.shape)
    if not isinstance(rate, Tracer) and (np.asarray(rate, np.float32) < 1).all():
        return x
    # See `choose` for why the False.
    some = (checked < 1) | jnp.zeros_like(x, dtype=bool)
    return jnp.where(some, x, jnp.zeros_like(x) if other is None else other)
