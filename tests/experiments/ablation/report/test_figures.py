"""What the figures show, by the data in them."""

import io

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from experiments.ablation.report import figures
from experiments.ablation.report.analysis import analyse
from tests.experiments.ablation.outcomes import QUOTED, classifiers, completed, grid

AGAINST, HEAT_MAP = "Test error against rate", "Error against rate and batch_size"
DIFFERENCES, CURVES = "Differences seed by seed", "Learning curves"
GAP = "Training and test error"


def test_all_are_small_png_files(drawn):
    assert list(drawn.pictures) == [AGAINST, DIFFERENCES, CURVES, GAP, HEAT_MAP]
    for picture in drawn.pictures.values():
        assert len(picture.png) < 60_000
        image = Image.open(io.BytesIO(picture.png))
        assert image.format == "PNG" and not image.info.get("Software")
        assert len(np.unique(np.asarray(image.convert("L")))) > 20  # it is not blank


def test_captions_say_what_is_drawn_and_at_which_settings(drawn, outcomes, monkeypatch):
    against, differences, *_, heat = (picture.caption for picture in drawn.pictures.values())
    assert "95 % intervals, of 6 seeds or more. At each point batch_size is what" in against
    assert against.endswith("A dashed line: a scheme without a rate.")
    assert "a bar the interval of the table (95 %)" in differences
    assert heat == "Means over the seeds; the frame is around the chosen setting."
    monkeypatch.setattr(figures, "png", lambda figure: b"")
    noisy = [o for o in outcomes if o.cell.scheme == "bernoulli"]
    analysis = analyse(noisy, baseline="bernoulli", task="classification", level=0.9)
    (caption, _), *_ = figures.draw(analysis, noisy)[0].values()
    assert "with 90 % intervals" in caption and "dashed" not in caption


def of_bernoulli(analysis, **setting):
    return next(
        row for row in analysis.settings if row.scheme == "bernoulli" and row.setting == setting
    )


def test_error_against_rate_has_the_means_and_their_intervals(analysis, drawn):
    axis = drawn.figures[AGAINST].axes[0]
    (bars,) = axis.containers  # the other schemes have no rate
    # Rate 0.1 has lost a cell at batch size 32, rate 0.3 at 128, and 0.5 is better at 32.
    settings = zip((0.1, 0.3, 0.5), (128, 32, 32), strict=True)
    rows = [of_bernoulli(analysis, rate=rate, batch_size=size) for rate, size in settings]
    x, y = bars.lines[0].get_data()
    np.testing.assert_allclose(x, [0.1, 0.3, 0.5], atol=0.01)
    np.testing.assert_allclose(y, [100 * (1 - row.test.mean) for row in rows])
    segments = bars.lines[2][0].get_segments()
    np.testing.assert_allclose(
        [segment[:, 1] for segment in segments],
        [[100 * (1 - row.test.high), 100 * (1 - row.test.low)] for row in rows],
    )
    level = [
        line
        for line in axis.lines
        if len(set(line.get_ydata())) == 1 and line.get_linestyle() == "--"
    ]
    chosen = {row.scheme: row.chosen.test.mean for row in analysis.schemes}
    assert {line.get_ydata()[0] for line in level} == {
        100 * (1 - chosen[scheme]) for scheme in ("none", QUOTED)
    }


def test_another_number_is_the_axis_where_no_rate_is_swept():
    cells = grid({"none": {"learning_rate": [0.001, 0.1]}, "a": {"learning_rate": [0.001, 0.1]}}, 3)
    analysis = analyse(classifiers(cells), baseline="none", task="classification")
    axis = figures.error_against_rate(analysis).axes[0]
    assert (axis.get_xlabel(), axis.get_xscale()) == ("learning_rate", "log")


def test_differences_are_those_of_the_seeds(analysis, drawn):
    axis = drawn.figures[DIFFERENCES].axes[0]
    row = analysis.schemes[0]
    dots = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 7]
    np.testing.assert_allclose(dots[0], 100 * np.array(list(row.differences.values())))
    ends = [100 * row.comparison.low, 100 * row.comparison.high]
    assert any(np.array_equal(line.get_xdata(), ends) for line in axis.lines)
    assert axis.get_xlabel().endswith("points (better: to the right)")


def test_learning_curves_are_means_of_the_chosen_settings(analysis, outcomes, drawn):
    figure = drawn.figures[CURVES]
    best = analysis.schemes[0].chosen
    histories = [o.history for o in outcomes if o.cell.id in best.ids]
    expected = [
        100 * (1 - np.mean([h[e]["validation_accuracy"] for h in histories])) for e in range(3)
    ]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_data(), [[1, 2, 3], expected])
    last = [100 * (1 - h[2]["validation_accuracy"]) for h in histories]
    band = figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert band.ymin == pytest.approx(np.mean(last) - np.std(last, ddof=1))
    assert figure.axes[1].get_ylabel() == "validation loss"


def test_the_gap_is_between_training_and_test_error(analysis, drawn):
    axis = drawn.figures[GAP].axes[0]
    best = analysis.schemes[0].chosen
    ends = [100 * (1 - best.train.mean), 100 * (1 - best.test.mean)]
    np.testing.assert_allclose(axis.lines[0].get_xdata(), ends)


def test_the_heat_map_has_the_validation_errors_and_gaps(analysis, drawn):
    axis = drawn.figures[HEAT_MAP].axes[0]
    values = np.ma.filled(axis.images[0].get_array().astype(float), np.nan)
    expected = np.full((3, 2), np.nan)
    for i, rate in enumerate((0.1, 0.3, 0.5)):
        for j, batch in enumerate((32, 128)):
            row = of_bernoulli(analysis, rate=rate, batch_size=batch)
            if row.complete:
                expected[i, j] = 100 * (1 - row.validation.mean)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(values, expected)
    assert len(axis.patches) == 1  # the frame


def test_a_scheme_has_one_colour_in_all_figures(analysis, drawn):
    axes = {title: figure.axes[0] for title, figure in drawn.figures.items()}
    against = axes[AGAINST].containers[0].lines[0]
    curve, gap, difference = axes[CURVES].lines[0], axes[GAP].lines[0], axes[DIFFERENCES].lines[1]
    assert len({to_hex(line.get_color()) for line in (against, curve, gap, difference)}) == 1
    schemes = [row.scheme for row in analysis.schemes]
    assert len({figures.style(analysis, scheme)["color"] for scheme in schemes}) == len(schemes)
    assert figures.style(analysis, "none")["color"] == "black"


def test_what_there_is_nothing_to_draw_for_is_left_out():
    cells = grid({"none": {}, "a": {}}, seeds=1)
    outcomes = [completed(cell, test_accuracy=0.9) for cell in cells]
    analysis = analyse(outcomes, baseline="none", task="classification")
    assert list(figures.draw(analysis, outcomes)[0]) == [DIFFERENCES]
    alone = analyse(outcomes[:1], baseline="none", task="classification")
    assert figures.draw(alone, outcomes[:1]) == ({}, {})


def test_a_loss_that_is_infinite_leaves_a_gap_in_its_curve():
    cells = grid({"none": {}}, seeds=2)
    outcomes = [completed(c, validation_rmse=2.0, test_rmse=2.0) for c in cells]
    outcomes[0].history[1]["validation_loss"] = float("inf")
    analysis = analyse(outcomes, baseline="none", task="regression")
    values = figures.learning_curves(analysis, outcomes).axes[1].lines[0].get_ydata()
    assert np.isnan(values).tolist() == [False, True, False]


LONG = 'bernoulli(rate=0.2,at="stage_[01]/map$")|gaussian(rate=0.5,at="W^2_{i}\\\\$",how="WWWWW")'
SIZES = {"batch_size": [32, 128]}


def letters(count: int, rates: list[float]) -> dict[str, dict[str, list[float]]]:
    """Schemes with names of over 80 letters."""
    return {f"{LONG}{number}": SIZES | {"rate": rates} for number in range(count)}


SEVEN = [0.01, 0.02, 0.03, 0.5, 0.7, 0.8, 0.9]
GRIDS = {
    "long": {"none": SIZES} | letters(2, SEVEN),
    "many": letters(12, [0.5]),
}


def crossings(texts) -> list[tuple[str, str]]:
    """Pairs of texts, one drawn over the other."""
    shown = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text().strip()]
    return [
        (a[0], b[0])
        for number, a in enumerate(shown)
        for b in shown[:number]
        if min(a[1].x1, b[1].x1) - max(a[1].x0, b[1].x0) > 1
        and min(a[1].y1, b[1].y1) - max(a[1].y0, b[1].y0) > 1
    ]


@pytest.mark.parametrize("name", GRIDS)
def test_no_text_lies_over_another(name, monkeypatch):
    """Whatever is drawn is looked at, right before it becomes a file."""
    cells = grid(GRIDS[name], 2)
    outcomes = classifiers(cells)
    analysis = analyse(outcomes, baseline=cells[0].scheme, task="classification")
    of_the_user = []

    def look(figure) -> bytes:
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        for axis in figure.axes:
            box = axis.get_window_extent()
            assert box.width > 5 and box.height > 40, "no place for the axis is left"
            boxes = [text.get_window_extent() for text in axis.texts]
            assert all(box.contains(*b.min) and box.contains(*b.max) for b in boxes), "too wide"
        beyond = {text for axis in figure.axes for text in outside(axis)}
        assert crossings([text for text in texts if text not in beyond]) == []
        own = [text for text in texts if "stage_" in text.get_text()]
        assert not any(text.get_parse_math() for text in own)
        of_the_user.extend(own)
        return b""

    monkeypatch.setattr(figures, "png", look)
    drawn, missing = figures.draw(analysis, outcomes)
    assert missing == {} and len(drawn) >= 4
    assert of_the_user


def outside(axis) -> list[Text]:
    """The names of ticks that lie beyond the ends of an axis, which are not drawn."""
    found = []
    for way, (low, high) in (
        (axis.xaxis, sorted(axis.get_xlim())),
        (axis.yaxis, sorted(axis.get_ylim())),
    ):
        for tick in way.get_major_ticks() + way.get_minor_ticks():
            if not low <= tick.get_loc() <= high:
                found += [tick.label1, tick.label2]
    return found


def test_a_text_is_drawn_letter_by_letter():
    figure, axis = figures.new_figure()
    title = axis.set_title(r"$\frac{x_1^2$")
    with pytest.raises(ValueError, match="Expected"):
        figures.size([title])
    figures.as_written([title])
    width, height = figures.size([title])
    assert width > 1 and height < 0.3
    figures.fit(figure, [axis], 1, 3.0, 2.0)
    box = axis.get_window_extent()
    assert (box.width, box.height) == pytest.approx((300, 200), abs=3)
    # What lies beyond a figure's edge is in its file.
    small = Figure(figsize=(1.0, 1.0))
    small.text(0.5, 0.5, "W" * 40)
    assert Image.open(io.BytesIO(figures.png(small))).size[0] > 300


@pytest.fixture
def gap_alone(monkeypatch):
    """Only the figure of training and test error is drawn; the others take time."""
    for name in ("error_against_rate", "paired_differences", "learning_curves", "heat_map"):
        monkeypatch.setattr(figures, name, lambda *arguments: None)


def test_a_users_style_changes_no_picture(analysis, outcomes, drawn, gap_alone):
    with rc_context({"text.usetex": True, "font.size": 20, "savefig.dpi": 30}):
        (title,) = found = figures.draw(analysis, outcomes)[0]
    assert title == GAP and found[title] == drawn.pictures[title]


def test_a_figure_that_cannot_be_drawn_is_named_and_the_others_are_there(
    analysis, outcomes, drawn, gap_alone, monkeypatch
):
    def broken(*arguments):
        raise RuntimeError("no ink\nat all")

    monkeypatch.setattr(figures, "learning_curves", broken)
    found, missing = figures.draw(analysis, outcomes)
    assert missing == {CURVES: "RuntimeError: no ink"} and found[GAP] == drawn.pictures[GAP]
