"""What the outcomes of an ablation say: the setting chosen for each scheme, and its comparison.

The validation data choose, the test data judge.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from dropjax.compare import Paired, level_of_each, paired
from experiments.ablation.cells import Outcome
from experiments.ablation.choice import (
    METRICS,
    STATUSES,
    Metric,
    SettingRow,
    choose,
    counts,
    setting_row,
    why_lost,
)
from experiments.ablation.decide import Verdict


@dataclasses.dataclass(frozen=True, eq=False)
class Lost:
    """A cell without a result: it is in no mean.

    Args:
      outcome: of the cell.
      reason: why there is none.
    """

    outcome: Outcome
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class SchemeRow:
    """A scheme at its chosen setting.

    Args:
      scheme: as in the cells.
      of: how many settings it was chosen from.
      chosen: the setting; None if none could be chosen.
      why: why none could be chosen, or why it was not compared with the baseline; else "".
      differences: the test result less the baseline's, of each seed.
      comparison: with the baseline's chosen setting, of those differences, its interval for the
        number of schemes compared; None if there is none.
      p: that of the comparison, adjusted for the number of schemes compared as its interval is:
        at most the level of the tests exactly if the interval is without 0.
      improvement: the probability that a seed has a better result with the scheme, ties half.
    """

    scheme: str
    of: int
    chosen: SettingRow | None
    why: str = ""
    differences: dict[int, float] = dataclasses.field(default_factory=dict)
    comparison: Paired | None = None
    p: float | None = None
    improvement: float | None = None

    @property
    def found(self) -> bool:
        """Whether a difference was found: the interval is without 0."""
        return self.comparison is not None and (self.comparison.low > 0 or self.comparison.high < 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """What an ablation says.

    Args:
      metric: what is compared.
      baseline: the scheme that the others are compared with.
      level: of the intervals, of differences all together; 1 - level is the level of the tests.
      swept: the flags in the settings, in the order of the grid.
      seeds: of every setting.
      settings: a row each, in the order of the grid.
      schemes: a row each, in the order of the grid.
      lost: the cells without a result.
      cells: how many there are, by status, those statuses left out that none has.
      verdicts: of seeds that were added until it was decided; empty if none were.
      test_examples: that all test results are of; None if it is not known.
    """

    metric: Metric
    baseline: str
    level: float
    swept: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[SettingRow, ...]
    schemes: tuple[SchemeRow, ...]
    lost: tuple[Lost, ...]
    cells: dict[str, int]
    verdicts: tuple[Verdict, ...] = ()
    test_examples: int | None = None

    @property
    def comparisons(self) -> int:
        """How many schemes were compared with the baseline."""
        return sum(row.comparison is not None for row in self.schemes)

    @property
    def alpha(self) -> float:
        """Level of the tests: 1 - level, without the rounding of that difference."""
        return round(1 - self.level, 12)

    def of_scheme(self, scheme: str) -> list[SettingRow]:
        """The settings of a scheme."""
        return [row for row in self.settings if row.scheme == scheme]


def analyse(
    outcomes: Sequence[Outcome],
    *,
    baseline: str,
    task: str,
    level: float = 0.95,
    test_examples: int | None = None,
) -> Analysis:
    """Chooses a setting for each scheme by validation, and compares them on the test data.

    Args:
      outcomes: of every cell of the grid, in its order.
      baseline: the scheme that the others are compared with.
      task: of the data, which decides the metric.
      level: of the intervals, of differences all together, in (0, 1).
      test_examples: that the test results are of.

    Raises:
      ValueError: there are no outcomes; the baseline is none of their schemes; a wrong task, level
        or status; a setting has other seeds than the first, or one twice.
    """
    metric, grid = _checked(outcomes, baseline, task, level), _grid(outcomes)
    settings = tuple(setting_row(cells, metric, level) for cells in grid)
    of: dict[str, list[SettingRow]] = {}
    for row in settings:
        of.setdefault(row.scheme, []).append(row)
    schemes = [SchemeRow(scheme, len(rows), *choose(rows, metric)) for scheme, rows in of.items()]
    against = next(row.chosen for row in schemes if row.scheme == baseline)
    many = sum(row.chosen is not None for row in schemes if row.scheme != baseline)
    schemes = [
        row if row.scheme == baseline else _compared(row, against, metric, level, many)
        for row in schemes
    ]
    reasons = [(o, why_lost(o, metric)) for o in outcomes]
    return Analysis(
        metric=metric,
        baseline=baseline,
        level=level,
        swept=tuple(dict.fromkeys(name for o in outcomes for name in o.cell.setting)),
        seeds=tuple(o.cell.seed for o in grid[0]),
        settings=settings,
        schemes=tuple(schemes),
        lost=tuple(Lost(o, why) for o, why in reasons if why),
        cells=counts([o.status for o in outcomes]),
        test_examples=test_examples,
    )


def _checked(outcomes: Sequence[Outcome], baseline: str, task: str, level: float) -> Metric:
    if not outcomes:
        raise ValueError("outcomes must hold an outcome for each cell of the grid, got none")
    schemes = list(dict.fromkeys(o.cell.scheme for o in outcomes))
    if baseline not in schemes:
        raise ValueError(f"baseline must be one of {', '.join(schemes)}; got {baseline!r}")
    if task not in METRICS:
        raise ValueError(f"task must be one of {', '.join(METRICS)}; got {task!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), such as 0.95; got {level!r}")
    odd = [o.status for o in outcomes if o.status not in STATUSES]
    if odd:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}; got {odd[0]!r}")
    return METRICS[task]


def _grid(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """The outcomes of each setting of each scheme."""
    grid: dict[Any, list[Outcome]] = {}
    for o in outcomes:
        grid.setdefault((o.cell.scheme, *o.cell.setting.items()), []).append(o)
    seeds = [tuple(o.cell.seed for o in cells) for cells in grid.values()]
    odd = [s for s in seeds if s != seeds[0] or len(set(s)) != len(s)]
    if odd:
        raise ValueError(
            f"outcomes must have the same seeds, each once, for every setting; got {seeds[0]} for "
            f"the first and {odd[0]} for another"
        )
    return list(grid.values())


def _compared(
    row: SchemeRow, against: SettingRow | None, metric: Metric, level: float, many: int
) -> SchemeRow:
    """The row with its comparison, seed by seed, as one of many at a level together."""
    if row.chosen is None:
        return row
    if against is None:
        return dataclasses.replace(row, why="the baseline has no chosen setting")
    a, b = row.chosen.test_of, against.test_of
    found = paired(
        list(a.values()), [b[seed] for seed in a], level=level_of_each(many, level=level)
    )
    return dataclasses.replace(
        row,
        differences={seed: a[seed] - b[seed] for seed in a},
        comparison=found,
        p=min(many * found.p, 1.0),
        improvement=found.improvement if metric.higher else 1 - found.improvement,
    )
