"""What the figures of an ablation share: a colour and a marker for each scheme, axes, names.

Source: Okabe, Ito 2008, "Color Universal Design" (colours that the colour-blind tell apart).
"""

import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

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


def new_figure() -> tuple[Figure, Axes]:
    """A figure of one axis, which `fit` gives its size."""
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    plain(axis)
    return figure, axis


def plain(axis: Axes) -> None:
    """Takes the frame off and lays a grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)


def legend(figure: Figure, handles: Sequence[Line2D], width: float) -> None:
    """Names the lines below the axes, in as many columns as there is room for in some inches."""
    longest = max(len(line) for h in handles for line in str(h.get_label()).split("\n"))
    columns = max(min(int(width * 11) // (longest + 6), len(handles)), 1)
    found = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    as_written(found.get_texts())


def as_written(texts: Iterable[Text]) -> None:
    """Draws texts letter by letter: a $ begins no formula."""
    for text in texts:
        text.set_parse_math(False)


def size(texts: Iterable[Text]) -> tuple[float, float]:
    """The width of the widest and the height of the highest of some texts of a figure, in inches.

    Zeros if there is none.
    """
    width = height = 0.0
    for text in texts:
        figure = text.get_figure(root=True)
        if figure is None or not text.get_text():
            continue
        box = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        width, height = max(width, box.width / figure.dpi), max(height, box.height / figure.dpi)
    return width, height


def fit(figure: Figure, axes: Sequence[Axes], columns: int, width: float, height: float) -> None:
    """Makes a figure so large that its axes have a given size, whatever is written beside them.

    Args:
      figure: with a constrained layout, and all that it is to have.
      axes: line by line, of equal sizes; no colour bar among them.
      columns: how many of them are beside each other.
      width: of each, in inches.
      height: of each, in inches.
    """
    lines = -(-len(axes) // columns)
    layout = figure.get_layout_engine()
    assert layout is not None
    # At first too large: a layout that has no room for the names is none.
    figure.set_size_inches((width + 4) * columns + 4, (height + 3) * lines + 4)
    for _ in range(4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layout.execute(figure)
        if any("constrained_layout not applied" in str(warning.message) for warning in caught):
            figure.set_size_inches(2 * figure.get_figwidth(), 2 * figure.get_figheight())
            continue
        boxes = [axis.get_window_extent() for axis in axes]
        wide = width - min(box.width for box in boxes) / figure.dpi
        high = height - min(box.height for box in boxes) / figure.dpi
        if max(abs(wide), abs(high)) < 0.02:
            break
        figure.set_size_inches(
            figure.get_figwidth() + columns * wide, figure.get_figheight() + lines * high
        )
    else:
        layout.execute(figure)
    figure.set_layout_engine("none")  # it would be computed again each time that it is drawn


def value_axis(axis: Axes, values: Sequence[float], width: float) -> None:
    """A tick at each value of a flag; those are named that have room for it in some inches."""
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.minorticks_off()
    ends = axis.transData.transform([(x, 0.0) for x in axis.get_xlim()])[:, 0]
    at = axis.transData.transform([(x, 0.0) for x in values])[:, 0]
    inches = width * (at - ends[0]) / (ends[1] - ends[0])
    halves = [size([text])[0] / 2 + 0.05 for text in axis.get_xticklabels()]
    last, names = len(values) - 1, []
    taken = -math.inf
    for i, (x, half) in enumerate(zip(inches, halves, strict=True)):
        fits = x - half >= taken and (i == last or x + half <= inches[last] - halves[last])
        names.append(f"{values[i]:g}" if fits or i == last else "")
        taken = x + half if names[-1] else taken
    axis.set_xticks(values, names)


def handle(analysis: Analysis, row: SchemeRow) -> Line2D:
    """A scheme at its chosen setting, for the legend."""
    setting = setting_text(row.chosen.setting) if row.chosen else ""
    name = f"{row.scheme}, {setting}" if setting else row.scheme
    return Line2D([], [], **style(analysis, row.scheme), label=wrapped(name))


def scheme_axis(axis: Axes, rows: Sequence[SchemeRow], line: float) -> float:
    """A line a scheme, the first one on top.

    Args:
      axis: to be named.
      rows: the schemes.
      line: the least height of a line, in inches.

    Returns:
      How high the axis must be for the names, in inches.
    """
    axis.set_yticks(range(len(rows)), [wrapped(row.scheme, 28) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    as_written(axis.get_yticklabels())
    return len(rows) * max(line, size(axis.get_yticklabels())[1] + 0.1)


def wrapped(name: str, width: int = 60) -> str:
    """A name in lines of at most `width` letters, broken where an argument or a scheme ends.

    Letters that cannot be drawn, such as a line's end, are written as Python writes them.
    """
    name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    lines = [""]
    for piece in re.findall(r"[^,|]*[,|]?", name):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece.lstrip() if not lines[-1] else piece
    return "\n".join(part.strip() for line in lines for part in textwrap.wrap(line, width))


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
