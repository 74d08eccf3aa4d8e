"""What the outcomes of an ablation say: the setting chosen for each scheme, and its comparison.

The validation data choose, the test data judge. A mean is over all seeds of the grid or is not
compared: another set of seeds has other initial weights and batches.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from dropjax.compare import Paired, Summary, holm, paired, summarise
from experiments.ablation.cells import Outcome

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
class Lost:
    """A cell without a result: it is in no mean.

    Args:
      outcome: of the cell.
      reason: why there is none.
    """

    outcome: Outcome
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class SettingRow:
    """One setting of one scheme, over its seeds.

    Args:
      scheme: as in the cells.
      setting: as in the cells.
      ids: of its cells, in the order of the grid.
      test_of: the test result of each seed that completed.
      lost: how many cells ended with each status but "completed", those that are none left out;
        "no number" are runs that completed with a test result that is not finite.
      train, validation, test, mc_test: over the seeds that completed, all without dropout but the
        last; None unless each of them has the number.
      tie: the mean of the measure that decides ties, on the validation data.
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
        """Whether every seed has a result; only then it can be chosen."""
        return not self.lost


@dataclasses.dataclass(frozen=True, eq=False)
class SchemeRow:
    """A scheme at its chosen setting.

    Args:
      scheme: as in the cells.
      of: how many settings it was chosen from.
      chosen: the setting; None if none could be chosen.
      why: why none could be chosen, or why it was not compared with the baseline; else "".
      differences: the test result less the baseline's, of each seed.
      comparison: with the baseline's chosen setting, of those differences; None if there is none.
      p_holm: its p, adjusted for the number of schemes compared.
      improvement: the probability that a seed has a better result with the scheme, ties half.
    """

    scheme: str
    of: int
    chosen: SettingRow | None
    why: str = ""
    differences: dict[int, float] = dataclasses.field(default_factory=dict)
    comparison: Paired | None = None
    p_holm: float | None = None
    improvement: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """What an ablation says.

    Args:
      metric: what is compared.
      baseline: the scheme that the others are compared with.
      level: of all intervals; 1 - level is the level of the tests.
      swept: the flags in the settings, in the order of the grid.
      seeds: of every setting.
      settings: a row each, in the order of the grid.
      schemes: a row each, in the order of the grid.
      lost: the cells without a result.
      cells: how many there are, by status, those statuses left out that none has.
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

    @property
    def alpha(self) -> float:
        """Level of the tests: 1 - level, without the rounding of that difference."""
        return round(1 - self.level, 12)

    def of_scheme(self, scheme: str) -> list[SettingRow]:
        """The settings of a scheme."""
        return [row for row in self.settings if row.scheme == scheme]


def analyse(
    outcomes: Sequence[Outcome], *, baseline: str, task: str, level: float = 0.95
) -> Analysis:
    """Chooses a setting for each scheme by validation, and compares them on the test data.

    Args:
      outcomes: of every cell of the grid, in its order.
      baseline: the scheme that the others are compared with.
      task: of the data, which decides the metric.
      level: of the intervals, in (0, 1).

    Raises:
      ValueError: there are no outcomes; the baseline is none of their schemes; a wrong task, level
        or status; a setting has other seeds than the first, or one twice.
    """
    metric, grid = _checked(outcomes, baseline, task, level), _grid(outcomes)
    lost = {id(o): why for o in outcomes if (why := _why_lost(o, metric))}
    settings = tuple(_setting_row(cells, lost, metric, level) for cells in grid)
    schemes = list(dict.fromkeys(row.scheme for row in settings))
    rows = [[row for row in settings if row.scheme == scheme] for scheme in schemes]
    chosen = dict(zip(schemes, (choose(of, metric) for of in rows), strict=True))
    against = chosen[baseline][0]
    compared = [
        _scheme_row(scheme, len(of), *chosen[scheme], baseline, against, metric, level)
        for scheme, of in zip(schemes, rows, strict=True)
    ]
    names = dict.fromkeys(name for o in outcomes for name in o.cell.setting)
    return Analysis(
        metric=metric,
        baseline=baseline,
        level=level,
        swept=tuple(names),
        seeds=tuple(o.cell.seed for o in grid[0]),
        settings=settings,
        schemes=tuple(_adjusted(compared)),
        lost=tuple(Lost(o, lost[id(o)]) for o in outcomes if id(o) in lost),
        cells=_counts([o.status for o in outcomes]),
    )


def choose(rows: Sequence[SettingRow], metric: Metric) -> tuple[SettingRow | None, str]:
    """The setting with the best mean on the validation data, and why there is none.

    A single one needs no validation. Test results play no part, but for their being there.

    Args:
      rows: the settings to choose from, in the order of the grid, which decides the last ties.
      metric: what is best.

    Returns:
      The row or None; the reason or "".
    """
    complete = [row for row in rows if row.complete]
    if not complete:
        gaps = _counts([status for row in rows for status, n in row.lost.items() for _ in range(n)])
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


def _why_lost(outcome: Outcome, metric: Metric) -> str:
    if outcome.status != "completed":
        return outcome.error or outcome.status
    if outcome.result.get(f"test_{metric.name}") is None:
        return f"it completed, but its test_{metric.name} is not finite or not there"
    return ""


def _setting_row(
    cells: list[Outcome], lost: dict[int, str], metric: Metric, level: float
) -> SettingRow:
    kept = [o for o in cells if id(o) not in lost]
    gone = [o.status for o in cells if id(o) in lost]

    def values(name: str) -> list[float] | None:
        found = [o.result.get(name) for o in kept]
        return None if not found or None in found else [float(x) for x in found]

    def over_seeds(part: str) -> Summary | None:
        found = values(f"{part}_{metric.name}")
        return None if found is None else summarise(found, level=level)

    ties = values(f"validation_{metric.tie}")
    return SettingRow(
        scheme=cells[0].cell.scheme,
        setting=cells[0].cell.setting,
        ids=tuple(o.cell.id for o in cells),
        test_of={o.cell.seed: float(o.result[f"test_{metric.name}"]) for o in kept},
        lost=_counts(["no number" if status == "completed" else status for status in gone]),
        train=over_seeds("train"),
        validation=over_seeds("validation"),
        test=over_seeds("test"),
        mc_test=over_seeds("mc_test"),
        tie=None if ties is None else math.fsum(ties) / len(ties),
    )


def _scheme_row(
    scheme: str,
    of: int,
    chosen: SettingRow | None,
    why: str,
    baseline: str,
    against: SettingRow | None,
    metric: Metric,
    level: float,
) -> SchemeRow:
    if chosen is None or scheme == baseline:
        return SchemeRow(scheme, of, chosen, why)
    if against is None:
        return SchemeRow(scheme, of, chosen, "the baseline has no chosen setting")
    a, b = chosen.test_of, against.test_of
    found = paired(list(a.values()), [b[seed] for seed in a], level=level)
    return SchemeRow(
        scheme,
        of,
        chosen,
        differences={seed: a[seed] - b[seed] for seed in a},
        comparison=found,
        improvement=found.improvement if metric.higher else 1 - found.improvement,
    )


def _adjusted(rows: list[SchemeRow]) -> list[SchemeRow]:
    """The rows with Holm's p, over all that were compared."""
    ps = iter(holm([row.comparison.p for row in rows if row.comparison is not None]))
    return [
        row if row.comparison is None else dataclasses.replace(row, p_holm=next(ps)) for row in rows
    ]


def _counts(statuses: list[str]) -> dict[str, int]:
    return {s: statuses.count(s) for s in (*STATUSES, "no number") if s in statuses}
