"""The tables of an analysis, in text, for Markdown and HTML alike."""

import dataclasses
from typing import Any

from dropjax.compare import fewest
from experiments.ablation.analysis import Analysis
from experiments.ablation.choice import SettingRow, choose
from experiments.ablation.words import (
    NOTHING,
    Code,
    Unit,
    counted,
    p_text,
    setting_text,
    too_few,
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
      heads: of the columns; the first column names the row.
      rows: as wide as the heads.
    """

    heads: list[str]
    rows: list[list[str]]


def main_table(analysis: Analysis) -> Table:
    """A row a scheme, at its chosen setting."""
    unit, per_cent, many = Unit(analysis), f"{100 * analysis.level:g} %", analysis.comparisons
    test, interval = f"test {unit.head}", f" [{per_cent}]"
    if analysis.test_examples is not None:
        test += f", of {counted(analysis.test_examples, 'example')}"
    # So few seeds have no interval of a mean; of a difference they may need one or two more.
    mean = interval if len(analysis.seeds) >= fewest(analysis.level) else ""
    together = f" [{per_cent} for all {many}]" if many > 1 else interval
    heads = [
        *("scheme", "chosen setting", "settings", "seeds", f"validation {unit.head}"),
        *(f"{test}: mean ± std{mean}", "IQM"),
        f"difference, {unit.of_differences}{'' if too_few(analysis) else together}",
        *("p" if many < 2 else f"p (times {many})", "P(better)"),
    ]
    rows = []
    for row in analysis.schemes:
        best, found = row.chosen, row.comparison
        if best is None or best.test is None:
            cells = [f"none: {row.why}", str(row.of), *[NOTHING] * 4]
        else:
            interval = unit.interval(best.test.low, best.test.high)
            cells = [setting_text(best.setting) or NOTHING, str(row.of), str(best.test.n)]
            cells += [unit.spread(best.validation), unit.spread(best.test) + interval]
            cells += [unit.text(best.test.iqm)]
        if found is None or row.p is None or row.improvement is None:
            is_baseline = row.scheme == analysis.baseline and best is not None
            cells += ["baseline" if is_baseline else NOTHING, *[NOTHING] * 2]
        else:
            interval = unit.interval(found.low, found.high, sign=True)
            cells += [unit.text(found.difference, sign=True) + interval]
            cells += [p_text(row.p, analysis.alpha), f"{row.improvement:.2f}"]
        rows.append([Code(row.scheme), *cells])
    return Table(heads, rows)


def settings_table(analysis: Analysis) -> Table:
    """A row a setting: mean ± standard deviation of each part of the data."""
    unit, total = Unit(analysis), len(analysis.seeds)
    heads = ["scheme", "setting", "seeds", f"train {unit.head}", "validation", "test"]
    draws = any(row.mc_test is not None for row in analysis.settings)
    heads += [*(["test, mean of draws"] if draws else []), "chosen"]
    chosen = {id(row.chosen) for row in analysis.schemes}
    rows = []
    for row in analysis.settings:
        gone = ", ".join(f"{count} {status}" for status, count in row.lost.items())
        seeds = f"{len(row.test_of)} of {total} ({gone})" if gone else str(total)
        cells = [Code(row.scheme), setting_text(row.setting) or NOTHING, seeds]
        cells += [unit.spread(part) for part in (row.train, row.validation, row.test)]
        cells += [unit.spread(row.mc_test)] if draws else []
        rows.append([*cells, "yes" if id(row) in chosen else ""])
    return Table(heads, rows)


def pair_table(analysis: Analysis, scheme: str, first: str, second: str) -> Table | None:
    """The mean validation and test result of a scheme against two swept flags; None if neither
    has a meaning for it."""
    unit, grid = Unit(analysis), by_pair(analysis, scheme, first, second)
    across, down = (list(dict.fromkeys(pair[i] for pair in grid)) for i in (1, 0))
    if down == [None] and across == [None]:
        return None

    def cell(row: SettingRow | None) -> str:
        if row is None or row.test is None:
            return NOTHING
        validation = "" if row.validation is None else f"{unit.text(row.validation.mean)} / "
        return f"{validation}{unit.text(row.test.mean)}"

    def head(value: Any) -> str:
        return NOTHING if value is None else Code(value)

    rows = [[head(u), *(cell(grid.get((u, v))) for v in across)] for u in down]
    return Table([Code(f"{first}, {second}"), *map(head, across)], rows)


def by_pair(
    analysis: Analysis, scheme: str, first: str, second: str
) -> dict[tuple[Any, Any], SettingRow | None]:
    """The setting at each pair of values of two flags; the other flags chosen by validation."""
    groups: dict[tuple[Any, Any], list[SettingRow]] = {}
    for row in analysis.of_scheme(scheme):
        pair = row.setting.get(first), row.setting.get(second)
        groups.setdefault(pair, []).append(row)
    return {pair: choose(rows, analysis.metric)[0] for pair, rows in groups.items()}


def lost_table(analysis: Analysis) -> Table:
    """The cells without a result."""
    rows = []
    for lost in analysis.lost:
        cell, reason = lost.outcome.cell, Code(" ".join(lost.reason.split()))
        setting = setting_text(cell.setting) or NOTHING
        rows.append(
            [Code(cell.id), Code(cell.scheme), setting, str(cell.seed), lost.outcome.status, reason]
        )
    return Table(["cell", "scheme", "setting", "seed", "status", "why"], rows)


def trace_table(analysis: Analysis) -> Table:
    """Which cells stand behind each setting."""
    rows = [
        [Code(row.scheme), setting_text(row.setting) or NOTHING, Code(" ".join(row.ids))]
        for row in analysis.settings
    ]
    seeds = " ".join(map(str, analysis.seeds))
    return Table(["scheme", "setting", f"cells, of the seeds {seeds}"], rows)


def about_table(about: dict[str, Any]) -> Table:
    """Where the numbers come from."""
    # Where the data lies does not matter; its hash says what it is.
    shared = {k: v for k, v in about["shared"].items() if k != "data_dir" and v is not None}
    rows = [
        ["command", Code(about["command"])],
        ["flags of all cells", Code(" ".join(f"--{k}={v}" for k, v in shared.items()))],
        ["flags swept", Code(" ".join(f"--{name}" for name in about["swept"]) or NOTHING)],
        ["sha256 of the data", Code(about["data_sha256"])],
        ["mask stream", str(about["mask_stream"])],
        *([Code(name), Code(value)] for name, value in _flat(about["environment"])),
    ]
    return Table(["what", "value"], rows)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((prefix + name, value))
    return found
