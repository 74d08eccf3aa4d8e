"""The choice, and the comparison, against numbers worked out by hand and simulated ablations."""

import dataclasses
import math

import numpy as np
import pytest

from experiments.ablation.cells import Outcome
from experiments.ablation.report.analysis import analyse
from tests.experiments.ablation.outcomes import (
    accuracies,
    classifiers,
    completed,
    example,
    grid,
    lost,
    small,
)

RATES = {"rate": [0.1, 0.3]}


def of_scheme(analysis, scheme):
    return next(row for row in analysis.schemes if row.scheme == scheme)


def test_the_chosen_setting_and_the_difference_by_hand():
    analysis = analyse(small(), baseline="none", task="classification")
    row = of_scheme(analysis, "bernoulli")
    assert (row.settings, row.chosen.setting, row.chosen.ids) == (
        2,
        {"rate": 0.3},
        ("c0006", "c0007", "c0008"),
    )
    assert row.chosen.validation.mean == pytest.approx(0.93666667)
    assert row.chosen.test.mean == pytest.approx(0.85)
    assert row.chosen.test.std == pytest.approx(math.sqrt((0.02**2 + 0.03**2 + 0.05**2) / 2))
    assert row.differences == pytest.approx({0: 0.03, 1: 0.0, 2: 0.06})
    assert row.comparison.difference == pytest.approx(0.03)
    # Of 8 sign flips those with both of the others of one sign: 4.
    assert row.comparison.p == row.p == 0.5 and not row.found
    assert row.improvement == pytest.approx(2.5 / 3)
    assert of_scheme(analysis, "none").comparison is None
    assert (analysis.swept, analysis.seeds, analysis.cells) == (
        ("rate",),
        (0, 1, 2),
        {"completed": 9},
    )


def test_p_is_adjusted_for_the_schemes_that_are_compared():
    cells = grid({"a": {}, "b": {}, "c": {}, "d": {}}, seeds=6)
    test = (
        [0.5] * 6 + [0.6, 0.61, 0.62, 0.63, 0.64, 0.65] + [0.6, 0.4, 0.6, 0.4, 0.6, 0.4] + [0.9] * 6
    )
    outcomes = accuracies(cells, [None] * 24, test)
    outcomes[-1] = lost(outcomes[-1].cell, "failed")
    analysis = analyse(outcomes, baseline="a", task="classification")
    assert of_scheme(analysis, "b").comparison.p == 2 / 64
    assert of_scheme(analysis, "b").p == 4 / 64  # d is not compared
    assert of_scheme(analysis, "c").p == 1
    assert of_scheme(analysis, "d").p is None


def test_no_permutation_of_the_test_results_changes_the_choice():
    outcomes = example()
    rng = np.random.default_rng(0)
    whole = [o for o in outcomes if o.status == "completed"]
    chosen = [row.chosen.ids for row in analyse(outcomes, baseline="none", task="binary").schemes]
    means = set()
    for _ in range(5):
        shuffled = iter(rng.permutation([o.result["test_accuracy"] for o in whole]))
        again = [
            o
            if o.status != "completed"
            else dataclasses.replace(o, result=o.result | {"test_accuracy": next(shuffled)})
            for o in outcomes
        ]
        analysis = analyse(again, baseline="none", task="binary")
        assert [row.chosen.ids for row in analysis.schemes] == chosen
        means.add(analysis.schemes[0].chosen.test.mean)
    assert len(means) == 5


def test_ties_go_to_the_lower_nll_and_then_to_the_first():
    cells = grid({"none": {"rate": [1, 2, 3, 4]}}, seeds=2)
    # All of them have mean 0.3, but 0.1 + 0.5 is less than 0.2 + 0.4 by rounding.
    validation = [0.2, 0.4, 0.1, 0.5, 0.1, 0.5, 0.2, 0.4]
    assert np.mean([0.2, 0.4]) != np.mean([0.1, 0.5])
    for nll, expected in (([5, 5, 4, 4, 3, 4, 4, 3], 3), ([5] * 8, 1), ([None, 1, *[5] * 6], 2)):
        outcomes = [
            completed(c, validation_accuracy=v, validation_nll=n, test_accuracy=0.5)
            for c, v, n in zip(cells, validation, nll, strict=True)
        ]
        analysis = analyse(outcomes, baseline="none", task="classification")
        assert analysis.schemes[0].chosen.setting == {"rate": expected}


def test_lower_is_better_in_regression():
    cells = grid({"none": {}, "bernoulli": RATES}, seeds=2)
    values = [(2.0, 2.0), (2.0, 2.0), (1.0, 1.9), (1.0, 1.8), (3.0, 1.0), (3.0, 1.0)]
    outcomes = [
        completed(c, validation_rmse=v, test_rmse=t)
        for c, (v, t) in zip(cells, values, strict=True)
    ]
    row = of_scheme(analyse(outcomes, baseline="none", task="regression"), "bernoulli")
    assert row.chosen.setting == {"rate": 0.1}
    assert row.comparison.difference == pytest.approx(-0.15)
    assert row.improvement == 1


def test_lost_cells_are_listed_and_in_no_mean():
    cells = grid({"none": {}, "bernoulli": RATES}, seeds=4)
    outcomes = accuracies(cells, [0.9] * 4 + [0.99] * 4 + [0.8] * 4, [0.5] * 12)
    outcomes[4] = Outcome(cells[4], "failed", {"test_accuracy": 0.0}, [], "no memory")
    outcomes[5] = lost(cells[5], "missing")
    outcomes[6] = completed(cells[6], validation_accuracy=0.99, test_accuracy=None)
    analysis = analyse(outcomes, baseline="none", task="classification")
    assert [(o.outcome.cell.id, o.reason) for o in analysis.lost] == [
        ("c0004", "no memory"),
        ("c0005", "missing"),
        ("c0006", "it completed, but its test_accuracy is not finite or not there"),
    ]
    first = analysis.settings[1]
    assert first.lost == {"failed": 1, "missing": 1, "no number": 1}
    assert (first.test.n, first.test.mean, first.test_of) == (1, 0.5, {3: 0.5})
    # Better on the validation data, but not over the same seeds.
    assert of_scheme(analysis, "bernoulli").chosen.setting == {"rate": 0.3}
    assert analysis.cells == {"completed": 10, "failed": 1, "missing": 1}


def test_a_scheme_that_lost_a_cell_in_each_setting_has_no_choice():
    outcomes = classifiers(grid({"none": {}, "bernoulli": RATES}, seeds=3))
    outcomes[3] = lost(outcomes[3].cell, "diverged")
    outcomes[7] = lost(outcomes[7].cell, "diverged")
    analysis = analyse(outcomes, baseline="none", task="classification")
    row = of_scheme(analysis, "bernoulli")
    assert row.chosen is None and row.comparison is None
    assert row.why == "each of its 2 settings is without some of its seeds (2 diverged)"
    other = analyse(outcomes, baseline="bernoulli", task="classification")
    assert of_scheme(other, "none").chosen is not None
    assert of_scheme(other, "none").why == "the baseline has no chosen setting"


def test_without_validation_only_a_single_setting_is_chosen():
    cells = grid({"none": {}, "bernoulli": RATES}, seeds=2)
    outcomes = accuracies(cells, [None] * 6, [0.5] * 6)
    analysis = analyse(outcomes, baseline="none", task="classification")
    assert of_scheme(analysis, "none").chosen.setting == {"rate": None}
    assert of_scheme(analysis, "bernoulli").chosen is None
    assert "--validation" in of_scheme(analysis, "bernoulli").why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcomes": []}, "outcomes must hold"),
        ({"baseline": "nothing"}, "baseline must be one of none, bernoulli"),
        ({"task": "auto"}, "task must be one of classification, binary, regression; got 'auto'"),
        ({"level": 95}, r"level must be in \(0, 1\)"),
    ],
)
def test_what_cannot_be_analysed_is_refused(change, message):
    outcomes = classifiers(grid({"none": {}, "bernoulli": {}}, seeds=2))
    given = {"outcomes": outcomes, "baseline": "none", "task": "classification"} | change
    with pytest.raises(ValueError, match=message):
        analyse(given.pop("outcomes"), **given)


def test_a_grid_with_a_hole_or_a_strange_status_is_refused():
    outcomes = classifiers(grid({"none": {}, "bernoulli": {}}, seeds=2))
    for odd in (outcomes[:-1], [*outcomes, outcomes[-1]]):
        with pytest.raises(ValueError, match="the same seeds"):
            analyse(odd, baseline="none", task="classification")
    outcomes[0] = dataclasses.replace(outcomes[0], status="running")
    with pytest.raises(ValueError, match=r"status must be one of completed, .*'running'"):
        analyse(outcomes, baseline="none", task="classification")


def simulated(rng, cells, effect):
    """Test and validation accuracies with noise of the seed, of the run, and of 360 images."""
    of_seed = rng.normal(0, 0.01, size=10)
    outcomes = []
    for cell in cells:
        mean = 0.93 + of_seed[cell.seed] + rng.normal(0, 0.004) + effect * (cell.scheme == "b")
        validation, test = rng.binomial([144, 360], min(mean, 1.0)) / [144, 360]
        outcomes.append(completed(cell, validation_accuracy=validation, test_accuracy=test))
    return outcomes


def test_of_ablations_without_an_effect_at_most_a_twentieth_finds_one():
    """One scheme under two names, the better of three rates of each, 200 times."""
    cells = grid({"a": {"rate": [0.1, 0.3, 0.5]}, "b": {"rate": [0.1, 0.3, 0.5]}}, seeds=10)
    rng = np.random.default_rng(0)
    ps = []
    for _ in range(200):
        analysis = analyse(simulated(rng, cells, 0.0), baseline="a", task="classification")
        row = of_scheme(analysis, "b")
        ps.append(row.p)
        assert row.found == (row.p <= 0.05)
    assert np.mean(np.array(ps) <= 0.05) <= 0.05
    assert np.mean(np.array(ps) <= 0.5) > 0.35  # nor is p far too large
