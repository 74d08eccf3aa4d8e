"""How likely it is that blocks which fall at random leave something of a map uncovered.

A block may start at each of its places, where it fits into the map, with one probability and
independently of the others. Whether the blocks that start cover the whole map depends on the set of
their places alone. So the probability is a sum over the sizes k of such sets, of how many sets of
k places cover the map, times the probability of each: exact, once the sets are counted. That is
done once for each shape, in NumPy, and holds for traced probabilities too.
"""

import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Spans: TypeAlias = tuple[tuple[int, int], ...]
"""The size of the map and of a block, not larger, along each axis."""

MOST_PLACES = 1000
"""With more of them the numbers of sets would not fit into float64."""
MOST_WORK = 200_000_000
"""Numbers that are looked at to count the sets of a map, at most: half a second's."""


def uncovered(chance: Array, spans: Spans) -> Array:
    """The probability that blocks leave some position of a map uncovered.

    Args:
      chance: the probability of a block at each place where it fits, float32.
      spans: the sizes of the map and of a block.

    Returns:
      An array like `chance`. It is 1 where `covering_sets` does not count the sets.
    """
    copies, counts = covering_sets(spans)
    if counts is None:
        return jnp.ones_like(chance)
    places = len(counts) - 1
    all_sets = np.array([float(math.comb(places, k)) for k in range(places + 1)])
    covered = _probability(chance, counts)
    left = _probability(chance, all_sets - counts)
    # Of all copies together; from whichever of the two is small, and so has not lost its digits.
    log_covered = jnp.where(covered < 0.5, jnp.log(covered), jnp.log1p(-left))
    return -jnp.expm1(copies * log_covered)


def _probability(chance: Array, counts: np.ndarray) -> Array:
    """That the places which are drawn are one of the sets, of which there are counts[k] of k."""
    (sizes,) = np.nonzero(counts)
    shape = (1,) * chance.ndim + (-1,)
    drawn, left_out, logs = (
        a.astype(chance.dtype).reshape(shape)
        for a in (sizes, len(counts) - 1 - sizes, np.log(counts[sizes]))
    )
    chance = chance[..., None]
    # Of no blocks at probability 0, and of all at 1, the logarithm is 0, not NaN.
    log_drawn = jnp.where(drawn > 0, drawn * jnp.log(chance), 0)
    log_left_out = jnp.where(left_out > 0, left_out * jnp.log1p(-chance), 0)
    return jnp.sum(jnp.exp(logs + log_drawn + log_left_out), -1)


@functools.lru_cache
def covering_sets(spans: Spans) -> tuple[int, np.ndarray | None]:
    """How many sets of places cover a map whole, by the size of the set.

    Returns:
      The number of equal, independent parts that all have to be covered; and for one part the
      number of sets of k places that cover it, for k = 0, 1, ... up to the number of its places.
      None instead if counting takes too long: the map is longer than two blocks along two axes and
      large, or along three axes, or far longer along one.
    """
    copies, long = 1, []
    for size, block in spans:
        places = size - block + 1
        # Only a block at the first place covers the first position, and only one at the last place
        # the last. In a map of at most two blocks these two cover everything, so along this axis
        # the two lines of first and last places have to be covered, independently of each other. A
        # block of one position covers only its own line.
        if size <= 2 * block or block == 1:
            copies *= places if block == 1 else min(places, 2)
        else:
            long.append((size, block))
    if len(long) == 0:
        return copies, np.array([0.0, 1.0])
    if len(long) == 1:
        return copies, _along_one(*long[0])
    if len(long) == 2:
        ways = [_Work(long[0], long[1]), _Work(long[1], long[0])]
        way = min(ways, key=lambda way: way.amount)
        if way.amount <= MOST_WORK:
            return copies, way.count()
    return copies, None


def _along_one(size: int, block: int) -> np.ndarray | None:
    """Along one axis: a block at the first place and at the last, and no two too far apart."""
    places = size - block + 1
    if places > MOST_PLACES:
        return None
    counts, ends = np.zeros(places + 1), np.zeros(places)
    ends[0] = 1  # sets of k places up to the last of them, by where that is
    for k in range(1, places + 1):
        counts[k] = ends[-1]
        before = np.concatenate([[0.0], np.cumsum(ends)])[:-1]  # the sum of all before a place
        ends = before - np.concatenate([np.zeros(block), before])[:places]
    return counts


class _Work:
    """Counts along two axes, place by place and line by line.

    Of a set, what lies ahead depends on this alone: across each stretch of the line that a block
    must meet, how many lines ago the last did, and how far back on this line the last block is.

    Args:
      down: size and block along the axis of lines.
      across: size and block along a line.
    """

    def __init__(self, down: tuple[int, int], across: tuple[int, int]) -> None:
        self.down, self.across = down, across
        self.lines, self.places = (size - block + 1 for size, block in (down, across))
        # The first place, the last, and each stretch of a block's length between the two.
        self.stretches = self.places - across[1] + 1
        self.states = down[1] ** self.stretches * (across[1] + 1)
        sets = self.lines * self.places + 1
        self.amount = math.inf
        if sets - 1 <= MOST_PLACES:
            self.amount = self.states * sets * (self.lines - 2) * self.places

    def count(self) -> np.ndarray:
        down, far = self.down[1], self.across[1]
        inner = (self.lines - 2) * self.places
        shape = (*[down] * self.stretches, far + 1, inner + 1)
        ways = np.zeros(shape)
        ways[(*[0] * self.stretches, far, 0)] = 1
        for _ in range(self.lines - 2):
            for place in range(self.places):
                ways = _with_place(ways)
                # The first place ends a stretch, and all from the one on where one fits behind it.
                if place == 0 or place >= far:
                    only = place in (0, self.places - 1)
                    ways = _closed(ways, 0 if place == 0 else place - far + 1, 1 if only else far)
            # A new line, on which there is none so far.
            fresh = np.zeros_like(ways)
            fresh[..., far, :] = ways.sum(-2)
            ways = fresh
        first = _along_one(*self.across)
        assert first is not None
        between = ways.reshape(-1, inner + 1).sum(0)
        return np.convolve(np.convolve(first, first), between)


def _with_place(ways: np.ndarray) -> np.ndarray:
    """One more place: without a block there, and with one, from which the distance is 0."""
    new = np.zeros_like(ways)
    new[..., 1:, :] = ways[..., :-1, :]
    new[..., -1, :] += ways[..., -1, :]
    new[..., 0, 1:] = ways[..., :-1].sum(-2)
    return new


def _closed(ways: np.ndarray, stretch: int, length: int) -> np.ndarray:
    """The end of a stretch: met if the last block on this line is less than its length back."""
    ways = np.moveaxis(ways, stretch, 0)
    new = np.zeros_like(ways)
    new[0][..., :length, :] = ways[..., :length, :].sum(0)
    new[1:, ..., length:, :] = ways[:-1, ..., length:, :]
    return np.moveaxis(new, 0, stretch)
