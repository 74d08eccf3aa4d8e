"""The setting of a scheme that its validation results choose.

A mean is over all seeds of the grid or is not compared: another set of seeds has other initial
weights and batches.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from dropjax.compare import Summary, summarise
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


def setting_row(cells: Sequence[Outcome], metric: Metric, level: float) -> SettingRow:
    """The row of one setting, of its outcomes in the order of the grid."""
    kept = [o for o in cells if not why_lost(o, metric)]
    gone = [o.status for o in cells if why_lost(o, metric)]

    def values(name: str) -> list[float] | None:
        found = [float(x) for o in kept if (x := o.result.get(name)) is not None]
        return found if found and len(found) == len(kept) else None

    def over_seeds(part: str) -> Summary | None:
        found = values(f"{part}_{metric.name}")
        return None if found is None else summarise(found, level=level)

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
    """How many there are of each status, those left out that there are none of."""
    return {s: statuses.count(s) for s in (*STATUSES, "no number") if s in statuses}
