"""Summaries against closed forms, and a sorted loop for the interquartile mean."""

import math
import statistics

import numpy as np
import pytest

from dropjax.compare import Summary, iqm, paired, summarise


def middle(values):
    """The mean of what is left without floor(n / 4) values at each end."""
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 11, 50])
def test_interquartile_mean_is_that_of_the_sorted_middle(n):
    values = np.random.default_rng(n).standard_cauchy(n)
    assert iqm(values) == pytest.approx(middle(values.tolist()), rel=1e-12)
    assert summarise(values).iqm == iqm(values)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("n", [6, 10, 25])
def test_the_interval_is_that_of_differences_to_0(n, level):
    values = np.random.default_rng(n).normal(0.9, 0.01, n)
    found, expected = summarise(values, level=level), paired(values, np.zeros(n), level=level)
    assert found.n == n
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-12)
    assert found.std == pytest.approx(statistics.stdev(values), rel=1e-9)
    assert (found.low, found.high) == (expected.low, expected.high)


def test_no_interval_of_accuracies_leaves_0_to_1():
    rng = np.random.default_rng(2)
    for n in (6, 8, 20):
        for shares in ([1.0] * (n - 1) + [0.2], rng.binomial(20, 0.97, n) / 20, [0.0, 1.0] * n):
            found = summarise(shares)
            assert 0 <= found.low <= found.mean <= found.high <= 1


def test_one_value_has_no_spread_and_equal_ones_none_to_speak_of():
    one = summarise([0.5])
    assert (one.n, one.mean, one.iqm) == (1, 0.5, 0.5)
    assert all(math.isnan(value) for value in (one.std, one.low, one.high))
    assert summarise([0.5] * 6) == Summary(6, 0.5, 0.0, 0.5, 0.5, 0.5)


def test_numbers_are_of_plain_python():
    found = summarise(np.float32([1, 2, 4]))
    assert type(found.n) is int
    assert {type(getattr(found, name)) for name in ("mean", "std", "low", "high", "iqm")} == {float}
