"""Which sets of blocks cover a map, against going through all of them."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from dropjax.ops.covering import covering_sets, uncovered

CHANCES = np.array([0, 1e-6, 0.01, 0.2, 0.5, 0.9, 0.999, 1 - 2**-24, 1], np.float32)
MAPS = [
    # Maps that a block covers, of one position and more.
    ((1, 1),),
    ((4, 4), (3, 3)),
    # Maps of at most two blocks: the corners decide.
    ((2, 1), (2, 1)),
    ((6, 3), (5, 4)),
    ((3, 2), (4, 2), (3, 3)),
    # Blocks of one position, and longer maps along one axis.
    ((4, 1), (3, 1)),
    ((11, 4),),
    ((7, 2), (4, 2)),
    ((8, 3), (3, 1)),
    ((6, 2), (3, 2), (2, 2)),
    # Along two.
    ((5, 2), (6, 2)),
]


@functools.cache
def all_covering_sets(sizes, blocks):
    """How many sets of k blocks cover the map, by the union of each of them, bit by bit."""
    number = np.arange(math.prod(sizes), dtype=np.uint64).reshape(sizes)
    unions, members = np.zeros(1, np.uint64), np.zeros(1, int)
    starts = itertools.product(*(range(n - b + 1) for n, b in zip(sizes, blocks, strict=True)))
    for start in starts:
        inside = number[tuple(slice(s, s + b) for s, b in zip(start, blocks, strict=True))]
        block = np.bitwise_or.reduce(np.uint64(1) << inside.ravel())
        unions = np.concatenate([unions, unions | block])
        members = np.concatenate([members, members + 1])
    whole = np.uint64(2 ** math.prod(sizes) - 1)
    return np.bincount(members[unions == whole], minlength=members.max() + 1)


def some_kept(chance, sizes, blocks):
    """The probability that blocks leave something uncovered, in float64."""
    covering = all_covering_sets(tuple(sizes), tuple(blocks))
    places = len(covering) - 1
    return sum(
        (math.comb(places, k) - int(covering[k])) * chance**k * (1 - chance) ** (places - k)
        for k in range(places + 1)
    )


@pytest.mark.parametrize("spans", MAPS, ids=str)
def test_sets_that_cover_a_map_are_counted(spans):
    copies, counts = covering_sets(spans)
    assert counts is not None
    together = [1]
    for _ in range(copies):
        together = np.convolve(together, counts)
    found = all_covering_sets(*zip(*spans, strict=True))
    # Blocks that decide nothing are not counted: each of them may be in a set or not.
    for _ in range(len(found) - len(together)):
        together = np.convolve(together, [1, 1])
    np.testing.assert_array_equal(together, found)


@pytest.mark.parametrize("spans", [MAPS[1], MAPS[3], MAPS[8], MAPS[10]], ids=str)
def test_its_probability_has_all_digits_near_0_and_near_1(spans):
    ours = jax.jit(uncovered, static_argnums=1)(CHANCES, spans)
    wanted = [some_kept(float(chance), *zip(*spans, strict=True)) for chance in CHANCES]
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=0)
    assert ours[0] == 1 and ours[-1] == 0


@pytest.mark.parametrize(
    "spans", [((14, 2), (14, 2)), ((12, 3), (12, 3)), ((5, 2),) * 3, ((1200, 200),)], ids=str
)
def test_what_takes_too_long_is_not_counted(spans):
    assert covering_sets(spans)[1] is None
    assert (uncovered(CHANCES, spans) == 1).all()


def along_one(size, block, chance):
    """Of sets along one axis: the last block so far is at each place, none missing before it."""
    ends = [1.0]
    for place in range(1, size - block + 1):
        back = range(1, min(block, place) + 1)
        ends.append(chance * sum(ends[place - d] * (1 - chance) ** (d - 1) for d in back))
    return chance * ends[-1]
