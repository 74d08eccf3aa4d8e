"""The sign-flip test of a centre, and the interval of all centres that it does not reject.

If values are symmetric about a centre c, the signs of x - c are fair coins, given the magnitudes.
The test of c compares the mean of x - c with its means under other signs: p is the fraction of all
signs whose mean is as far from 0 as that of x - c, or farther.

Signs split the values in two parts, those that keep theirs and those that turn. The sum under the
signs is, in size, at least the sum of x - c exactly if the two parts' means are not on one side of
c, beside which the mean of all lies. So for a c below the mean p is the fraction of the splits
with a part whose mean is at most c; it grows with c, and the least c that is not rejected is one of
these means: the one before which as many splits come as alpha allows. From above it is the same.
p and interval are counts of the same means, and never contradict each other.

Source: Fisher 1935, "The Design of Experiments", section 21 (sign flips); Hartigan 1969, "Using
Subsample Values as Typical Values" (JASA 64; intervals between means of subsets); Phipson, Smyth
2010, "Permutation P-values Should Never Be Zero" (Stat. Appl. Genet. Mol. Biol. 9; arXiv
1603.05766; a sample of the flips).
"""

import math
from typing import NamedTuple

import numpy as np

EXACT_UP_TO = 20
"""Pairs of which all 2**n sign flips are enumerated; of more a sample is drawn."""

_FLIPS = 99_999
# Signs in memory at a time.
_AT_A_TIME = 2**23


class Flipped(NamedTuple):
    """What sign flips say of some values.

    Args:
      low: lower end of the interval of the centre; NaN where there is none.
      high: upper end.
      p: two-sided, of centre 0.
      coverage: of the interval, for values that are continuous and symmetric; NaN without one.
    """

    low: float
    high: float
    p: float
    coverage: float


def sign_flips(x: np.ndarray, alpha: float, *, nothing: float = 0.0, seed: int = 0) -> Flipped:
    """The test of centre 0, and the interval of the centres with a p above alpha.

    There is an interval from as many values on as can have a p of at most alpha, 2**(1 - n) <=
    alpha. It takes 2**(n - 1) numbers of memory up to `EXACT_UP_TO` values (30 ms for 20).

    Args:
      x: (n,), finite.
      alpha: in (0, 1).
      nothing: sums of this size or less are 0 but for rounding.
      seed: of the flips where a sample is drawn.
    """
    x = np.where(np.abs(x) <= nothing, 0.0, x)
    turned, count = _parts(x, seed)
    total = float(np.sum(x))
    total = 0.0 if abs(total) <= nothing else total
    turned[np.abs(turned) <= nothing] = 0
    kept = total - turned
    kept[np.abs(kept) <= nothing] = 0
    # Signs that are all alike leave the sum as it is, whatever the centre.
    whole = (count == 0) | (count == len(x))
    with np.errstate(divide="ignore", invalid="ignore"):
        turned /= count
        kept /= len(x) - count
    lower, upper = np.minimum(turned, kept), np.maximum(turned, kept)
    lower[whole], upper[whole] = -np.inf, np.inf
    extreme = lower <= 0 if total > 0 else upper >= 0
    p = float(np.mean(extreme)) if total else 1.0
    splits = len(lower)
    few = _most(alpha, splits)
    low = float(np.partition(lower, few)[few])
    high = float(np.partition(upper, splits - 1 - few)[splits - 1 - few])
    if math.isinf(low) or math.isinf(high):
        return Flipped(math.nan, math.nan, p, math.nan)
    # Between the least and the most of the values, and around their mean, but for rounding.
    mean = float(np.mean(x))
    low, high = min(max(low, float(x.min())), mean), max(min(high, float(x.max())), mean)
    return Flipped(low, high, p, 1 - few / splits)


def _parts(x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each split the sum of the values that turn their sign, and how many they are.

    The first split is the observed one, in which none does. Of two splits that are the same but for
    all signs there is one.
    """
    n = len(x)
    if n <= EXACT_UP_TO:
        sums, count = np.zeros(1), np.zeros(1)
        for value in x[1:]:
            sums = np.concatenate([sums, sums + value])
            count = np.concatenate([count, count + 1])
        return sums, count
    rng, rows = np.random.default_rng(seed), max(_AT_A_TIME // n, 1)
    sums, count = [np.zeros(1)], [np.zeros(1)]
    for start in range(0, _FLIPS, rows):
        turns = rng.integers(2, size=(min(rows, _FLIPS - start), n), dtype=np.int8)
        turns = turns.astype(np.float64)
        sums.append(turns @ x)
        count.append(turns.sum(axis=1))
    return np.concatenate(sums), np.concatenate(count)


def _most(alpha: float, of: int) -> int:
    """The most of some, but not all, that are a fraction of at most alpha."""
    most = round(alpha * of)
    return min(most - (most / of > alpha), of - 1)
