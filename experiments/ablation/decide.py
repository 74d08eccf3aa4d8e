"""Adds seeds until it is decided which schemes are better: stopping early, honestly.

The settings were chosen before, on other seeds. Those that are added here are compared by a test
that may be looked at after each of them (`compare.sequential`), so that stopping when it is decided
makes no more errors than the level allows, whatever the number of looks, comparisons and seeds.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dropjax import compare

ROUND = 4
"""Seeds that are added at a time, after the first ones."""

Results = Mapping[str, Sequence[float | None]]
"""Test results by scheme, a value a seed; None where the run did not complete."""


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What added seeds say of a scheme.

    Args:
      scheme: compared with the baseline.
      differences: of the test results, scheme less baseline, of the seeds where both completed.
      after: how many of them decided it; 0 if they did not.
      level: of this comparison, so that all of them together keep the level that was asked.
      lost: seeds of which a run did not complete.
    """

    scheme: str
    differences: tuple[float, ...]
    after: int
    level: float
    lost: int

    @property
    def judged(self) -> tuple[float, ...]:
        """The differences that the verdict is of: those that decided it, or all if none did.

        Seeds are added a few at a time, so that there may be some after the decision. What they say
        may differ; the verdict, its mean and its interval are of one time.
        """
        return self.differences[: self.after] if self.after else self.differences

    @property
    def mean(self) -> float:
        """Of the differences that were judged; NaN if there are none."""
        return float(np.mean(self.judged)) if self.differences else float("nan")

    @property
    def higher(self) -> bool:
        """Whether the scheme's results were the higher ones when it was decided."""
        return self.mean > 0

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """What the difference lies between, by the confidence sequence of those that were judged.

        Infinite where too little is known, NaN where they have no common centre.
        """
        if not self.differences:
            return -np.inf, np.inf
        low, high = compare.confidence_sequence(self.judged, level=self.level)
        return float(low[-1]), float(high[-1])


def enough_seeds(comparisons: int, *, level: float = 0.95) -> int:
    """The fewest seeds with which one of some comparisons, at a level together, can be told.

    It holds for a number of seeds that is fixed in advance, and for seeds that are added.

    Args:
      comparisons: how many; none count as one.
      level: of all together, in (0, 1).
    """
    return compare.fewest(compare.level_of_each(max(comparisons, 1), level=level))


def check_most(comparisons: int, most: int, *, level: float = 0.95) -> int:
    """The fewest seeds that can decide one of some comparisons.

    Args:
      comparisons: how many, which share the level.
      most: seeds that are allowed.
      level: see `add_seeds`.

    Raises:
      ValueError: as many seeds as are allowed cannot.
    """
    least = enough_seeds(comparisons, level=level)
    if most < least:
        of = f"{comparisons} comparison{'s' if comparisons > 1 else ''}"
        raise ValueError(
            f"max_seeds={most}: with {of} it takes {least} seeds or more to decide one"
        )
    return least


def decided_after(differences: Sequence[float], *, level: float) -> int:
    """After how many differences it was decided which scheme is better; 0 if it was not.

    It is when the confidence sequence leaves 0, on the side of the mean. `compare.decided` may be
    sooner: 0 can be refuted while centres on both its sides are not, where differences are equal.

    Args:
      differences: at least one.
      level: of this comparison.
    """
    if not compare.decided(differences, level=level):
        return 0  # 0 is in the interval; to find its ends takes longer
    low, high = compare.confidence_sequence(differences, level=level)
    mean = np.cumsum(differences) / np.arange(1, len(differences) + 1)
    (clear,) = np.nonzero(((low > 0) & (mean > 0)) | ((high < 0) & (mean < 0)))
    return int(clear[0]) + 1 if len(clear) else 0


def add_seeds(
    schemes: Sequence[str],
    baseline: str,
    run: Callable[[Sequence[str], Sequence[int]], Results],
    *,
    first: int,
    most: int,
    level: float = 0.95,
) -> list[Verdict]:
    """Runs more seeds of schemes that are not decided yet, until all are or there are enough.

    Args:
      schemes: to compare with the baseline, at least one.
      baseline: another scheme.
      run: (schemes, seeds) -> the test result of each scheme for each of the seeds.
      first: the first seed. None from it on may have taken part in choosing settings.
      most: seeds at most.
      level: the chance that no decision is wrong, over all the schemes, is at least this.

    Returns:
      A verdict a scheme, in their order.

    Raises:
      ValueError: there is no scheme, or so few seeds that nothing could be decided.
    """
    if not schemes:
        raise ValueError("there is no scheme to compare with the baseline")
    least = check_most(len(schemes), most, level=level)
    each = compare.level_of_each(len(schemes), level=level)
    differences: dict[str, list[float]] = {scheme: [] for scheme in schemes}
    lost = dict.fromkeys(schemes, 0)
    after = dict.fromkeys(schemes, 0)
    start, end = first, first + least
    while open_ := [scheme for scheme in schemes if not after[scheme]]:
        seeds = range(start, min(end, first + most))
        if not seeds:
            break
        found = run([baseline, *open_], seeds)
        for scheme in open_:
            for own, other in zip(found[scheme], found[baseline], strict=True):
                if own is None or other is None:
                    lost[scheme] += 1
                else:
                    differences[scheme].append(own - other)
            if differences[scheme]:
                after[scheme] = decided_after(differences[scheme], level=each)
        start, end = end, end + ROUND
    return [
        Verdict(scheme, tuple(differences[scheme]), after[scheme], each, lost[scheme])
        for scheme in schemes
    ]
