"""report.html: the whole ablation in one file, which needs no other file and no network."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from experiments.ablation.cells import Outcome
from experiments.ablation.report.analysis import Analysis
from experiments.ablation.report.tables import (
    Table,
    about_table,
    lost_table,
    main_table,
    settings_table,
    trace_table,
)
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
    setting_text,
    verdicts,
)

if TYPE_CHECKING:  # Matplotlib takes half a second to import
    from experiments.ablation.report.figures import Picture

_PARTS = {"validation": "validation", "test": "test", "mc_test": "test, mean of draws:"}
_STYLE = Path(__file__).with_name("style.css")


def page(
    analysis: Analysis,
    outcomes: Sequence[Outcome],
    about: dict[str, Any],
    figures: Mapping[str, "Picture"],
    missing: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The report.

    Args:
      analysis: of the outcomes.
      outcomes: of every cell.
      about: as in `tables.table_md`.
      figures: by title.
      missing: why a figure is missing, by its title.
    """
    title = f"Ablation of dropout on {PurePath(about['shared']['dataset']).name}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{_line(overview(analysis, about))}</p>",
        "<h2>Answer</h2>",
        _list((_line(words) for words in answers(analysis)), "answers"),
        *(f"<p><strong>{html.escape(text)}</strong></p>" for text in about.get("warnings", ())),
        "<h2>Table</h2>",
        _table(main_table(analysis), "Each scheme at its chosen setting"),
        _list(html.escape(note) for note in notes(analysis)),
        *_verdicts(analysis),
        *_figures(figures, missing),
        "<h2>All settings</h2>",
        f"<p>{html.escape(note_of_settings(analysis))}</p>",
        _table(settings_table(analysis), "All settings"),
    ]
    parts += ["<h2>Without a result</h2>"]
    if analysis.lost:
        parts += ["<p>In no mean above.</p>", _table(lost_table(analysis), "Without a result")]
    else:
        parts += ["<p>None: every cell has one.</p>"]
    parts += [
        "<h2>Cells</h2>",
        _folded("The cells behind each setting", _table(trace_table(analysis), "Cells by setting")),
        _folded(
            f"All {len(outcomes)} cells, with the command that makes each alone",
            _cells(analysis, outcomes),
        ),
        "<h2>About</h2>",
        _table(about_table(about), "Where the numbers come from", "wide text"),
    ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE.read_text()}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _verdicts(analysis: Analysis) -> list[str]:
    if not analysis.verdicts:
        return []
    return [
        "<h2>Seeds added until it was decided</h2>",
        _list((_line(words) for words in verdicts(analysis)), "answers"),
        f"<p>{html.escape(note_of_verdicts(analysis))}</p>",
    ]


def _figures(figures: Mapping[str, "Picture"], missing: Mapping[str, str]) -> list[str]:
    if not figures and not missing:
        return []
    drawn = []
    for title, picture in figures.items():
        data = base64.b64encode(picture.png).decode("ascii")
        name, caption = html.escape(title), html.escape(picture.caption)
        drawn.append(
            f"<figure><figcaption><strong>{name}.</strong> {caption}</figcaption>"
            f'<img src="data:image/png;base64,{data}" alt="{name}"></figure>'
        )
    gone = [f"{html.escape(title)} is missing: {_inline(why)}." for title, why in missing.items()]
    parts = ["<h2>Figures</h2>"]
    parts += ['<div class="figures">', *drawn, "</div>"] if drawn else []
    return parts + ([_list(gone)] if gone else [])


def _cells(analysis: Analysis, outcomes: Sequence[Outcome]) -> str:
    unit, name = Unit(analysis), analysis.metric.name
    measures = [f"{part}_{name}" for part in _PARTS]
    measures = [m for m in measures if any(o.result.get(m) is not None for o in outcomes)]
    heads = ["cell", "scheme", "setting", "seed", "status"]
    heads += [f"{_PARTS[m.removesuffix(f'_{name}')]} {unit.head}" for m in measures]
    rows = []
    for o in outcomes:
        values = [o.result.get(m) for m in measures]
        cells = [Code(o.cell.id), Code(o.cell.scheme), setting_text(o.cell.setting) or NOTHING]
        cells += [str(o.cell.seed), o.status]
        cells += [NOTHING if value is None else unit.text(value) for value in values]
        rows.append([_cell(cell) for cell in cells] + [_command(o.cell.command)])
    return _raw_table([*map(html.escape, heads), "command"], rows, "All cells")


def _command(command: str) -> str:
    return _folded("command", f"<code>{html.escape(command)}</code>")


def _table(table: Table, name: str, kind: str = "wide") -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return _raw_table([_cell(head) for head in table.heads], rows, name, kind)


def _raw_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], name: str, kind: str = "wide"
) -> str:
    """A table of HTML. On a narrow screen it scrolls alone, with the keyboard too."""
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{text}</td>" for text in others)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{html.escape(name)}">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _list(items: Any, kind: str = "notes") -> str:
    return f'<ul class="{kind}">\n' + "\n".join(f"<li>{item}</li>" for item in items) + "\n</ul>"


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>\n{text}\n</details>"


def _line(words: Words) -> str:
    return "".join(_inline(piece) for piece in words)


def _inline(piece: str) -> str:
    text = html.escape(piece)
    if isinstance(piece, Code):
        return f"<code>{text}</code>" if piece else ""
    # A number stays on one line with its unit, its sign or its other half.
    text = text.replace(" ± ", "&nbsp;±&nbsp;").replace("p = ", "p&nbsp;=&nbsp;")
    return re.sub(r"(\[[^], ]+), ", r"\1,&nbsp;", text)


def _cell(text: str) -> str:
    """As `_inline`, with places where a long name may be broken."""
    inline = _inline(text)
    return re.sub(r"([,|(])(?=\S)", r"\1<wbr>", inline) if isinstance(text, Code) else inline
