"""Betting on signs: exact over all sign flips, against textbook formulas, and by simulation."""

import doctest
import itertools
import math

import numpy as np
import pytest
import scipy.stats

from dropjax import compare
from dropjax.compare import confidence_sequence, decided, evidence, fewest

NULLS = {
    "normal": lambda rng, shape: rng.normal(0, 0.004, shape),
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "signs": lambda rng, shape: rng.choice([-1.0, 1.0], shape),
    "discrete": lambda rng, shape: rng.integers(-2, 3, shape) / 360,
}


def capital(differences):
    """The bets one by one, with the conjugate update of a normal's mean and variance by name."""
    found, wealth = [], 1.0
    for i, d in enumerate(differences):
        known = differences[:i]
        # Of the i-th difference only the magnitude, which its square is.
        mean_square = sum(x * x for x in [*known, d]) / (i + 1)
        if mean_square > 0:
            kappa, alpha, beta = 0.5, 2.0, 0.5 * 2.0 * mean_square
            mean = sum(known) / i if i else 0.0
            spread = sum((x - mean) ** 2 for x in known)
            beta += spread / 2 + kappa * i * mean**2 / (2 * (kappa + i))
            location = i * mean / (kappa + i)
            kappa, alpha = kappa + i, alpha + i / 2
            scale = math.sqrt(beta * (kappa + 1) / (alpha * kappa))
            predictive = scipy.stats.t(2 * alpha, location, scale)
            wealth *= 2 * predictive.pdf(d) / (predictive.pdf(d) + predictive.pdf(-d))
        found.append(wealth)
    return found


def flips(magnitudes):
    return np.array(list(itertools.product((-1, 1), repeat=len(magnitudes)))) * magnitudes


@pytest.mark.parametrize(
    "differences",
    [
        [0.3],
        [1.0, 1.0, -2.0, 0.5, 0.0, 4.0, 3.0],
        [0.0, 0.0, -0.002, 0.005, 0.004],
        np.random.default_rng(0).normal(0.5, 1, 30).tolist(),
        np.random.default_rng(1).standard_cauchy(20).tolist(),
    ],
)
def test_evidence_is_that_of_the_bets_one_by_one(differences):
    np.testing.assert_allclose(evidence(differences), capital(differences), rtol=1e-9)


@pytest.mark.parametrize("null", NULLS)
def test_over_all_sign_flips_each_bet_is_fair(null):
    """The martingale, exactly: given the signs before, the two that may come cancel."""
    magnitudes = NULLS[null](np.random.default_rng(2), 9)
    found = np.array([evidence(row) for row in flips(magnitudes)])
    np.testing.assert_allclose(found.mean(axis=0), 1, rtol=1e-12)
    last = found[:, -1].reshape(-1, 2).mean(axis=1)  # the last sign changes fastest
    np.testing.assert_allclose(last, found[::2, -2], rtol=1e-12)


@pytest.mark.parametrize("null", NULLS)
def test_over_all_sign_flips_few_are_ever_decided(null):
    """Ville's bound, exactly, for given magnitudes."""
    magnitudes = NULLS[null](np.random.default_rng(4), 11)
    rows = flips(magnitudes)
    for level in (0.5, 0.9, 0.95):
        assert np.mean([decided(row, level=level) > 0 for row in rows]) <= 1 - level + 1e-12


@pytest.mark.parametrize("null", NULLS)
def test_three_comparisons_looked_at_after_each_seed_keep_the_level(null):
    noise = NULLS[null](np.random.default_rng(6), (1000, 3, 50))
    level = 1 - 0.05 / 3
    wrong = [any(decided(row, level=level) for row in three) for three in noise]
    assert np.mean(wrong) <= 0.05
    assert any(wrong)


def times(effect, level=0.95):
    noise = np.random.default_rng(8).normal(size=(1000, 150))
    found = np.array([decided(row, level=level) for row in noise + effect])
    return np.where(found, found, 151)


@pytest.mark.parametrize("effect, median, ninety", [(0.5, 36, 80), (1, 11, 22), (2, 7, 9)])
def test_effects_are_decided_in_the_time_that_the_docstring_says(effect, median, ninety):
    found = times(effect)
    assert np.median(found) == pytest.approx(median, abs=max(1, 0.05 * median))
    assert np.quantile(found, 0.9) == pytest.approx(ninety, abs=max(1, 0.08 * ninety))
    for number in (str(median), str(ninety)):
        assert number in decided.__doc__


def test_an_effect_of_one_and_a_half_is_decided_by_twelve_seeds():
    assert np.mean(times(1.5) <= 12) >= 0.9
    assert np.mean(times(1.5, level=1 - 0.05 / 3) <= 15) >= 0.9


def test_decided_is_the_first_time_and_is_kept():
    differences = [1.0] * 6 + [-1.0] * 10
    found = evidence(differences)
    assert decided(differences) == 6
    assert found[5] >= 20 > found[4] and found[-1] < 20
    assert decided(differences[:5]) == 0
    assert decided([-d for d in differences]) == 6


def test_no_differences_are_decided_sooner_than_the_fewest():
    for level in (0.5, 0.9, 0.95, 1 - 0.05 / 3, 0.99, 0.999):
        n = fewest(level)
        for growth in (0.5, 0.9, 1, 1.2, 2, 10):
            differences = growth ** np.arange(n + 8.0)
            assert np.all(evidence(differences) <= 2.0 ** np.arange(n + 8) * (1 + 1e-12))
            assert decided(differences[: n - 1], level=level) == 0
        assert decided(np.ones(n + 1), level=level) >= n


def test_the_fewest_by_hand_and_no_other_number_of_comparisons():
    assert [fewest(level) for level in (0.5, 0.75, 0.9, 0.95, 0.99)] == [2, 3, 5, 6, 8]
    assert fewest(0.95, comparisons=0) == 6
    for odd in (-1, 1.5):
        with pytest.raises(ValueError, match="comparisons must be an integer and at least 1"):
            fewest(0.95, comparisons=odd)


def test_neither_the_unit_nor_the_sign_matters():
    differences = np.random.default_rng(0).normal(0.4, 1, 40)
    found = evidence(differences)
    for factor in (1000, 1e-3, 1e-12, -1):
        np.testing.assert_allclose(evidence(factor * differences), found, rtol=1e-9)


def test_zeros_change_nothing_by_themselves():
    assert evidence([0.0, 0.0, 0.0]).tolist() == [1, 1, 1]
    found = evidence([0.0, 1.0, 1.0, 0.0, 0.0])
    assert found[1] == 1 and found[2] == found[3] == found[4] > 1


def test_evidence_looks_at_nothing_to_come():
    differences = np.random.default_rng(0).normal(0.4, 1, 20)
    np.testing.assert_array_equal(evidence(differences)[:12], evidence(differences[:12]))
    whole, part = confidence_sequence(differences), confidence_sequence(differences[:12])
    np.testing.assert_allclose(np.array(whole)[:, :12], part, rtol=1e-9)


@pytest.mark.parametrize("null", NULLS)
def test_the_confidence_sequence_is_what_a_dense_grid_leaves(null):
    rng = np.random.default_rng(9)
    for n in (8, 15, 25):
        x = NULLS[null](rng, n) + 0.01
        x[0] += 0.001  # all of one sign would be a point
        low, high = confidence_sequence(x, level=0.9)
        width = high[-1] - low[-1]
        grid = np.linspace(low[-1] - 2 * width, high[-1] + 2 * width, 1501)
        step = grid[1] - grid[0]
        # Values that came more than once may be left by themselves.
        left = [m for m in [*grid, *x] if not decided(x - m, level=0.9)]
        assert min(left) == pytest.approx(low[-1], abs=1.01 * step)
        assert max(left) == pytest.approx(high[-1], abs=1.01 * step)
        inside = 1e-6 * width
        assert not decided(x - (low[-1] + inside), level=0.9)
        assert decided(x - (low[-1] - inside), level=0.9)
        assert not decided(x - (high[-1] - inside), level=0.9)
        assert decided(x - (high[-1] + inside), level=0.9)


def test_the_confidence_sequence_holds_the_mean_at_all_times():
    rng = np.random.default_rng(10)
    held = []
    for i in range(200):
        noise = list(NULLS.values())[i % 4](rng, 20)
        low, high = confidence_sequence(0.3 + noise)
        held.append(np.all((low <= 0.3 + 1e-12) & (high >= 0.3 - 1e-12)))
    assert np.mean(held) >= 0.95


def test_the_confidence_sequence_never_widens_and_leaves_0_when_that_is_decided():
    for seed in range(10):
        x = np.random.default_rng(seed).normal(1.5, 1, 30)
        low, high = confidence_sequence(x)
        assert np.all(np.diff(low[np.isfinite(low)]) >= 0)
        assert np.all(np.diff(high[np.isfinite(high)]) <= 0)
        assert np.all(np.isinf(low[:5])) and np.isfinite(low[5]) and np.isfinite(high[5])
        assert np.argmax(low > 0) + 1 == decided(x)


def test_equal_differences_are_a_point_as_soon_as_can_be():
    low, high = confidence_sequence([0.25] * 8)
    assert np.all(low[:5] == -np.inf) and np.all(high[:5] == np.inf)
    np.testing.assert_allclose([low[5:], high[5:]], 0.25, rtol=1e-9)
    assert np.all(low[5:] <= 0.25) and np.all(high[5:] >= 0.25)
    low, high = confidence_sequence([0.0] * 8)
    assert low[-1] <= 0 <= high[-1] and high[-1] - low[-1] < 1e-9


def test_a_value_that_came_often_can_be_left_by_itself():
    x = np.array([-2.0, -2.0, -2.0, -2.0, 3.0, 0.0, 1.0, 2.0, 3.0])
    low, high = confidence_sequence(x, level=0.9)
    assert low[-1] == pytest.approx(-2, abs=1e-8)
    assert high[-1] == pytest.approx(2.23, abs=0.02)
    assert not decided(x + 2, level=0.9)
    assert all(decided(x - m, level=0.9) for m in np.linspace(-1.9, -1.5, 20))


def test_differences_that_move_have_no_centre():
    rng = np.random.default_rng(0)
    low, high = confidence_sequence(np.concatenate([rng.normal(0, 1, 30), rng.normal(50, 1, 60)]))
    assert np.isfinite(low[29])
    assert np.isnan(low[-1]) and np.isnan(high[-1])


def test_the_example_runs_and_all_is_there():
    failed, tried = doctest.testmod(compare)
    assert tried and not failed
    assert all(hasattr(compare, name) for name in compare.__all__)
    assert len(set(compare.__all__)) == len(compare.__all__)
