"""Two schemes over the same seeds: how far apart they are, and whether that can be chance.

Runs of one seed share initial weights and batches, so their difference has less noise than either;
everything here is about those differences.

Source: `dropjax.compare.flips` (interval and p); Holm 1979, "A Simple Sequentially Rejective
Multiple Test Procedure" (Scand. J. Statist. 6); Agarwal et al. 2021 (arXiv 2108.13264), section 4.3
(probability of improvement).
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from dropjax.compare.checks import alpha_of, as_numbers, check_count, check_values
from dropjax.compare.flips import EXACT_UP_TO, sign_flips

# Of the magnitudes that are subtracted and summed; a sum of 50 differences loses about 1e-14.
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Paired:
    """Scheme a against scheme b.

    Args:
      n: pairs.
      difference: mean of a - b.
      low: lower end of its interval; NaN for fewer pairs than `fewest(level)`.
      high: upper end.
      p: two-sided, of the hypothesis that a and b can be exchanged in every pair.
      exact: whether p and interval are of all sign flips, or of a sample of them.
      improvement: fraction of the pairs in which a is above b, ties counted half.
      coverage: the chance that the interval holds the centre of differences that are continuous and
        symmetric, at least the level that was asked: 31/32 for 6 pairs at 0.95. It is larger where
        differences can be equal. NaN where there is no interval.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    exact: bool
    improvement: float
    coverage: float = math.nan


def paired(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Paired:
    """Mean difference with an interval and a p-value, and the probability of improvement.

    p is the fraction of sign flips of the differences whose mean is as far from 0 as the observed
    one, or farther: of all of them up to `EXACT_UP_TO` pairs, and above of 99999 drawn and the
    observed one. Sums that are equal but for rounding count as equal; so do differences of 0, which
    stay in. It is never below `smallest_p(n)`.

    The interval has all centres m that the same test does not reject: those for which the p of the
    differences less m is above 1 - level. So it is without 0 exactly if p is at most 1 - level. For
    differences that are symmetric about their mean, of whatever distribution, it holds the mean
    with a chance of at least level. For skewed ones it holds it less often: of nominal 95 %,
    exponential differences have 93 % at 6 pairs, 90 to 91 % at 8 and 10 and 92 % at 20
    (experiments/README.md has more). Fewer pairs than `fewest(level)`, 6 at 0.95, have no interval,
    because no p that they can have is small enough to reject anything.

    Until version 0.5 the interval was that of the BCa bootstrap, which is too narrow for few pairs.

    Args:
      a: (n,), finite: results of one scheme.
      b: (n,): those of the other, in the same order of seeds.
      level: of the interval, in (0, 1). For one of several comparisons see `level_of_each`.
      seed: of the flips where they are drawn.

    Raises:
      TypeError: a or b is no array or list of numbers.
      ValueError: no values, or one that is not finite; not as many in a as in b; a level outside
        (0, 1).

    Cost: 2**(n - 1) numbers up to `EXACT_UP_TO` pairs, a fiftieth of a second for 20.

    Source: Fisher 1935, section 21, Phipson and Smyth 2010 (p); Hartigan 1969 (interval); Agarwal
    et al. 2021, section 4.3 (improvement, there of unpaired runs).
    """
    a, b, alpha = check_values(a, "a"), check_values(b, "b"), alpha_of(level)
    if len(a) != len(b):
        raise ValueError(
            f"a and b must have a value for each seed in common, got {len(a)} and {len(b)} values"
        )
    differences, size = a - b, float(np.sum(np.abs(a) + np.abs(b)))
    found = sign_flips(differences, alpha, nothing=_ROUNDING * size, seed=seed)
    return Paired(
        n=len(a),
        difference=float(np.mean(differences)),
        low=found.low,
        high=found.high,
        p=found.p,
        exact=len(a) <= EXACT_UP_TO,
        improvement=float(np.mean((a > b) + 0.5 * (a == b))),
        coverage=found.coverage,
    )


def smallest_p(n: int) -> float:
    """The smallest p that n pairs can have: all differences of one sign, of 2**n flips two.

    Args:
      n: pairs, at least 1.

    Raises:
      ValueError: n is no integer of at least 1.
    """
    return math.ldexp(1.0, 1 - check_count(n, "n"))


def fewest(level: float, *, comparisons: int = 1) -> int:
    """The number of seeds below which nothing can be told apart, whatever the differences.

    Below it, `smallest_p` is above 1 - level, `paired` has no interval, and `decided` decides
    nothing: another pair halves the smallest p, as another bet at most doubles the evidence.
    `decided` may need one more even where all differences are equal, because its bettor is never
    certain.

    Args:
      level: of confidence, in (0, 1).
      comparisons: how many share the level, as by `level_of_each`; 0 counts as 1.

    Raises:
      ValueError: a level outside (0, 1); comparisons is no integer of at least 0.
    """
    each = level if comparisons in (0, 1) else level_of_each(comparisons, level=level)
    # 2**(1 - n) is at most alpha, which is a half or more, but less than 1, of 2**exponent.
    exponent = math.frexp(alpha_of(each))[1]
    return 2 - exponent


def level_of_each(comparisons: int, *, level: float = 0.95) -> float:
    """The level of each of some comparisons with which all of them together have a level.

    1 - level is shared out evenly (Bonferroni). With it the intervals of `paired` hold all at once
    with a chance of at least level, and each is without 0 exactly if `comparisons` times its p is
    at most 1 - level. `holm` rejects a little more, but has no such intervals.

    Args:
      comparisons: how many, at least 1.
      level: of all together, in (0, 1).

    Raises:
      ValueError: comparisons is no integer of at least 1; a level outside (0, 1).
    """
    return 1 - alpha_of(level) / check_count(comparisons, "comparisons")


def holm(ps: Iterable[float]) -> list[float]:
    """p-values adjusted for their number: the chance of any false finding is kept.

    Args:
      ps: p-values in [0, 1], one for each comparison; none at all is allowed.

    Returns:
      Adjusted ones in the same order: those of at most alpha are the findings at alpha.

    Raises:
      TypeError: ps is no list of numbers.
      ValueError: one is not in [0, 1], or is NaN.

    Source: Holm 1979.
    """
    found = as_numbers(list(ps) if isinstance(ps, Iterator) else ps, "ps")
    if found.ndim != 1:
        raise ValueError(f"ps must be p-values (n,), one a comparison, got shape {found.shape}")
    if not np.all((found >= 0) & (found <= 1)):
        raise ValueError(f"ps must be in [0, 1], got {found.tolist()}; leave out what has no p")
    order = np.argsort(found, kind="stable")
    factors = np.arange(len(found), 0, -1)
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * found[order]), 1)
    return adjusted.tolist()
