"""Adds seeds until it is decided which schemes are better: stopping early, honestly.

The settings were chosen before, on other seeds. The added seeds are compared by a test whose result
may be looked at after each of them (`compare.sequential`). So stopping at a decision makes no more
errors than the level allows, for any number of looks, comparisons and seeds.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dropjax import compare
from dropjax.core.text import counted

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
      level: of this comparison; it is so high that all comparisons together keep the level asked
        for.
      lost: how many seeds have a run that did not complete.
    """

    scheme: str
    differences: tuple[float, ...]
    after: int
    level: float
    lost: int

    @property
    def judged(self) -> tuple[float, ...]:
        """The differences that the verdict is about: those until the decision, or all without one.

        Seeds are added a few at a time, so some may come after the decision. They may say something
        else; the verdict, its mean and its interval leave them all out.
        """
        return self.differences[: self.after] if self.after else self.differences

    @property
    def mean(self) -> float:
        """The mean of the differences that were judged; NaN if there are none."""
        return float(np.mean(self.judged)) if self.differences else float("nan")

    @property
    def higher(self) -> bool:
        """Whether the scheme's results were the higher ones when it was decided."""
        return self.mean > 0

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """The ends between which the difference lies, by the confidence sequence of those judged.

        Infinite where too little is known, NaN where they have no common centre.
        """
        if not self.differences:
            return -np.inf, np.inf
        low, high = compare.confidence_sequence(self.judged, level=self.level)
        return float(low[-1]), float(high[-1])


def check_most(comparisons: int, most: int, *, level: float = 0.95) -> int:
    """The fewest seeds that can decide one of several comparisons.

    Args:
      comparisons: how many share the level.
      most: how many seeds are allowed.
      level: see `add_seeds`.

    Raises:
      ValueError: the seeds that are allowed are too few.
    """
    least = compare.fewest(level, comparisons=comparisons)
    if most < least:
        raise ValueError(
            f"max_seeds={most}: with {counted(comparisons, 'comparison')} it takes {least} seeds "
            "or more to decide one"
        )
    return least


def decided_after(differences: Sequence[float], *, level: float) -> int:
    """After how many differences it was decided which scheme is better; 0 if it was not.

    It is decided when the confidence sequence leaves 0, on the side of the mean. `compare.decided`
    may come sooner: where differences are equal, 0 can be refuted while centres on both sides of it
    are not.

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
    """Runs more seeds of the undecided schemes, until all are decided or the seeds are used up.

    Args:
      schemes: to compare with the baseline, at least one.
      baseline: another scheme.
      run: (schemes, seeds) -> the test result of each scheme for each of the seeds.
      first: the first seed. No seed from it on may have taken part in choosing settings.
      most: how many seeds may be added.
      level: the chance that no decision is wrong, over all the schemes, is at least this.

    Returns:
      One verdict for each scheme, in their order.

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
        results = run([baseline, *open_], seeds)
        for scheme in open_:
            for own, other in zip(results[scheme], results[baseline], strict=True):
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
