"""Masks of whole blocks: how many are to be drawn, where they lie, and what is scaled for them.

A seed is drawn at each place where a whole block fits into the map, and widened to a block. A
position is dropped if any block lies over it. Blocks overlap, so less is dropped than the chance of
a seed times the size of a block: `seed_chance` solves for the chance that drops the rate exactly.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import Mask, wide_dtype
from dropjax.ops.bits import seed_of, sharding_like
from dropjax.ops.checks import as_rate, check_known
from dropjax.ops.covering import Spans, uncovered
from dropjax.ops.lazy import Lazy, fused

Array = jax.Array

STEPS = 8
"""Newton's steps: from where they start, seven reach the precision of float32 at any rate."""


def _blocks_over(size: int, block: int) -> np.ndarray:
    """How many blocks, of all that fit, lie over each position along one axis."""
    place = np.arange(size)
    return np.minimum(place, size - block) - np.maximum(place - block + 1, 0) + 1


@functools.lru_cache
def _cover(spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of blocks that can lie over a position, and the share of positions of each."""
    counts, shares = np.ones(1, np.int64), np.ones(1)
    for size, block in spans:
        along, times = np.unique(_blocks_over(size, block), return_counts=True)
        products = np.multiply.outer(counts, along).ravel()
        weights = np.multiply.outer(shares, times / size).ravel()
        counts, where = np.unique(products, return_inverse=True)
        shares = np.bincount(where.ravel(), weights)
    return counts, shares


def _kept(gamma: Array, spans: Spans, dtype: np.dtype) -> Array:
    """The share of positions that no block lies over, of the shape of gamma."""
    shape = (1,) * gamma.ndim + (-1,)
    counts, shares = (a.astype(dtype).reshape(shape) for a in _cover(spans))
    exponent = counts * jnp.log1p(-gamma.astype(dtype))[..., None]
    kept = jnp.sum(shares * jnp.exp(exponent), -1)
    dropped = -jnp.sum(shares * jnp.expm1(exponent), -1)
    # From the smaller of the two: then it is 1, not nearly 1, where gamma is 0.
    return jnp.where(dropped < 0.5, 1 - dropped, kept)


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)
def seed_chance(rate: Array, spans: Spans, kind: str) -> Array:
    """The probability of a seed at which `rate` of the positions are dropped; float32.

    Args:
      rate: the share of positions to drop, in [0, 1]; float32.
      spans: the sizes of the map and of a block.
      kind: "exact", or "paper" for the paper's formula, which drops less.
    """
    counts, shares = (a.astype(np.float32) for a in _cover(spans))
    mean = np.sum(counts * shares)
    if kind == "paper":
        return rate / mean  # never above 1: on average at least one block can lie over a position
    # With s = -log(1 - gamma), the log of what is kept is convex in s, starts as -mean s, and is
    # nowhere below it: so Newton starts to the left of the solution and never passes it.
    target = jnp.log1p(-jnp.where(rate < 1, rate, 0))
    s = -target / mean
    counts, shares = (a.reshape((1,) * rate.ndim + (-1,)) for a in (counts, shares))
    for _ in range(STEPS):
        exponent = -counts * s[..., None]
        parts = shares * jnp.exp(exponent)
        kept, dropped = jnp.sum(parts, -1), -jnp.sum(shares * jnp.expm1(exponent), -1)
        log_kept = jnp.where(dropped < 0.5, jnp.log1p(-dropped), jnp.log(kept))
        s = jnp.maximum(s + (log_kept - target) * kept / jnp.sum(counts * parts, -1), 0)
    return jnp.where(rate < 1, -jnp.expm1(-s), 1)


@functools.partial(jax.jit, static_argnums=(1, 2, 3), inline=True)
def _chances(rate: Array, spans: Spans, kind: str, normalize: str) -> tuple[Array, Array]:
    """The probability of a seed, and that something of a map is kept, if that is asked for."""
    gamma = seed_chance(rate, spans, kind)
    some = uncovered(gamma, spans) if normalize == "example" else jnp.ones((), gamma.dtype)
    return gamma, some


def _inverse(share: Array) -> Array:
    """1 / share, or 0 where nothing is kept."""
    some = share > 0
    return jnp.where(some, 1 / jnp.where(some, share, 1), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Blocks(Lazy):
    """Dropped blocks that are not drawn yet.

    Args:
      seed, index, whole: see `Lazy`.
      gamma: probability of a seed, float32, of rank 0 or of the rank of `whole`, there of size 1
        along the spatial axes.
      some: if normalize is "example", the probability that something of a map is kept, like gamma.
      block: the spatial axes of `whole`, each with the size of a block.
      normalize: see `dropjax.dropblock`.
    """

    gamma: Array
    some: Array
    block: tuple[tuple[int, int], ...] = dataclasses.field(metadata={"static": True})
    normalize: str = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls,
        key: Array,
        rate: ArrayLike,
        shape: Sequence[int],
        block: Mapping[int, int],
        gamma: str,
        normalize: str,
    ) -> Self:
        """The blocks of a key.

        Args:
          key: PRNG key.
          rate: the share of positions to drop.
          shape: of the masks, with size 1 along axes that share one.
          block: the size of a block along each spatial axis, by the axis' number in `shape`.
          gamma: see `seed_chance`.
          normalize: see `dropjax.dropblock`.
        """
        check_known(shape, block, "it decides where blocks fit")
        block = {axis: min(size, shape[axis]) for axis, size in sorted(block.items())}
        spans = tuple((shape[axis], size) for axis, size in block.items())
        # Behind a barrier, or XLA would solve for it again for each element.
        chances = _chances(rate_of_masks(rate, shape, block), spans, gamma, normalize)
        chance, some = jax.lax.optimization_barrier(chances)
        return cls(seed_of(key), (), tuple(shape), chance, some, tuple(block.items()), normalize)

    def factor(self, dtype: np.dtype, sharding: NamedSharding | None = None) -> Array:
        """What a value is multiplied by: 0 in a block. For `sharding` see `ops.bits.words`."""
        block = dict(self.block)
        fits = [n - block.get(axis, 1) + 1 for axis, n in enumerate(self.whole)]
        dropped = ~Mask(self.seed, (), tuple(fits), self.gamma).keep(sharding)
        for axis, size in self.block:  # one axis after another: far fewer steps than all at once
            window, padding = [1] * dropped.ndim, [(0, 0)] * dropped.ndim
            window[axis], padding[axis] = size, (size - 1, size - 1)
            ones = [1] * dropped.ndim
            dropped = jax.lax.reduce_window(dropped, False, jax.lax.max, window, ones, padding)
        scale = jnp.broadcast_to(self._scale(~dropped, dtype), self.whole)
        return jnp.where(dropped, jnp.zeros((), dtype), scale)[self.index]

    def drawn(self) -> Array:
        """True where a value is kept."""
        return self.factor(np.dtype(np.float32)) > 0

    def _scale(self, keep: Array, dtype: np.dtype) -> Array:
        axes = [axis for axis, _ in self.block]
        if self.normalize == "example":
            size = math.prod(self.whole[axis] for axis in axes)
            kept = jnp.sum(keep, axes, dtype=np.int32, keepdims=True).astype(dtype)
            # Infinite if nothing is kept, and then not used.
            return size / kept * _inverse(self.some.astype(dtype))
        if self.normalize == "expected":
            spans = tuple((self.whole[axis], size) for axis, size in self.block)
            return _inverse(_kept(self.gamma, spans, dtype))
        return jnp.ones((), dtype)


def rate_of_masks(rate: ArrayLike, shape: Sequence[int], block: Mapping[int, int]) -> Array:
    """A rate as an array that broadcasts to masks of `shape`, with one value for each map."""
    return as_rate(rate, [1 if axis in block else size for axis, size in enumerate(shape)])


@fused
def multiplied(blocks: Blocks, x: Array) -> Array:
    """`x` with blocks of it set to 0 and the rest scaled, of the dtype of x."""
    sharding = None
    if not blocks.index:
        # Whole along the spatial axes, which blocks reach across.
        spatial = dict(blocks.block)
        shape = [1 if axis in spatial else size for axis, size in enumerate(blocks.whole)]
        sharding = sharding_like(x, shape)
    wide = wide_dtype(x.dtype)
    factor = blocks.factor(jnp.finfo(wide).dtype, sharding)
    scaled = (x.astype(wide) * factor.astype(wide)).astype(x.dtype)
    # An infinity times 0 is not 0. On an Explicit mesh `select` wants all to be sharded as x is.
    kept = (factor > 0) | jnp.zeros_like(x, dtype=bool)
    return jnp.where(kept, scaled, jnp.zeros_like(x))


def mean_kept(
    x: Array, rate: ArrayLike, block: Mapping[int, int], gamma: str, normalize: str
) -> Array:
    """The exact mean of `multiplied` over draws, at each position. `normalize` is not "example"."""
    check_known(x.shape, block, "it decides where blocks fit")
    block = {axis: min(size, x.shape[axis]) for axis, size in sorted(block.items())}
    spans = tuple((x.shape[axis], size) for axis, size in block.items())
    wide = wide_dtype(x.dtype)
    real = jnp.finfo(wide).dtype
    chance = seed_chance(rate_of_masks(rate, x.shape, block), spans, gamma)
    over = np.ones((1,) * x.ndim, real)
    for axis, size in block.items():
        along = [-1 if i == axis else 1 for i in range(x.ndim)]
        over = over * _blocks_over(x.shape[axis], size).astype(real).reshape(along)
    factor = jnp.exp(over * jnp.log1p(-chance.astype(real)))
    if normalize == "expected":
        factor = factor * _inverse(_kept(chance, spans, real))
    return (x.astype(wide) * factor.astype(wide)).astype(x.dtype)
