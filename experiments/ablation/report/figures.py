"""Pictures of an ablation, the same to the byte for the same outcomes.

Each function returns a figure, or None where there is nothing to draw. Results of classification
are drawn as errors in per cent. A scheme has one colour and one marker in all of them.

Source: Okabe, Ito 2008, "Color Universal Design" (colours that the colour-blind tell apart).
"""

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from dropjax.compare import Summary, fewest
from experiments.ablation.cells import Outcome
from experiments.ablation.report.analysis import Analysis, SchemeRow, SettingRow, choose
from experiments.ablation.report.tables import by_pair
from experiments.ablation.report.words import NOTHING, Unit, setting_text
from experiments.picture import drawing, in_lines

_WIDTH = 5.6
"""Of an axis that has a figure for itself, in inches."""

# Without the yellow, which is pale on white. Black is for the baseline.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "osD^vP*X"


class Picture(NamedTuple):
    """A figure as a file, and what is to be seen in it."""

    caption: str
    png: bytes


def draw(
    analysis: Analysis, outcomes: Sequence[Outcome]
) -> tuple[dict[str, Picture], dict[str, str]]:
    """All figures for which there is something to draw, by title.

    Returns:
      The figures; and for each figure that could not be drawn the reason, in a line.
    """
    rate, per_cent = swept_number(analysis), f"{100 * analysis.level:g} %"
    lacking = rate and any(row.setting.get(rate) is None for row in analysis.settings)
    made = {
        f"Test error against {rate}": (
            f"Means over the seeds, with {per_cent} intervals, of {fewest(analysis.level)} seeds "
            "or more. "
            f"{_others(analysis, [rate])}"
            f"{f'A dashed line: a scheme without a {rate}.' if lacking else ''}",
            lambda: error_against_rate(analysis),
        ),
        "Differences seed by seed": (
            f"A dot is a seed, a diamond their mean, a bar the interval of the table ({per_cent}).",
            lambda: paired_differences(analysis),
        ),
        "Learning curves": (
            "Each scheme at its chosen setting: the mean over its seeds, and one standard "
            "deviation to either side.",
            lambda: learning_curves(analysis, outcomes),
        ),
        "Training and test error": (
            "Each scheme at its chosen setting, means over the seeds; both without dropout.",
            lambda: train_test_gap(analysis),
        ),
    }
    if len(analysis.swept) > 1:
        first, second = analysis.swept[:2]
        made[f"Error against {first} and {second}"] = (
            f"Means over the seeds; the frame is around the chosen setting. "
            f"{_others(analysis, [first, second])}",
            lambda: heat_map(analysis, first, second),
        )
    pictures, missing = {}, {}
    for title, (caption, drawn) in made.items():
        try:
            with drawing():
                figure = drawn()
                if figure is not None:
                    pictures[title] = Picture(caption.strip(), png(figure))
        except Exception as error:  # no picture is worth the results
            line = str(error).partition("\n")[0]
            missing[title] = f"{type(error).__name__}: {line}"
    return pictures, missing


def _others(analysis: Analysis, shown: Sequence[str | None]) -> str:
    """A sentence on the flags that a figure does not show, with a space after it; "" for none."""
    names = [name for name in analysis.swept if name not in shown]
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return (
        f"At each point {' and '.join(names)} {verb} what validation chose there, not one for all. "
    )


def png(figure: Figure) -> bytes:
    """A figure as a small file: with 256 colours, and without Matplotlib's version in it."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, bbox_inches="tight")
    image = Image.open(drawn).convert("RGB").quantize(dither=Image.Dither.NONE)
    image.save(file, format="png", optimize=True)
    return file.getvalue()


def swept_number(analysis: Analysis) -> str | None:
    """The rate, or the first other flag that is swept over several numbers; None without one."""
    names = sorted(analysis.swept, key=lambda name: name != "rate")
    return next((name for name in names if len(numbers(analysis, name)) > 1), None)


def error_against_rate(analysis: Analysis) -> Figure | None:
    """The test error against the rate, or another number that is swept, with intervals.

    A scheme for which the flag has no meaning is a horizontal line. Validation chose the other
    flags at each rate.
    """
    name = swept_number(analysis)
    if name is None:
        return None
    figure, axis = new_figure()
    values, handles = numbers(analysis, name), []
    logarithmic = name != "rate" and values[0] > 0 and values[-1] >= 16 * values[0]
    if logarithmic:
        axis.set_xscale("log")
    for number, scheme in enumerate(analysis.schemes):
        results = along(analysis, scheme.scheme, name)
        points = [(x, summary) for x, summary in results if x is not None]
        look = style(analysis, scheme.scheme)
        if not points:
            look |= {"marker": "", "linestyle": "--"}
        for mean, low, high in (error(analysis, s) for x, s in results if x is None):
            axis.axhline(mean, color=look["color"], linestyle="--")
            if low < high:
                axis.axhspan(low, high, color=look["color"], alpha=0.1, linewidth=0)
        if points:
            means, lows, highs = np.transpose([error(analysis, s) for _, s in points])
            # Side by side, or the intervals of schemes hide each other.
            aside = 0.008 * (number - len(analysis.schemes) / 2)
            x = np.array([x for x, _ in points], float)
            x = x * (values[-1] / values[0]) ** aside if logarithmic else x + aside * np.ptp(values)
            axis.errorbar(x, means, yerr=[means - lows, highs - means], capsize=3, **look)
        if results:
            handles.append(Line2D([], [], **look, label=in_lines(scheme.scheme)))
    if not handles:
        return None
    if len(values) <= 8:
        value_axis(axis, values, _WIDTH)
    axis.set_xlabel(name)
    axis.set_ylabel(label(analysis, "test"))
    legend(figure, handles, _WIDTH)
    fit(figure, [axis], 1, _WIDTH, 2.6)
    return figure


def learning_curves(analysis: Analysis, outcomes: Sequence[Outcome]) -> Figure | None:
    """The validation results of the chosen settings, epoch by epoch: mean ± standard deviation."""
    history_of = {o.cell.id: o.history for o in outcomes}
    chosen = [(row, row.chosen) for row in analysis.schemes if row.chosen is not None]
    metrics = (f"validation_{analysis.metric.name}", "validation_loss")
    records = [record for _, best in chosen for i in best.ids for record in history_of[i]]
    if not all(any(record.get(name) is not None for record in records) for name in metrics):
        return None
    figure = Figure(layout="constrained")
    axes = list(figure.subplots(1, 2))
    for axis, name in zip(axes, metrics, strict=True):
        for row, best in chosen:
            histories = [history_of[i] for i in best.ids]
            epochs = range(min(map(len, histories)))
            # None becomes NaN; a loss that is infinite is not drawn either.
            values = np.array([[h[e].get(name) for e in epochs] for h in histories], float)
            values[~np.isfinite(values)] = np.nan
            if name != "validation_loss" and Unit(analysis).percent:
                values = 100 * (1 - values)
            mean, std = values.mean(axis=0), values.std(axis=0, ddof=min(len(values) - 1, 1))
            look = style(analysis, row.scheme)
            x = [epoch + 1 for epoch in epochs]
            axis.plot(x, mean, **look | ({} if len(x) <= 20 else {"marker": ""}))
            axis.fill_between(x, mean - std, mean + std, color=look["color"], alpha=0.12, lw=0)
        axis.set_xlabel("epoch")
        axis.set_ylabel("validation loss" if "loss" in name else label(analysis, "validation"))
        axis.locator_params(axis="x", integer=True)
        plain(axis)
    legend(figure, [handle(analysis, row) for row, _ in chosen], 7.4)
    fit(figure, axes, 2, 3.5, 2.6)
    return figure


def train_test_gap(analysis: Analysis) -> Figure | None:
    """The errors on training data and test data at the chosen settings, without dropout."""
    rows = [
        (row, best.train, best.test)
        for row in analysis.schemes
        if (best := row.chosen) is not None and best.train is not None and best.test is not None
    ]
    if not rows:
        return None
    figure, axis = new_figure()
    for y, (row, *parts) in enumerate(rows):
        train, test = (error(analysis, part)[0] for part in parts)
        colour = style(analysis, row.scheme)["color"]
        axis.plot([train, test], [y, y], color=colour, linewidth=2, zorder=1)
        axis.plot(train, y, "o", color=colour, markerfacecolor="white", markersize=7)
        axis.plot(test, y, "o", color=colour, markersize=7)
    height = scheme_axis(axis, [row for row, *_ in rows], 0.5)
    axis.set_xlabel(label(analysis, ""))
    dots: dict[str, Any] = {"color": "#555555", "marker": "o", "linestyle": ""}
    hollow = Line2D([], [], **dots, markerfacecolor="white", label="training data")
    legend(figure, [hollow, Line2D([], [], **dots, label="test data")], _WIDTH)
    fit(figure, [axis], 1, _WIDTH, height)
    return figure


def paired_differences(analysis: Analysis) -> Figure | None:
    """The difference of each seed to the baseline on the test data, their mean and its interval."""
    rows = [(row, row.comparison) for row in analysis.schemes if row.comparison is not None]
    if not rows:
        return None
    unit, higher = Unit(analysis), analysis.metric.higher
    scale = 100 if unit.percent else 1
    figure, axis = new_figure()
    axis.axvline(0, color="black", linewidth=1)
    for y, (row, comparison) in enumerate(rows):
        colour = style(analysis, row.scheme)["color"]
        values = scale * np.array(list(row.differences.values()))
        # Each seed lies below the one before: equal differences would be one dot.
        beside = y + 0.28 * np.linspace(-1, 1, len(values)) if len(values) > 1 else [y]
        axis.plot(values, beside, "o", color=colour, alpha=0.6, markersize=4, markeredgewidth=0)
        ends = [scale * comparison.low, scale * comparison.high]
        axis.plot(ends, [y, y], color="black", linewidth=1.5)
        mean = scale * comparison.difference
        axis.plot(mean, y, "D", color=colour, markeredgecolor="black", markersize=7)
    height = scheme_axis(axis, [row for row, _ in rows], 0.6)
    points = ", points" if unit.percent else ""
    side = "right" if higher else "left"
    text = f"test {unit.name} less that of {analysis.baseline}{points} (better: to the {side})"
    as_written([axis.set_xlabel(in_lines(text))])
    fit(figure, [axis], 1, _WIDTH, height)
    return figure


def heat_map(analysis: Analysis, first: str, second: str) -> Figure | None:
    """The mean validation error against two flags, with a panel for each scheme.

    Without validation results it is the test error. The chosen setting has a frame. Validation
    chose the other flags.

    Args:
      analysis: of the outcomes.
      first: a swept flag, down.
      second: another, across.
    """
    validated = any(row.validation is not None for row in analysis.settings)
    panels = []
    for row in analysis.schemes:
        grid = by_pair(analysis, row.scheme, first, second)
        if any(u is not None and v is not None for u, v in grid):
            panels.append((row, grid))
    cells = [best for _, grid in panels for best in grid.values() if best is not None]
    errors = [_cell_error(analysis, best, validated) for best in cells]
    if not errors:
        return None
    least, most = min(errors), max(errors)
    across = list(dict.fromkeys(pair[1] for _, grid in panels for pair in grid))
    columns = max(min(len(panels), 3, 14 // len(across)), 1)
    lines = -(-len(panels) // columns)
    figure = Figure(layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    image, width, height = None, 2.0, 1.6
    for axis, (row, grid) in zip(axes, panels, strict=False):
        down, across = (list(dict.fromkeys(pair[i] for pair in grid)) for i in (0, 1))
        values = np.full((len(down), len(across)), np.nan)
        shown = []
        for (u, v), best in grid.items():
            i, j = down.index(u), across.index(v)
            if best is None:
                axis.text(j, i, NOTHING, ha="center", va="center")
                continue
            values[i, j] = value = _cell_error(analysis, best, validated)
            dark = most > least and (value - least) / (most - least) < 0.5
            text = f"{value:.2f}" if Unit(analysis).percent else f"{value:.3g}"
            look = {"ha": "center", "va": "center", "color": "white" if dark else "black"}
            shown.append(axis.text(j, i, text, **look))
            if best is row.chosen:
                frame = Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, lw=2.5, ec="#D55E00")
                axis.add_patch(frame)
        image = axis.imshow(values, cmap="cividis", vmin=least, vmax=most, aspect="auto")
        axis.set_xticks(range(len(across)), [in_lines(str(v), 12) for v in across])
        axis.set_yticks(range(len(down)), [in_lines(str(u), 20) for u in down])
        title = axis.set_title(in_lines(row.scheme, 34), fontsize=9)
        axis.set_xlabel(second)
        axis.set_ylabel(first)
        beside, below = axis.get_yticklabels(), axis.get_xticklabels()
        as_written([title, *beside, *below])
        number, title_width = size(shown), size([title])[0] + 0.1
        width = max(width, title_width, len(across) * (max(number[0], size(below)[0]) + 0.12))
        height = max(height, len(down) * (max(number[1], size(beside)[1]) + 0.12))
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if image is not None:
        part = "validation" if validated else "test"
        figure.colorbar(image, ax=axes.tolist(), label=f"mean {label(analysis, part)}")
    fit(figure, list(axes), columns, width, height)
    return figure


def _cell_error(analysis: Analysis, row: SettingRow, validated: bool) -> float:
    summary = row.validation if validated else row.test
    return np.nan if summary is None else error(analysis, summary)[0]


def style(analysis: Analysis, scheme: str) -> dict[str, Any]:
    """A scheme's colour and marker; the baseline is black."""
    look = {"markersize": 5, "linewidth": 1.5}
    if scheme == analysis.baseline:
        return {"color": "black", "marker": "o", **look}
    others = [row.scheme for row in analysis.schemes if row.scheme != analysis.baseline]
    number = others.index(scheme)
    colour = _COLOURS[number % len(_COLOURS)]
    # After six schemes the colours come again, with other lines.
    line = ("-", ":")[number // len(_COLOURS) % 2]
    marker = _MARKERS[(number + 1) % len(_MARKERS)]
    return {"color": colour, "marker": marker, "linestyle": line, **look}


def new_figure() -> tuple[Figure, Axes]:
    """A figure with one axis. `fit` gives it its size."""
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
    """Names the lines, below the axes, in as many columns as a width in inches has room for."""
    longest = max(len(line) for h in handles for line in str(h.get_label()).split("\n"))
    columns = max(min(int(width * 11) // (longest + 6), len(handles)), 1)
    names = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    as_written(names.get_texts())


def as_written(texts: Iterable[Text]) -> None:
    """Draws texts letter by letter: a $ does not begin a formula."""
    for text in texts:
        text.set_parse_math(False)


def size(texts: Iterable[Text]) -> tuple[float, float]:
    """The width of the widest text and the height of the highest one, in inches.

    Zeros if there are no texts.
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
      figure: complete, with a constrained layout.
      axes: line by line, of equal sizes, without colour bars.
      columns: how many axes are in a line.
      width: of each, in inches.
      height: of each, in inches.
    """
    lines = -(-len(axes) // columns)
    layout = figure.get_layout_engine()
    assert layout is not None
    # It starts too large: without room for the names there is no layout.
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
    figure.set_layout_engine("none")  # each drawing would compute it again


def value_axis(axis: Axes, values: Sequence[float], width: float) -> None:
    """A tick at each value of a flag. In a width in inches, those with room for it get a name."""
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
    return Line2D([], [], **style(analysis, row.scheme), label=in_lines(name))


def scheme_axis(axis: Axes, rows: Sequence[SchemeRow], line: float) -> float:
    """Names a line for each scheme, the first one on top.

    Args:
      axis: whose lines are named.
      rows: the schemes.
      line: the least height of a line, in inches.

    Returns:
      How high the axis must be for the names, in inches.
    """
    axis.set_yticks(range(len(rows)), [in_lines(row.scheme, 28) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    as_written(axis.get_yticklabels())
    return len(rows) * max(line, size(axis.get_yticklabels())[1] + 0.1)


def label(analysis: Analysis, part: str) -> str:
    """What an axis of errors shows, for a part of the data."""
    unit = Unit(analysis)
    return f"{part} {'error, %' if unit.percent else unit.name}".strip()


def error(analysis: Analysis, result: Summary) -> tuple[float, float, float]:
    """The mean error and the ends of its interval, as they are drawn."""
    if not Unit(analysis).percent:
        return result.mean, result.low, result.high
    return 100 * (1 - result.mean), 100 * (1 - result.high), 100 * (1 - result.low)


def numbers(analysis: Analysis, name: str) -> list[float]:
    """The numbers that a flag is swept over, in order; none if its values are not numbers."""
    values = {row.setting.get(name) for row in analysis.settings} - {None}
    real = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return sorted(map(float, real)) if len(real) == len(values) else []


def along(analysis: Analysis, scheme: str, name: str) -> list[tuple[Any, Summary]]:
    """The test results of a scheme at each value of a flag. Validation chose the other flags."""
    groups: dict[Any, list[SettingRow]] = {}
    for row in analysis.of_scheme(scheme):
        groups.setdefault(row.setting.get(name), []).append(row)
    best = [(value, choose(rows, analysis.metric)[0]) for value, rows in groups.items()]
    known = [(value, row.test) for value, row in best if row is not None and row.test is not None]
    return sorted(known, key=lambda pair: -math.inf if pair[0] is None else pair[0])
