"""The tables of a report: as values, as GitHub's Markdown, as text and as cells.csv.

All of them are the same to the byte for the same outcomes.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from dropjax.compare import fewest
from dropjax.core.text import aligned, counted
from experiments.ablation.cells import Outcome
from experiments.ablation.report.analysis import Analysis, SettingRow, choose
from experiments.ablation.report.origin import COLUMNS, facts
from experiments.ablation.report.words import (
    NOTHING,
    Code,
    Unit,
    Words,
    answers,
    note_of_settings,
    note_of_verdicts,
    notes,
    overview,
    p_text,
    setting_text,
    too_few,
    verdicts,
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, for Markdown and HTML alike.

    Args:
      heads: of the columns; the first column names the row.
      rows: with as many cells as there are heads.
    """

    heads: list[str]
    rows: list[list[str]]


def main_table(analysis: Analysis) -> Table:
    """A row for each scheme, at its chosen setting."""
    unit, per_cent, many = Unit(analysis), f"{100 * analysis.level:g} %", analysis.comparisons
    test, interval = f"test {unit.head}", f" [{per_cent}]"
    if analysis.test_examples is not None:
        test += f", of {counted(analysis.test_examples, 'example')}"
    # Few seeds give no interval of a mean; one of a difference may need one or two seeds more.
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
        best, compared = row.chosen, row.comparison
        if best is None or best.test is None:
            cells = [f"none: {row.why}", str(row.settings), *[NOTHING] * 4]
        else:
            interval = unit.interval(best.test.low, best.test.high)
            cells = [setting_text(best.setting) or NOTHING, str(row.settings), str(best.test.n)]
            cells += [unit.spread(best.validation), unit.spread(best.test) + interval]
            cells += [unit.text(best.test.iqm)]
        if compared is None or row.p is None or row.improvement is None:
            is_baseline = row.scheme == analysis.baseline and best is not None
            cells += ["baseline" if is_baseline else NOTHING, *[NOTHING] * 2]
        else:
            interval = unit.interval(compared.low, compared.high, sign=True)
            cells += [unit.text(compared.difference, sign=True) + interval]
            cells += [p_text(row.p, analysis.alpha), f"{row.improvement:.2f}"]
        rows.append([Code(row.scheme), *cells])
    return Table(heads, rows)


def settings_table(analysis: Analysis) -> Table:
    """A row for each setting: mean ± standard deviation of each part of the data."""
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
    """The mean validation and test result of a scheme against two swept flags.

    None if neither flag has a meaning for the scheme.
    """
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
    """The setting at each pair of values of two flags. Validation chose the other flags."""
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
    """The cells behind each setting."""
    rows = [
        [Code(row.scheme), setting_text(row.setting) or NOTHING, Code(" ".join(row.ids))]
        for row in analysis.settings
    ]
    seeds = " ".join(map(str, analysis.seeds))
    return Table(["scheme", "setting", f"cells, of the seeds {seeds}"], rows)


def about_table(about: dict[str, Any]) -> Table:
    """Where the numbers come from."""
    # The folder of the data does not matter: its hash says which data it is.
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
    pairs = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            pairs.append((prefix + name, value))
    return pairs


_MEASURED = ("train_", "validation_", "test_", "mc_test_")
# What else in result.json is the same when a run is repeated; times and resumptions are not.
_REPEATED = ("diverged_at", "learned", "param_hash", "parameters")

_FORMULA = re.compile(r"[=+\-@\t\r](?![\d.]+(e[+-]?\d+)?$)", re.I)
"""What a spreadsheet would compute when it opens the file. A number with a sign is harmless."""


def table_md(analysis: Analysis, about: dict[str, Any]) -> str:
    """The whole ablation in GitHub's Markdown.

    Args:
      analysis: of its outcomes.
      about: where the outcomes come from: "experiment", "command", "shared" (the flags that are
        equal for all cells), "swept" (the names of the other flags), "environment" and "warnings"
        (where the cells were made, from `origin`; there may be no warnings), "data_sha256" and
        "mask_stream".
    """
    parts = [
        _line(overview(analysis, about)),
        "\n".join(f"- {_line(words)}" for words in answers(analysis)),
        "\n".join(f"- **{warning}**" for warning in about.get("warnings", ())),
        _table(main_table(analysis)),
        "\n".join(f"- {note}" for note in notes(analysis)),
        *_verdicts(analysis),
        "### All settings",
        note_of_settings(analysis),
        _table(settings_table(analysis)),
        *_pairs(analysis),
    ]
    if analysis.lost:
        parts += ["### Without a result", "In no mean above.", _table(lost_table(analysis))]
    parts += [
        "### Where the numbers come from",
        "cells.csv has a row for each cell, with all its flags and results.",
        _folded("The cells behind each setting", _table(trace_table(analysis))),
        _folded("Command, flags, versions, device, data", _table(about_table(about))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def answers_text(analysis: Analysis) -> str:
    """The main table and the answers, one sentence in a line, for a terminal."""
    table = main_table(analysis)
    sentences = ["".join(words) for words in (*answers(analysis), *verdicts(analysis))]
    return "\n".join([*aligned([table.heads, *table.rows]), "", *sentences])


def cells_csv(outcomes: Sequence[Outcome]) -> str:
    """A row for each cell in the order of the grid: its name, every flag, every result.

    Numbers have all their digits, so that they are read back as they were measured. Values that are
    neither numbers nor text are JSON; a missing value is empty. The last columns say where the cell
    was made. A text that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
      outcomes: of every cell.
    """
    flags = sorted({name for o in outcomes for name in o.cell.config})
    measured = dict.fromkeys(name for o in outcomes for name in o.result)
    results = [name for name in measured if name.startswith(_MEASURED)]
    results += [name for name in _REPEATED if name in measured]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "status", "scheme", *flags, *results, "error", "command", *COLUMNS])
    for o in outcomes:
        # The rate of a chain is in its text alone.
        values = [_first(o.cell.config.get(name), o.cell.setting.get(name)) for name in flags]
        values += [o.result.get(name) for name in results]
        known = facts(o)
        values = [o.cell.id, o.status, o.cell.scheme, *values, o.error, o.cell.command]
        values += [known.get(name) for name in COLUMNS]
        writer.writerow([_text(value) for value in values])
    return file.getvalue()


def _first(value: Any, other: Any) -> Any:
    return other if value is None else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, sort_keys=True) if value else ""
    if not isinstance(value, str):
        return repr(float(value)) if isinstance(value, float) else str(value)
    return f"'{value}" if _FORMULA.match(value) else value


def _verdicts(analysis: Analysis) -> list[str]:
    if not analysis.verdicts:
        return []
    sentences = "\n".join(f"- {_line(words)}" for words in verdicts(analysis))
    return ["### Seeds added until it was decided", sentences, note_of_verdicts(analysis)]


def _pairs(analysis: Analysis) -> list[str]:
    """A table for each scheme, of the first two flags that are swept."""
    if len(analysis.swept) < 2:
        return []
    first, second = analysis.swept[:2]
    tables = []
    for row in analysis.schemes:
        table = pair_table(analysis, row.scheme, first, second)
        if table is not None:
            tables += [_inline(Code(row.scheme)), _table(table)]
    more = "; other flags as validation chose" if len(analysis.swept) > 2 else ""
    gaps = f"; {NOTHING} where a seed has no result" if analysis.lost else ""
    unit = Unit(analysis).head
    parts = (
        "Validation / test"
        if any(row.validation is not None for row in analysis.settings)
        else "Test"
    )
    what = _line(
        [f"{parts} {unit}, ", Code(first), " down, ", Code(second), f" across{more}{gaps}."]
    )
    return [f"### {first} and {second}", what, *tables]


def _table(table: Table) -> str:
    # A bar ends the cell, even in code.
    rows = [
        [_inline(cell).replace("|", "\\|") for cell in row] for row in (table.heads, *table.rows)
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(table.heads))
    return "\n".join(lines)


def _folded(summary: str, text: str) -> str:
    # The empty lines let GitHub read Markdown inside of HTML.
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _line(words: Words) -> str:
    return "".join(_inline(piece) for piece in words)


def _inline(piece: str) -> str:
    text = " ".join(piece.split())
    if not isinstance(piece, Code) or not text:
        return piece
    # A fence of backticks is longer than any run of them inside.
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}"
