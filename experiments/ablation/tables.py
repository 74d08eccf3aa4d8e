"""table.md, to be pasted where GitHub's Markdown is read, and cells.csv, which has every number.

Both are the same to the byte for the same outcomes.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from experiments.ablation.analysis import Analysis
from experiments.ablation.cells import Outcome
from experiments.ablation.origin import COLUMNS, facts
from experiments.ablation.rows import (
    Table,
    about_table,
    lost_table,
    main_table,
    pair_table,
    settings_table,
    trace_table,
)
from experiments.ablation.words import (
    NOTHING,
    Code,
    Unit,
    Words,
    answers,
    note_of_settings,
    note_of_verdicts,
    notes,
    overview,
    verdicts,
)

_MEASURED = ("train_", "validation_", "test_", "mc_test_")
# What else of result.json a repetition gives again; times and resumptions it does not.
_REPEATED = ("diverged_at", "learned", "param_hash", "parameters")

_FORMULA = re.compile(r"[=+\-@\t\r](?![\d.]+(e[+-]?\d+)?$)", re.I)
"""What a spreadsheet computes when it opens the file; a number with a sign it may."""


def table_md(analysis: Analysis, about: dict[str, Any]) -> str:
    """The whole ablation in GitHub's Markdown.

    Args:
      analysis: of its outcomes.
      about: where they come from: "experiment", "command", "shared" (the flags that are equal for
        all cells), "swept" (the names of the others), "environment" and "warnings" (where the cells
        were made, from `origin`; there may be no warnings), "data_sha256" and "mask_stream".
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
    """What the ablation says, a sentence a line, and its main table, for a terminal."""
    table = main_table(analysis)
    widths = [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (table.heads, *table.rows)
    ]
    sentences = ["".join(words) for words in (*answers(analysis), *verdicts(analysis))]
    return "\n".join([*lines, "", *sentences])


def cells_csv(outcomes: Sequence[Outcome]) -> str:
    """A row a cell in the order of the grid: what it is, every flag, every result.

    Numbers have all their digits, so that what is read back is what was measured; what is no
    number or text is JSON; nothing stands where there is none. The last columns say where the cell
    was made. A text that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
      outcomes: of every cell.
    """
    flags = sorted({name for o in outcomes for name in o.cell.config})
    found = dict.fromkeys(name for o in outcomes for name in o.result)
    results = [name for name in found if name.startswith(_MEASURED)]
    results += [name for name in _REPEATED if name in found]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "status", "scheme", *flags, *results, "error", "command", *COLUMNS])
    for o in outcomes:
        # The rate of a chain is in its text alone.
        values = [_first(o.cell.config.get(name), o.cell.setting.get(name)) for name in flags]
        values += [o.result.get(name) for name in results]
        of = facts(o)
        values = [o.cell.id, o.status, o.cell.scheme, *values, o.error, o.cell.command]
        writer.writerow([_text(value) for value in (*values, *(of.get(name) for name in COLUMNS))])
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
    """A table a scheme, of the first two flags that are swept."""
    if len(analysis.swept) < 2:
        return []
    first, second = analysis.swept[:2]
    found = []
    for row in analysis.schemes:
        table = pair_table(analysis, row.scheme, first, second)
        if table is not None:
            found += [_inline(Code(row.scheme)), _table(table)]
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
    return [f"### {first} and {second}", what, *found]


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
