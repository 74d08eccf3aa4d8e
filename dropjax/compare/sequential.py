"""Adding seeds until two schemes are told apart, without an error for each look.

A p-value is for a number of seeds fixed in advance; computed anew after each seed, it is sooner or
later small by chance. What is here may be looked at after each seed, and the looking may decide
when to stop.

The null hypothesis is that of the sign flips in `paired`: each difference is symmetric about 0,
given those before. A bettor bets on the signs at even odds. Before the i-th it knows the earlier
differences and the magnitude |d_i|, and gives the sign that comes a probability q_i; its capital is
multiplied by 2 q_i. Under the null each sign is a fair coin given all it knows, so however it bets,
the capital is a nonnegative martingale of mean 1, and the chance that it ever reaches 1 / alpha is
at most alpha (Ville). Nothing is assumed of tails, scale, or that all differences are alike.

This bettor takes the differences for normal with a conjugate prior, and has q from Student's t, the
predictive distribution: q = f(d) / (f(d) + f(-d)). The prior's scale is set anew in each bet from
the magnitudes known then, so that the unit does not matter. Its mean is 0: the first bet is fair,
and swapping the schemes changes nothing.

Source: Ville 1939, "Etude critique de la notion de collectif" (the bound); de la Pena 1999, "A
General Class of Exponential Inequalities for Martingales and Ratios" (Ann. Probab. 27; symmetry in
place of moments); Ramdas, Ruf, Larsson, Koolen 2020, "Admissible Anytime-Valid Sequential Inference
Must Rely on Nonnegative Martingales" (arXiv 2009.03167; testing symmetry); Waudby-Smith, Ramdas
2024, "Estimating Means of Bounded Random Variables by Betting" (JRSS B 86; arXiv 2010.09686; sets
of what bets have not refuted); Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-Uniform,
Nonparametric, Nonasymptotic Confidence Sequences" (Ann. Statist. 49; arXiv 1810.08240).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from dropjax.compare.checks import alpha_of, check_values

# The prior: the mean of the differences is within about 1.4 of their standard deviations, and half
# of their mean square is noise, which weighs as much as four of them. What is decided when depends
# little on these (halved or doubled: by less than a seed on average, at effects of 1 or more).
_MEAN_WEIGHT = 0.5
_SHAPE = 2.0
_NOISE = 0.5

# The search for the ends of a set of centres.
_INSIDE = 401
_OUTSIDE = np.geomspace(1e-3, 1e6, 121)
_HALVINGS = 40


def evidence(differences: ArrayLike) -> np.ndarray:
    """The bettor's capital after each difference, an e-process against symmetry about 0.

    Large is evidence that one scheme is better; which one, the mean's sign says. A difference of 0
    changes nothing; the unit does not matter. It at most doubles with each but the first.

    Args:
      differences: (n,), finite, in the order in which the seeds were run, which nothing that is
        known of the results may choose.

    Returns:
      (n,), above 0.

    Raises:
      TypeError: differences is no array or list of numbers.
      ValueError: no differences, or one that is not finite.
    """
    return np.exp(_log_evidence(check_values(differences, "differences")))


def decided(differences: ArrayLike, *, level: float = 0.95) -> int:
    """After how many differences 0 is excluded for the first time; 0 if it is not.

    Under the null that ever happens with a chance of at most 1 - level. Of several comparisons at
    once, each at `level_of_each`, the same holds for any of them.

    It says that the schemes differ. Which one is better, `confidence_sequence` says: its interval
    leaves 0 at the same time, but for rare skewed differences, of which 0 is refuted while centres
    on both its sides are not.

    For normal differences whose mean is 0.5, 1 or 2 of their standard deviations, half of the
    decisions at level 0.95 come within 36, 11 or 7 seeds, nine in ten within 80, 22 or 9.

    Args:
      differences: (n,), as in `evidence`.
      level: of confidence, in (0, 1).

    Raises:
      TypeError: differences is no array or list of numbers.
      ValueError: no differences, or one that is not finite; a level outside (0, 1).

    Source: Ville 1939.
    """
    capital = _log_evidence(check_values(differences, "differences"))
    reached = np.flatnonzero(capital >= _bound(level))
    return int(reached[0]) + 1 if len(reached) else 0


def confidence_sequence(
    differences: ArrayLike, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals that all contain the centre of the differences, with a chance of at least level.

    After n differences, the smallest interval with all m such that the evidence of the differences
    less m has not reached 1 / (1 - level) by then. If they are symmetric, the centre is their mean.

    The set is looked at in 400 steps over the range of the differences, at each of them, and
    farther and farther apart up to 1e6 ranges away, beyond which an end counts as infinite; the
    ends are then found to 1e-9 of the range. A part that is narrower than a step may be missed, but
    for single points: a value that came more than once can be left by itself, and is seen.

    Args:
      differences: (n,), as in `evidence`.
      level: of confidence, in (0, 1).

    Returns:
      Lower and upper ends, (n,) each: -inf and inf as long as too little is known, and NaN once
      there is no such m, which says that the differences have no common centre.

    Raises:
      TypeError: differences is no array or list of numbers.
      ValueError: no differences, or one that is not finite; a level outside (0, 1).

    Source: Waudby-Smith and Ramdas 2024; Howard et al. 2021.
    """
    x, bound = check_values(differences, "differences"), _bound(level)
    steps = np.arange(1, len(x) + 1)
    # Rows: the lower and the upper end. Of each, a centre that is in the set and one farther out
    # that is not.
    kept, refuted = np.full((2, 2, len(x)), np.nan)
    for n in steps:
        grid = _grid(x[:n])
        inside = np.flatnonzero(_most(x[:n], grid)[:, -1] < bound)
        if len(inside):
            first, last = inside[0], inside[-1]
            around = np.pad(grid, 1, constant_values=(-np.inf, np.inf))
            kept[:, n - 1] = grid[first], grid[last]
            refuted[:, n - 1] = around[first], around[last + 2]
    bounded = np.isfinite(refuted)
    for _ in range(_HALVINGS):
        middle = (kept[bounded] + refuted[bounded]) / 2
        count = np.broadcast_to(steps, kept.shape)[bounded]
        inside = _most(x, middle)[np.arange(len(middle)), count - 1] < bound
        kept[bounded] = np.where(inside, middle, kept[bounded])
        refuted[bounded] = np.where(inside, refuted[bounded], middle)
    # The refuted side of the last step, so that rounding widens; infinite where nothing was.
    return np.maximum.accumulate(refuted[0]), np.minimum.accumulate(refuted[1])


def _log_evidence(x: np.ndarray) -> np.ndarray:
    """Logarithm of the capital after each of x (..., n)."""
    size, square = np.abs(x), x * x
    before = np.arange(x.shape[-1])
    total, squares = np.cumsum(x, axis=-1) - x, np.cumsum(square, axis=-1)
    weight, shape = _MEAN_WEIGHT + before, _SHAPE + before / 2
    mean = total / weight
    prior = _NOISE * _SHAPE * squares / (before + 1)
    noise = prior + (squares - square - total * mean) / 2
    # Student's t with 2 shape degrees of freedom about the mean: its density at d is
    # (width + (d - mean)**2)**-(shape + 1/2) but for a factor.
    width = 2 * noise * (weight + 1) / weight
    nearer = width + (size - mean) ** 2
    # It is 0 only as long as all are 0; then there is nothing to bet on.
    ratio = np.divide(4 * size * mean, nearer, out=np.zeros_like(x), where=nearer > 0)
    log_odds = (shape + 0.5) * np.log1p(ratio)
    return np.cumsum(math.log(2) - np.logaddexp(0, -np.sign(x) * log_odds), axis=-1)


def _most(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The most that the log-evidence about each centre (m,) has been after each of x (n,)."""
    return np.maximum.accumulate(_log_evidence(x - centres[:, None]), axis=-1)


def _grid(x: np.ndarray) -> np.ndarray:
    """Centres to try, ascending: among x (n,), at each of them, and around."""
    low, high = x.min(), x.max()
    reach = ((high - low) or abs(low) or 1.0) * _OUTSIDE
    return np.unique(
        np.concatenate([low - reach, np.linspace(low, high, _INSIDE), x, high + reach])
    )


def _bound(level: float) -> float:
    return -math.log(alpha_of(level))
