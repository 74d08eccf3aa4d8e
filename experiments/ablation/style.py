"""What the figures of an ablation share: a colour and a marker for each scheme, axes, names.

Source: Okabe, Ito 2008, "Color Universal Design" (colours that the colour-blind tell apart).
"""

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dropjax.compare import Summary
from experiments.ablation.analysis import Analysis, SchemeRow
from experiments.ablation.choice import SettingRow, choose
from experiments.ablation.words import Unit, setting_text

# Without the yellow, which is pale on white, and with black for the baseline.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "osD^vP*X"


def style(analysis: Analysis, scheme: str) -> dict[str, Any]:
    """A scheme's colour and marker; the baseline is black."""
    look = {"markersize": 5, "linewidth": 1.5}
    if scheme == analysis.baseline:
        return {"color": "black", "marker": "o", **look}
    others = [row.scheme for row in analysis.schemes if row.scheme != analysis.baseline]
    number = others.index(scheme)
    colour = _COLOURS[number % len(_COLOURS)]
    # Colours come again after six schemes, with other lines.
    line = ("-", ":")[number // len(_COLOURS) % 2]
    marker = _MARKERS[(number + 1) % len(_MARKERS)]
    return {"color": colour, "marker": marker, "linestyle": line, **look}


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one axis, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    plain(axis)
    return figure, axis


def plain(axis: Axes) -> None:
    """Takes the frame off and lays a grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Names the lines below the axes, in as many columns as their names leave room for."""
    longest = max(len(line) for h in handles for line in str(h.get_label()).split("\n"))
    room = int(figure.get_figwidth() * 11)
    columns = max(min(room // (longest + 6), len(handles)), 1)
    lines = sum(str(h.get_label()).count("\n") + 1 for h in handles[::columns])
    figure.set_figheight(figure.get_figheight() + 0.2 * lines)  # the axes keep theirs
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def handle(analysis: Analysis, row: SchemeRow) -> Line2D:
    """A scheme at its chosen setting, for the legend."""
    setting = setting_text(row.chosen.setting) if row.chosen else ""
    name = f"{row.scheme}, {setting}" if setting else row.scheme
    return Line2D([], [], **style(analysis, row.scheme), label=wrapped(name))


def scheme_axis(axis: Axes, rows: Sequence[SchemeRow]) -> None:
    """A line a scheme, the first one on top."""
    axis.set_yticks(range(len(rows)), [wrapped(row.scheme, 28) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def wrapped(name: str, width: int = 60) -> str:
    """A name in lines of at most `width` letters, broken where an argument or a scheme ends."""
    lines = [""]
    for piece in re.findall(r"[^,|]*[,|]?", name):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece.lstrip() if not lines[-1] else piece
    broken = [part for line in lines for part in textwrap.wrap(line, width)]
    return "\n".join(broken).replace("$", r"\$")  # no formula


def label(analysis: Analysis, part: str) -> str:
    """What an axis of errors shows, of a part of the data."""
    unit = Unit(analysis)
    return f"{part} {'error, %' if unit.percent else unit.name}".strip()


def error(analysis: Analysis, found: Summary) -> tuple[float, float, float]:
    """The mean error and the ends of its interval, as they are drawn."""
    if not Unit(analysis).percent:
        return found.mean, found.low, found.high
    return 100 * (1 - found.mean), 100 * (1 - found.high), 100 * (1 - found.low)


def numbers(analysis: Analysis, name: str) -> list[float]:
    """The numbers that a flag is swept over, in order; none if it is no number."""
    values = {row.setting.get(name) for row in analysis.settings} - {None}
    real = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return sorted(map(float, real)) if len(real) == len(values) else []


def along(analysis: Analysis, scheme: str, name: str) -> list[tuple[Any, Summary]]:
    """The test results of a scheme at each value of a flag, the other flags as validation chose."""
    groups: dict[Any, list[SettingRow]] = {}
    for row in analysis.of_scheme(scheme):
        groups.setdefault(row.setting.get(name), []).append(row)
    best = [(value, choose(rows, analysis.metric)[0]) for value, rows in groups.items()]
    found = [(value, row.test) for value, row in best if row is not None and row.test is not None]
    return sorted(found, key=lambda pair: -math.inf if pair[0] is None else pair[0])
