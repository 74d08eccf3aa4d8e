"""What the outcomes of an ablation say: the setting chosen for each scheme, and its comparison.

The validation data choose, the test data judge. A mean is over all seeds of the grid, or it is not
compared: other seeds have other initial weights and batches.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from dropjax.compare import Paired, Summary, level_of_each, paired, summarise
from experiments.ablation.cells import Outcome
from experiments.ablation.report.decide import Verdict

STATUSES = ("completed", "diverged", "failed", "missing")


@dataclasses.dataclass(frozen=True)
class Metric:
    """What is compared.

    Args:
      name: of `dropjax.evaluate`'s measures.
      higher: whether higher is better.
      tie: the measure that decides where the first is equal; lower is better.
    """

    name: str
    higher: bool
    tie: str


_OF_CLASSES = Metric("accuracy", True, "nll")
METRICS = {
    "classification": _OF_CLASSES,
    "binary": _OF_CLASSES,
    "regression": Metric("rmse", False, "mae"),
}
"""By task."""


@dataclasses.dataclass(frozen=True, eq=False)
class SettingRow:
    """One setting of one scheme, over its seeds.

    Args:
      scheme: as in the cells.
      setting: as in the cells.
      ids: of its cells, in the order of the grid.
      test_of: the test result of each seed that completed.
      lost: how many cells ended with each status but "completed", by status, without zeros; "no
        number" counts runs that completed with a test result that is not finite.
      train, validation, test, mc_test: over the seeds that completed, None unless each of them has
        the number. Only `mc_test` is with dropout.
      tie: the mean, on the validation data, of the measure that decides ties.
    """

    scheme: str
    setting: dict[str, Any]
    ids: tuple[str, ...]
    test_of: dict[int, float]
    lost: dict[str, int]
    train: Summary | None
    validation: Summary | None
    test: Summary | None
    mc_test: Summary | None
    tie: float | None

    @property
    def complete(self) -> bool:
        """Whether every seed has a result. Only then the setting can be chosen."""
        return not self.lost


def setting_row(cells: Sequence[Outcome], metric: Metric, level: float) -> SettingRow:
    """The row of one setting, from its outcomes in the order of the grid."""
    kept = [o for o in cells if not why_lost(o, metric)]
    gone = [o.status for o in cells if why_lost(o, metric)]

    def values(name: str) -> list[float] | None:
        given = [float(x) for o in kept if (x := o.result.get(name)) is not None]
        return given if given and len(given) == len(kept) else None

    def over_seeds(part: str) -> Summary | None:
        results = values(f"{part}_{metric.name}")
        return None if results is None else summarise(results, level=level)

    ties = values(f"validation_{metric.tie}")
    return SettingRow(
        scheme=cells[0].cell.scheme,
        setting=cells[0].cell.setting,
        ids=tuple(o.cell.id for o in cells),
        test_of={o.cell.seed: float(o.result[f"test_{metric.name}"]) for o in kept},
        lost=counts(["no number" if status == "completed" else status for status in gone]),
        train=over_seeds("train"),
        validation=over_seeds("validation"),
        test=over_seeds("test"),
        mc_test=over_seeds("mc_test"),
        tie=None if ties is None else math.fsum(ties) / len(ties),
    )


def choose(rows: Sequence[SettingRow], metric: Metric) -> tuple[SettingRow | None, str]:
    """The setting with the best mean on the validation data, or why there is none.

    A single setting needs no validation. Test results play no part, except that they must be there.

    Args:
      rows: the settings to choose from, in the order of the grid, which decides the last ties.
      metric: it says which is best.

    Returns:
      The row or None; the reason or "".
    """
    complete = [row for row in rows if row.complete]
    if not complete:
        gaps = counts([status for row in rows for status, n in row.lost.items() for _ in range(n)])
        said = ", ".join(f"{count} {status}" for status, count in gaps.items())
        what = "its setting is" if len(rows) == 1 else f"each of its {len(rows)} settings is"
        return None, f"{what} without some of its seeds ({said})"
    if len(rows) == 1:
        return complete[0], ""
    judged = [(row, row.validation.mean) for row in complete if row.validation is not None]
    if not judged:
        return None, (
            f"it has {len(rows)} settings and no validation results to choose by; hold examples "
            "out with --validation"
        )
    best = (max if metric.higher else min)(mean for _, mean in judged)
    # Means of the same counts of right answers may differ by rounding.
    tied = [row for row, mean in judged if math.isclose(mean, best, rel_tol=1e-12)]
    return min(tied, key=lambda row: math.inf if row.tie is None else row.tie), ""


def why_lost(outcome: Outcome, metric: Metric) -> str:
    """Why an outcome has no test result; "" if it has one."""
    if outcome.status != "completed":
        return outcome.error or outcome.status
    if outcome.result.get(f"test_{metric.name}") is None:
        return f"it completed, but its test_{metric.name} is not finite or not there"
    return ""


def counts(statuses: list[str]) -> dict[str, int]:
    """How many there are of each status, without zeros."""
    return {s: statuses.count(s) for s in (*STATUSES, "no number") if s in statuses}


@dataclasses.dataclass(frozen=True, eq=False)
class Lost:
    """A cell without a result; no mean includes it.

    Args:
      outcome: of the cell.
      reason: why it has no result.
    """

    outcome: Outcome
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class SchemeRow:
    """A scheme at its chosen setting.

    Args:
      scheme: as in the cells.
      settings: how many settings it was chosen from.
      chosen: the setting; None if none could be chosen.
      why: why none could be chosen, or why it was not compared with the baseline; else "".
      differences: for each seed, the test result less the baseline's.
      comparison: the statistics of these differences, with an interval for the number of schemes
        compared; None if there is no comparison.
      p: of the comparison, adjusted for the number of schemes compared, as its interval is. It is
        at most the level of the tests exactly if the interval does not hold 0.
      improvement: the fraction of seeds that are better with the scheme; a tie counts half.
    """

    scheme: str
    settings: int
    chosen: SettingRow | None
    why: str = ""
    differences: dict[int, float] = dataclasses.field(default_factory=dict)
    comparison: Paired | None = None
    p: float | None = None
    improvement: float | None = None

    @property
    def found(self) -> bool:
        """Whether a difference was found: the interval does not hold 0."""
        return self.comparison is not None and (self.comparison.low > 0 or self.comparison.high < 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """What an ablation says.

    Args:
      metric: what is compared.
      baseline: the scheme that the others are compared with.
      level: of the intervals; those of differences hold it all together. 1 - level is the level of
        the tests.
      swept: the flags in the settings, in the order of the grid.
      seeds: of every setting.
      settings: a row for each, in the order of the grid.
      schemes: a row for each, in the order of the grid.
      lost: the cells without a result.
      cells: how many there are, by status, without zeros.
      verdicts: on seeds that were added until each comparison was decided; empty if none were.
      test_examples: how many examples each test result is of; None if that is not known.
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
      task: of the data; it decides the metric.
      level: of the intervals, in (0, 1); those of differences hold it all together.
      test_examples: how many examples each test result is of.

    Raises:
      ValueError: there are no outcomes; the baseline is not one of their schemes; a wrong task,
        level or status; a setting has other seeds than the first, or a seed twice.
    """
    metric, grid = _checked(outcomes, baseline, task, level), _grid(outcomes)
    settings = tuple(setting_row(cells, metric, level) for cells in grid)
    by_scheme: dict[str, list[SettingRow]] = {}
    for row in settings:
        by_scheme.setdefault(row.scheme, []).append(row)
    schemes = [
        SchemeRow(scheme, len(rows), *choose(rows, metric)) for scheme, rows in by_scheme.items()
    ]
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
    """The row with its comparison, seed by seed, as one of many that share a level."""
    if row.chosen is None:
        return row
    if against is None:
        return dataclasses.replace(row, why="the baseline has no chosen setting")
    a, b = row.chosen.test_of, against.test_of
    each = level_of_each(many, level=level)
    comparison = paired(list(a.values()), [b[seed] for seed in a], level=each)
    return dataclasses.replace(
        row,
        differences={seed: a[seed] - b[seed] for seed in a},
        comparison=comparison,
        p=min(many * comparison.p, 1.0),
        improvement=comparison.improvement if metric.higher else 1 - comparison.improvement,
    )
