"""Paired comparisons against brute force in whole numbers, scipy, and simulated nulls."""

import fractions
import importlib
import itertools
import math

import numpy as np
import pytest
import scipy.stats

from dropjax.compare import EXACT_UP_TO, holm, paired, smallest_p

MODULE = importlib.import_module("dropjax.compare.paired")
# Symmetric about 0: normal, without a mean, and of accuracies of 360 examples.
NULLS = {
    "normal": lambda rng, shape: rng.normal(0, 0.004, shape),
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "discrete": lambda rng, shape: rng.integers(-2, 3, shape) / 360,
}


@pytest.fixture
def without_interval(monkeypatch):
    """Many p-values, without the time that the bootstrap takes."""
    monkeypatch.setattr(MODULE, "_interval", lambda *_: (math.nan, math.nan))


def brute_force(differences):
    """The fraction of sign flips of whole numbers whose sum is as far from 0, or farther."""
    least = abs(sum(differences))
    flips = itertools.product((-1, 1), repeat=len(differences))
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in flips]
    return fractions.Fraction(sum(abs(total) >= least for total in sums), len(sums))


def counted(differences):
    """The same by dynamic programming over the sums: for more pairs than can be enumerated."""
    ways = {0: 1}
    for difference in differences:
        following = {}
        for total, count in ways.items():
            for to in (total - difference, total + difference):
                following[to] = following.get(to, 0) + count
        ways = following
    least = abs(sum(differences))
    return sum(count for total, count in ways.items() if abs(total) >= least) / 2 ** len(
        differences
    )


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_p_of_accuracies_is_that_in_whole_numbers_in_spite_of_rounding(n, without_interval):
    rng = np.random.default_rng(n)
    for _ in range(20):
        a, b = rng.integers(330, 340, (2, n))
        expected = brute_force((a - b).tolist())
        # Not exactly representable: sums that are equal come out unequal in their last bits.
        found = paired(a / 360, b / 360)
        assert found.exact
        assert found.p == pytest.approx(float(expected), rel=1e-12)
        assert paired(100 * (a / 360), 100 * (b / 360)).p == found.p


def test_p_is_that_of_scipy(without_interval):
    rng = np.random.default_rng(0)
    for n in (3, 7, 9):
        a, b = rng.normal(0.5, 1, n), rng.normal(0, 1, n)
        expected = scipy.stats.permutation_test(
            (a, b),
            lambda a, b, axis: np.mean(a - b, axis),
            permutation_type="samples",
            vectorized=True,
        )
        assert paired(a, b).p == pytest.approx(expected.pvalue, rel=1e-12)


def test_the_most_pairs_that_are_enumerated(without_interval):
    rng = np.random.default_rng(0)
    a, b = rng.integers(330, 340, (2, EXACT_UP_TO))
    found = paired(a / 360, b / 360)
    assert found.exact
    assert found.p == pytest.approx(counted((a - b).tolist()), rel=1e-12)


@pytest.mark.parametrize("n", [EXACT_UP_TO + 1, 50])
def test_p_of_many_pairs_is_a_sample_s(n, without_interval):
    rng = np.random.default_rng(n)
    for shift in (0, 1):
        a, b = rng.integers(330, 340, (2, n)) + np.array([[shift], [0]])
        expected = counted((a - b).tolist())
        found = paired(a / 360, b / 360)
        assert not found.exact
        error = math.sqrt(expected * (1 - expected) / 1e5)
        assert found.p == pytest.approx(expected, abs=4 * error + 1e-5)
        assert paired(a / 360, b / 360, seed=1).p != found.p


def test_p_of_a_sample_is_never_0(without_interval):
    assert paired(np.ones(50), np.zeros(50)).p == 1e-5


def test_one_sign_everywhere_has_the_smallest_p(without_interval):
    for n in range(1, EXACT_UP_TO + 1):
        assert paired(np.arange(1, n + 1) / 10, np.zeros(n)).p == smallest_p(n) == min(2 / 2**n, 1)


def test_zeros_count_as_they_are(without_interval):
    assert paired([0.9] * 5, [0.9] * 5).p == 1
    assert paired([0.9] * 30, [0.9] * 30).p == 1
    assert paired([0.0] * 5, [0.0] * 5).p == paired([0.0] * 30, [0.0] * 30).p == 1
    # A difference of 0 halves nothing: 2 of 8 flips of the others, each twice.
    assert paired([1.0, 2.0, 3.0, 0.0], [0.0] * 4).p == 0.25


@pytest.mark.parametrize("null", NULLS)
def test_of_all_sign_flips_no_more_have_a_small_p_than_it_says(null, without_interval):
    """The level is exact given the magnitudes, whatever they are."""
    magnitudes = NULLS[null](np.random.default_rng(3), 9)
    flips = itertools.product((-1, 1), repeat=len(magnitudes))
    ps = np.array([paired(signs * magnitudes, 0 * magnitudes).p for signs in flips])
    for p in np.unique(ps):
        assert np.mean(ps <= p) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("n", [8, 25])
def test_small_p_are_rare_under_the_null(null, n, without_interval, monkeypatch):
    monkeypatch.setattr(MODULE, "_FLIPS", 999)
    runs = 1000
    noise = NULLS[null](np.random.default_rng(5), (runs, n))
    rate = np.mean([paired(row, np.zeros(n), seed=i).p <= 0.05 for i, row in enumerate(noise)])
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert rate > 0.01


def test_a_small_effect_is_found_in_most_experiments_of_ten_seeds(without_interval):
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(100):
        # What a seed has in common is much more than what it has not.
        shared = rng.normal(0.9, 0.02, 10)
        a, b = shared + 0.005 + rng.normal(0, 0.004, 10), shared
        found += paired(a, b).p <= 0.05
    assert found >= 85


def test_the_interval_is_scipy_s():
    rng = np.random.default_rng(0)
    for n in (2, 3, 10, 30):
        a, b = rng.exponential(size=(2, n))
        expected = scipy.stats.bootstrap(
            (a - b,), np.mean, confidence_level=0.9, n_resamples=9999, method="BCa", rng=1
        ).confidence_interval
        found = paired(a, b, level=0.9, seed=4)
        # Other resamples; at n = 2 and 3 few means are possible, and the ends are among them.
        assert (found.low, found.high) == pytest.approx(
            (expected.low, expected.high), abs=0.1 * (expected.high - expected.low)
        )
        assert found.difference == pytest.approx(math.fsum(a - b) / n, rel=1e-12)
        assert found.low <= found.difference <= found.high


def test_the_interval_is_corrected_for_skew():
    """The mean of skewed differences: BCa's interval reaches farther on the long side."""
    differences = np.random.default_rng(1).exponential(size=25)
    found = paired(differences, np.zeros(25))
    resampled = np.random.default_rng(2).choice(differences, (9999, 25)).mean(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert found.low > low and found.high > high + 0.02


def test_the_interval_covers_about_as_often_as_the_docstring_says():
    rng = np.random.default_rng(0)
    for n, expected in ((5, 0.84), (20, 0.93)):
        noise = rng.normal(size=(300, n))
        found = [paired(row, np.zeros(n), seed=i) for i, row in enumerate(noise)]
        covered = np.mean([one.low <= 0 <= one.high for one in found])
        assert covered == pytest.approx(expected, abs=0.05)


def test_the_seed_decides_the_interval():
    a, b = np.random.default_rng(0).normal(size=(2, 10))
    assert paired(a, b) == paired(a, b, seed=0)
    assert paired(a, b).low != paired(a, b, seed=1).low


def test_differences_that_are_all_equal_are_their_own_interval():
    # 0.1 in decimals, four different numbers in binary.
    found = paired([0.9, 0.8, 0.7, 0.4], [0.8, 0.7, 0.6, 0.3])
    assert found.low == found.high == found.difference == pytest.approx(0.1)
    assert found.p == smallest_p(4)
    none = paired([0.9] * 3, [0.9] * 3)
    assert (none.low, none.high, none.difference, none.p) == (0, 0, 0, 1)


def test_one_pair_has_no_interval():
    found = paired([0.9], [0.8])
    assert math.isnan(found.low) and math.isnan(found.high)
    assert (found.n, found.p, found.exact, found.improvement) == (1, 1, True, 1)


def test_swapping_the_schemes_turns_the_sign():
    a, b = np.random.default_rng(0).normal(size=(2, 9))
    one, other = paired(a, b), paired(b, a)
    assert other.difference == -one.difference
    assert other.p == one.p
    assert other.improvement == pytest.approx(1 - one.improvement)


def test_ties_are_half_an_improvement():
    assert paired([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 3.0, 9.0]).improvement == 0.5
    assert paired([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 2.5, 3.0]).improvement == 0.875


def closed_test(ps):
    """Holm's by its definition: the closure of Bonferroni's tests of all intersections."""
    adjusted = []
    for i in range(len(ps)):
        subsets = [
            subset
            for size in range(1, len(ps) + 1)
            for subset in itertools.combinations(range(len(ps)), size)
            if i in subset
        ]
        adjusted.append(max(min(1, len(s) * min(ps[j] for j in s)) for s in subsets))
    return adjusted


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.02, 0.5]) == pytest.approx([0.08, 0.04, 0.06, 0.5])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.2]) == [0.2] and holm([]) == []


def test_holm_is_the_closure_of_bonferroni():
    rng = np.random.default_rng(0)
    for n in (1, 2, 4, 7):
        ps = (rng.uniform(size=n) ** 3).tolist()
        ps[-1] = ps[0]  # a tie
        assert holm(ps) == pytest.approx(closed_test(ps), rel=1e-12)


@pytest.mark.parametrize("p", [math.nan, -0.1, 1.1])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match=r"^ps must be in \[0, 1\]"):
        holm([0.5, p])


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: paired([1.0], [1.0, 2.0]), "^a and b must have a value for each.*got 1 and 2"),
        (lambda: paired([1.0, math.nan], [1.0, 2.0]), "^a must be finite, got nan at index 1"),
        (lambda: paired([1.0, 2.0], [math.inf, 2.0]), "^b must be finite, got inf at index 0"),
        (lambda: paired([], []), r"^a must be numbers \(n,\)"),
        (lambda: paired([1.0], [1.0], level=95), "^level must be above 0 and below 1"),
        (lambda: smallest_p(0), "^n must be at least 1, got 0"),
    ],
)
def test_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call()
