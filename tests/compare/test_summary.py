"""Summaries against closed forms, and a sorted loop for the interquartile mean."""

import math
import statistics

import numpy as np
import pytest
import scipy.stats

from dropjax.compare import Summary, iqm, summarise


def middle(values):
    """The mean of what is left without floor(n / 4) values at each end."""
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 11, 50])
def test_interquartile_mean_is_that_of_the_sorted_middle(n):
    values = np.random.default_rng(n).standard_cauchy(n)
    assert iqm(values) == pytest.approx(middle(values.tolist()), rel=1e-12)
    assert summarise(values).iqm == iqm(values)


def test_an_outlier_does_not_move_the_interquartile_mean_of_four():
    assert iqm([4.0, 1.0, 2.0, 3.0]) == iqm([1e9, 1.0, 2.0, 3.0]) == 2.5
    assert iqm([1.0, 2.0, 9.0]) == 4.0


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_the_interval_is_student_s(n, level):
    values = np.random.default_rng(n).normal(0.9, 0.01, n)
    found = summarise(values, level=level)
    assert found.n == n
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-12)
    assert found.std == pytest.approx(statistics.stdev(values), rel=1e-9)
    expected = scipy.stats.ttest_1samp(values, 0.9).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_the_interval_of_two_values_in_closed_form():
    # With one degree of freedom Student's t is Cauchy's distribution: its quantile is a tangent.
    found = summarise([0.0, 2.0], level=0.9)
    assert found.std == pytest.approx(math.sqrt(2), rel=1e-12)
    assert found.high == pytest.approx(1 + math.tan(math.pi * 0.45), rel=1e-9)
    assert found.low == pytest.approx(1 - math.tan(math.pi * 0.45), rel=1e-9)


def test_the_interval_has_its_level():
    rng = np.random.default_rng(0)
    found = [summarise(rng.normal(1, 3, 4), level=0.8) for _ in range(1000)]
    assert sum(s.low <= 1 <= s.high for s in found) / 1000 == pytest.approx(0.8, abs=0.04)


def test_one_value_has_no_spread_and_equal_ones_none_to_speak_of():
    one = summarise([0.5])
    assert (one.n, one.mean, one.iqm) == (1, 0.5, 0.5)
    assert all(math.isnan(value) for value in (one.std, one.low, one.high))
    assert summarise([0.5] * 4) == Summary(4, 0.5, 0.0, 0.5, 0.5, 0.5)


def test_numbers_are_of_plain_python():
    found = summarise(np.float32([1, 2, 4]))
    assert type(found.n) is int
    assert {type(getattr(found, name)) for name in ("mean", "std", "low", "high", "iqm")} == {float}


@pytest.mark.parametrize(
    "values, match",
    [
        ([], r"^values must be numbers \(n,\).*got shape \(0,\)"),
        ([[1.0]], r"got shape \(1, 1\)"),
        (1.0, r"got shape \(\)"),
        ([1.0, math.nan], "^values must be finite, got nan at index 1"),
        ([math.inf], "got inf at index 0; leave out"),
    ],
)
@pytest.mark.parametrize("function", [iqm, summarise])
def test_values_that_are_refused(function, values, match):
    with pytest.raises(ValueError, match=match):
        function(values)


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan])
def test_levels_that_are_refused(level):
    with pytest.raises(ValueError, match=f"^level must be above 0 and below 1.*got {level}"):
        summarise([1.0, 2.0], level=level)
