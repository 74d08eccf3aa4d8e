"""Pictures of an ablation, the same to the byte for the same outcomes.

Each function returns a figure, or None where there is nothing to draw. Results of classification
are drawn as errors in per cent.
"""

import io
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from dropjax.compare import fewest
from experiments.ablation.analysis import Analysis
from experiments.ablation.cells import Outcome
from experiments.ablation.choice import SettingRow
from experiments.ablation.rows import by_pair
from experiments.ablation.style import (
    along,
    as_written,
    error,
    fit,
    handle,
    label,
    legend,
    new_figure,
    numbers,
    plain,
    scheme_axis,
    size,
    style,
    value_axis,
    wrapped,
)
from experiments.ablation.words import NOTHING, Unit

_WIDTH = 5.6
"""Of an axis that has a figure for itself, in inches."""


class Picture(NamedTuple):
    """A figure as a file, and what is to be seen in it."""

    caption: str
    png: bytes


def draw(
    analysis: Analysis, outcomes: Sequence[Outcome]
) -> tuple[dict[str, Picture], dict[str, str]]:
    """All figures that there is something to draw for, by title.

    Returns:
      The figures; and of those that could not be drawn why not, in a line.
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
            # Of whatever style the user has; a letter that the font has not is a box.
            with matplotlib.style.context("default"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph")
                figure = drawn()
                if figure is not None:
                    pictures[title] = Picture(caption.strip(), png(figure))
        except Exception as error:  # no picture is worth the results
            line = str(error).partition("\n")[0]
            missing[title] = f"{type(error).__name__}: {line}"
    return pictures, missing


def _others(analysis: Analysis, shown: Sequence[str | None]) -> str:
    """What a figure has of the flags that it does not show; a sentence with a space after it."""
    names = [name for name in analysis.swept if name not in shown]
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return (
        f"At each point {' and '.join(names)} {verb} what validation chose there, not one for all. "
    )


def png(figure: Figure) -> bytes:
    """A figure as a file, small: of 256 colours, and without Matplotlib's version in it."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, bbox_inches="tight")
    image = Image.open(drawn).convert("RGB").quantize(dither=Image.Dither.NONE)
    image.save(file, format="png", optimize=True)
    return file.getvalue()


def swept_number(analysis: Analysis) -> str | None:
    """The rate, or the first other flag that has two numbers; None if none has."""
    names = sorted(analysis.swept, key=lambda name: name != "rate")
    return next((name for name in names if len(numbers(analysis, name)) > 1), None)


def error_against_rate(analysis: Analysis) -> Figure | None:
    """The test error against the rate, or another number that is swept, with intervals.

    A scheme for which the flag has no meaning is a horizontal line. Other flags are as validation
    chose at each rate.
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
        found = along(analysis, scheme.scheme, name)
        points = [(x, summary) for x, summary in found if x is not None]
        look = style(analysis, scheme.scheme)
        if not points:
            look |= {"marker": "", "linestyle": "--"}
        for mean, low, high in (error(analysis, s) for x, s in found if x is None):
            axis.axhline(mean, color=look["color"], linestyle="--")
            if low < high:
                axis.axhspan(low, high, color=look["color"], alpha=0.1, linewidth=0)
        if points:
            means, lows, highs = np.transpose([error(analysis, s) for _, s in points])
            # Side by side, or their intervals hide each other.
            aside = 0.008 * (number - len(analysis.schemes) / 2)
            x = np.array([x for x, _ in points], float)
            x = x * (values[-1] / values[0]) ** aside if logarithmic else x + aside * np.ptp(values)
            axis.errorbar(x, means, yerr=[means - lows, highs - means], capsize=3, **look)
        if found:
            handles.append(Line2D([], [], **look, label=wrapped(scheme.scheme)))
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
    of = {o.cell.id: o.history for o in outcomes}
    chosen = [(row, row.chosen) for row in analysis.schemes if row.chosen is not None]
    metrics = (f"validation_{analysis.metric.name}", "validation_loss")
    records = [record for _, best in chosen for i in best.ids for record in of[i]]
    if not all(any(record.get(name) is not None for record in records) for name in metrics):
        return None
    figure = Figure(layout="constrained")
    axes = list(figure.subplots(1, 2))
    for axis, name in zip(axes, metrics, strict=True):
        for row, best in chosen:
            histories = [of[i] for i in best.ids]
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
    """The errors of training data and test data at the chosen settings, without dropout."""
    found = [
        (row, best.train, best.test)
        for row in analysis.schemes
        if (best := row.chosen) is not None and best.train is not None and best.test is not None
    ]
    if not found:
        return None
    figure, axis = new_figure()
    for y, (row, *parts) in enumerate(found):
        train, test = (error(analysis, part)[0] for part in parts)
        colour = style(analysis, row.scheme)["color"]
        axis.plot([train, test], [y, y], color=colour, linewidth=2, zorder=1)
        axis.plot(train, y, "o", color=colour, markerfacecolor="white", markersize=7)
        axis.plot(test, y, "o", color=colour, markersize=7)
    height = scheme_axis(axis, [row for row, *_ in found], 0.5)
    axis.set_xlabel(label(analysis, ""))
    dots: dict[str, Any] = {"color": "#555555", "marker": "o", "linestyle": ""}
    hollow = Line2D([], [], **dots, markerfacecolor="white", label="training data")
    legend(figure, [hollow, Line2D([], [], **dots, label="test data")], _WIDTH)
    fit(figure, [axis], 1, _WIDTH, height)
    return figure


def paired_differences(analysis: Analysis) -> Figure | None:
    """Each seed's difference to the baseline on the test data, their mean and its interval."""
    found = [(row, row.comparison) for row in analysis.schemes if row.comparison is not None]
    if not found:
        return None
    unit, higher = Unit(analysis), analysis.metric.higher
    scale = 100 if unit.percent else 1
    figure, axis = new_figure()
    axis.axvline(0, color="black", linewidth=1)
    for y, (row, comparison) in enumerate(found):
        colour = style(analysis, row.scheme)["color"]
        values = scale * np.array(list(row.differences.values()))
        # Seeds one below the other, or equal differences would be one dot.
        beside = y + 0.28 * np.linspace(-1, 1, len(values)) if len(values) > 1 else [y]
        axis.plot(values, beside, "o", color=colour, alpha=0.6, markersize=4, markeredgewidth=0)
        ends = [scale * comparison.low, scale * comparison.high]
        axis.plot(ends, [y, y], color="black", linewidth=1.5)
        mean = scale * comparison.difference
        axis.plot(mean, y, "D", color=colour, markeredgecolor="black", markersize=7)
    height = scheme_axis(axis, [row for row, _ in found], 0.6)
    points = ", points" if unit.percent else ""
    side = "right" if higher else "left"
    text = f"test {unit.name} less that of {analysis.baseline}{points} (better: to the {side})"
    as_written([axis.set_xlabel(wrapped(text))])
    fit(figure, [axis], 1, _WIDTH, height)
    return figure


def heat_map(analysis: Analysis, first: str, second: str) -> Figure | None:
    """The mean validation error against two flags, a panel a scheme; the chosen one is framed.

    The test error where there are no validation results; other flags as validation chose.

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
        axis.set_xticks(range(len(across)), [wrapped(str(v), 12) for v in across])
        axis.set_yticks(range(len(down)), [wrapped(str(u), 20) for u in down])
        title = axis.set_title(wrapped(row.scheme, 34), fontsize=9)
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
    found = row.validation if validated else row.test
    return np.nan if found is None else error(analysis, found)[0]
