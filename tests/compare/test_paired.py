"""Paired comparisons against counts in whole numbers, scipy, and simulated nulls.

What intervals cover is measured in test_coverage.py.
"""

import fractions
import importlib
import itertools
import math

import numpy as np
import pytest
import scipy.stats

from dropjax.compare import (
    EXACT_UP_TO,
    confidence_sequence,
    decided,
    evidence,
    fewest,
    holm,
    iqm,
    level_of_each,
    paired,
    smallest_p,
    summarise,
)

MODULE = importlib.import_module("dropjax.compare.flips")
# Symmetric about 0: normal, without a mean, and of accuracies of 360 examples.
NULLS = {
    "normal": lambda rng, shape: rng.normal(0, 0.004, shape),
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "discrete": lambda rng, shape: rng.integers(-2, 3, shape) / 360,
}


def counted(differences):
    """The fraction of sign flips of whole numbers whose sum is as far from 0, or farther."""
    ways = {0: 1}  # to each sum so far
    for difference in differences:
        following = {}
        for total, count in ways.items():
            for to in (total - difference, total + difference):
                following[to] = following.get(to, 0) + count
        ways = following
    least = abs(sum(differences))
    extreme = sum(count for total, count in ways.items() if abs(total) >= least)
    return extreme / 2 ** len(differences)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_p_of_accuracies_is_that_in_whole_numbers_in_spite_of_rounding(n):
    rng = np.random.default_rng(n)
    for _ in range(20):
        a, b = rng.integers(330, 340, (2, n))
        expected = counted((a - b).tolist())
        # Not exactly representable: sums that are equal come out unequal in their last bits.
        found = paired(a / 360, b / 360)
        assert found.exact
        assert found.p == pytest.approx(expected, rel=1e-12)
        assert paired(100 * (a / 360), 100 * (b / 360)).p == found.p


def test_p_is_that_of_scipy():
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


def test_the_most_pairs_that_are_enumerated():
    rng = np.random.default_rng(0)
    a, b = rng.integers(330, 340, (2, EXACT_UP_TO))
    found = paired(a / 360, b / 360)
    assert found.exact
    assert found.p == pytest.approx(counted((a - b).tolist()), rel=1e-12)


@pytest.mark.parametrize("n", [EXACT_UP_TO + 1, 50])
def test_p_of_many_pairs_is_a_sample_s(n):
    rng = np.random.default_rng(n)
    for shift in (0, 1):
        a, b = rng.integers(330, 340, (2, n)) + np.array([[shift], [0]])
        expected = counted((a - b).tolist())
        found = paired(a / 360, b / 360)
        assert not found.exact
        error = math.sqrt(expected * (1 - expected) / 1e5)
        assert found.p == pytest.approx(expected, abs=4 * error + 1e-5)
        assert paired(a / 360, b / 360, seed=1).p != found.p


def test_one_sign_everywhere_has_the_smallest_p_and_a_sample_none_of_0():
    assert paired(np.ones(50), np.zeros(50)).p == 1e-5
    for n in range(1, EXACT_UP_TO + 1):
        assert paired(np.arange(1, n + 1) / 10, np.zeros(n)).p == smallest_p(n) == min(2 / 2**n, 1)


def test_zeros_count_as_they_are():
    assert paired([0.9] * 5, [0.9] * 5).p == paired([0.9] * 30, [0.9] * 30).p == 1
    # A difference of 0 halves nothing: 2 of 8 flips of the others, each twice.
    assert paired([1.0, 2.0, 3.0, 0.0], [0.0] * 4).p == 0.25


@pytest.mark.parametrize("null", NULLS)
def test_of_all_sign_flips_no_more_have_a_small_p_than_it_says(null):
    """The level is exact given the magnitudes, whatever they are."""
    magnitudes = NULLS[null](np.random.default_rng(3), 9)
    flips = itertools.product((-1, 1), repeat=len(magnitudes))
    ps = np.array([paired(signs * magnitudes, 0 * magnitudes).p for signs in flips])
    for p in np.unique(ps):
        assert np.mean(ps <= p) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("n", [8, 25])
def test_small_p_are_rare_under_the_null(null, n, monkeypatch):
    monkeypatch.setattr(MODULE, "_FLIPS", 999)
    runs = 1000
    noise = NULLS[null](np.random.default_rng(5), (runs, n))
    rate = np.mean([paired(row, np.zeros(n), seed=i).p <= 0.05 for i, row in enumerate(noise)])
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert rate > 0.01


def test_a_small_effect_is_found_in_most_experiments_of_ten_seeds():
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(100):
        # What a seed has in common is much more than what it has not.
        shared = rng.normal(0.9, 0.02, 10)
        a, b = shared + 0.005 + rng.normal(0, 0.004, 10), shared
        found += paired(a, b).p <= 0.05
    assert found >= 85


def by_bisection(differences, alpha):
    """The ends of the set of centres whose p is above alpha, by trying centres."""
    mean, reach = np.mean(differences), np.ptp(differences) + 1e-9
    ends = []
    for side in (-1, 1):
        kept, gone = mean, mean + side * reach
        for _ in range(40):
            middle = (kept + gone) / 2
            # p of a centre is computed from the definition, sign by sign.
            x = differences - middle
            signs = np.array(list(itertools.product((-1, 1), repeat=len(x))))
            least = abs(x.sum()) - 1e-12 * np.abs(x).sum()
            inside = np.mean(np.abs(signs @ x) >= least) > alpha
            kept, gone = (middle, gone) if inside else (kept, middle)
        ends.append(kept)
    return ends


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("n, level", [(3, 0.7), (6, 0.95), (7, 0.9), (8, 1 - 0.05 / 3)])
def test_the_interval_has_the_centres_that_the_test_does_not_reject(null, n, level):
    differences = NULLS[null](np.random.default_rng(n), n)
    found = paired(differences, np.zeros(n), level=level)
    expected = by_bisection(differences, 1 - level)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-7 * np.ptp(differences))
    assert found.difference == pytest.approx(math.fsum(differences) / n, rel=1e-12)
    assert found.low <= found.difference <= found.high
    # The ends are in it: they are rejected a little farther out alone.
    for end, out in ((found.low, -1e-6), (found.high, 1e-6)):
        assert paired(differences, np.full(n, end)).p > 1 - level
        assert paired(differences, np.full(n, end + out * np.ptp(differences))).p <= 1 - level


def samples(count):
    """Results of two schemes: lattices, ties, zeros, constants, tiny and huge units."""
    rng = np.random.default_rng(11)
    for i in range(count):
        n = int(rng.integers(1, 13)) if i % 20 else int(rng.integers(13, 24))
        kind = i % 8
        if kind < 4:
            wide = (1, 2, 5, 40)[kind]
            a, b = rng.integers(300, 300 + wide + 1, (2, n)) / (360, 10_000, 7)[i % 3]
            a = a + rng.integers(0, 3) / 360
        elif kind == 4:  # in units that are far from 1
            a, b = rng.normal(0.5, 1, (2, n)) * 10.0 ** rng.integers(-12, 12)
        elif kind == 5:  # equal but for rounding
            b = rng.uniform(0.1, 1, n)
            a = b + 0.1
        elif kind == 6:  # most are ties
            b = rng.uniform(size=n)
            a = b + (rng.uniform(size=n) < 0.4) * rng.normal(0.3, 1, n)
        else:
            a, b = rng.exponential(size=n), np.full(n, rng.uniform(0, 2))
        yield i, a, b


def test_an_interval_is_without_0_exactly_if_p_is_small(monkeypatch):
    """The law of one method, at the level itself and at that of one of several comparisons."""
    monkeypatch.setattr(MODULE, "_FLIPS", 1999)
    seen = set()
    for i, a, b in samples(2000):
        many = (1, 2, 3, 5)[i % 4]
        level = level_of_each(many, level=(0.95, 0.9, 0.75)[i % 3])
        alpha = (0.05, 0.1, 0.25)[i % 3]
        found = paired(a, b, level=level)
        small = min(many * found.p, 1) <= alpha
        where = f"{i}: {found}, {a - b}"
        if len(a) < fewest(level):
            assert math.isnan(found.low) and math.isnan(found.high) and not small, where
            continue
        assert (found.low > 0 or found.high < 0) == small, where
        assert found.low <= found.difference <= found.high, where
        assert found.coverage >= 1 - alpha / many - 1e-12, where
        assert (a - b).min() - 1e-9 <= found.low + 1e-9 * abs(found.low), where
        seen.add((small, len(a) > EXACT_UP_TO))
    assert len(seen) == 4


def test_an_interval_of_a_wider_level_holds_that_of_a_narrower():
    differences = np.random.default_rng(3).normal(size=12)
    ends = [paired(differences, np.zeros(12), level=x) for x in (0.5, 0.8, 0.9, 0.95, 0.99)]
    for one, other in itertools.pairwise(ends):
        assert other.low < one.low and one.high < other.high


def test_the_unit_and_a_shift_move_the_interval_along():
    a, b = np.random.default_rng(3).normal(size=(2, 9))
    one, other = paired(a, b), paired(1000 * a + 5000, 1000 * b)
    assert (other.low, other.high) == pytest.approx((1000 * one.low + 5000, 1000 * one.high + 5000))


def test_the_seed_decides_what_is_sampled_alone():
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    assert paired(a, b) == paired(a, b, seed=0)
    assert paired(a, b).low != paired(a, b, seed=1).low
    assert paired(a[:10], b[:10]) == paired(a[:10], b[:10], seed=1)


def test_a_sample_of_flips_gives_nearly_the_interval_of_all(monkeypatch):
    a, b = np.random.default_rng(4).normal(size=(2, 12))
    every = paired(a, b)
    monkeypatch.setattr(MODULE, "EXACT_UP_TO", 5)
    monkeypatch.setattr(MODULE, "_AT_A_TIME", 100_000)  # in several parts
    some = paired(a, b)
    assert (some.low, some.high, some.p) == pytest.approx(
        (every.low, every.high, every.p), abs=0.02 * (every.high - every.low)
    )


def test_differences_that_are_all_equal_are_their_own_interval():
    # 0.1 in decimals, different numbers in binary.
    found = paired([0.9, 0.8, 0.7, 0.4, 0.3, 0.6], [0.8, 0.7, 0.6, 0.3, 0.2, 0.5])
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)
    assert found.low <= found.difference <= found.high
    assert found.p == smallest_p(6)
    none = paired([0.9] * 6, [0.9] * 6)
    assert (none.low, none.high, none.difference, none.p) == (0, 0, 0, 1)


def test_fewer_pairs_than_can_be_told_apart_have_no_interval():
    for n, many in ((5, 1), (6, 2), (6, 3), (7, 4)):
        level = level_of_each(many)
        assert fewest(level) == n + 1
        few, enough = (paired(np.arange(k), np.zeros(k), level=level) for k in (n, n + 1))
        assert math.isnan(few.low) and math.isnan(few.high) and math.isnan(few.coverage)
        assert math.isfinite(enough.low) and math.isfinite(enough.high)
        assert enough.coverage >= level
    one = paired([0.9], [0.8])
    assert math.isnan(one.low) and math.isnan(one.high)
    assert (one.n, one.p, one.exact, one.improvement) == (1, 1, True, 1)


@pytest.mark.parametrize("many", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("level", [0.5, 0.75, 0.9, 0.95, 0.99, 0.999])
def test_the_fewest_seeds_are_those_whose_smallest_p_is_small_enough(level, many):
    alpha, n = fractions.Fraction(str(level)), 1
    while many * fractions.Fraction(2, 2**n) > 1 - alpha:
        n += 1
    assert fewest(level_of_each(many, level=level)) == fewest(level, comparisons=many) == n


def test_swapping_the_schemes_turns_the_sign_and_ties_are_half_an_improvement():
    a, b = np.random.default_rng(0).normal(size=(2, 9))
    one, other = paired(a, b), paired(b, a)
    assert other.difference == -one.difference and other.p == one.p
    assert other.improvement == pytest.approx(1 - one.improvement)
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


def test_holm_is_the_closure_of_bonferroni():
    rng = np.random.default_rng(0)
    for n in (1, 2, 4, 7):
        ps = (rng.uniform(size=n) ** 3).tolist()
        ps[-1] = ps[0]  # a tie
        assert holm(ps) == pytest.approx(closed_test(ps), rel=1e-12)
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: paired([1.0], [1.0, 2.0]), "^a and b must have a value for each.*got 1 and 2"),
        (lambda: smallest_p(0), "^n must be an integer and at least 1, got 0"),
        (lambda: smallest_p(2.5), "^n must be an integer and at least 1, got 2.5"),
        (lambda: level_of_each(0), "^comparisons must be an integer and at least 1, got 0"),
        (lambda: paired([[1.0], [1.0, 2.0]], [1.0]), "^a must be .*of different shapes"),
        (lambda: paired(np.ma.array([1.0, 2.0], mask=[0, 1]), [1.0, 2.0]), "^a must .*masked"),
        (lambda: paired([1.0, None], [1.0, 2.0]), "^a must be finite, got nan at index 1"),
        (lambda: holm(0.5), r"^ps must be p-values \(n,\)"),
        (lambda: holm([0.5, math.nan]), r"^ps must be in \[0, 1\]"),
        (lambda: holm([0.5, -0.1]), r"^ps must be in \[0, 1\]"),
        (lambda: holm([0.5, 1.1]), r"^ps must be in \[0, 1\]"),
    ],
)
def test_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# By what takes values, with the name that it has for them.
FUNCTIONS = {
    "paired, first": ("a", lambda values: paired(values, [1.0, 2.0])),
    "paired, second": ("b", lambda values: paired([1.0, 2.0], values)),
    "iqm": ("values", iqm),
    "summarise": ("values", summarise),
    "decided": ("differences", decided),
    "evidence": ("differences", evidence),
    "confidence_sequence": ("differences", confidence_sequence),
    "holm": ("ps", holm),
}
OF_RESULTS = [function for function in FUNCTIONS if function != "holm"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "values, match",
    [
        ({0: 0.5, 1: 0.5}, "got a dict; give its values, in the same order"),
        ({0.5, 0.25}, "got a set, which has no order"),
        ({0: 0.5, 1: 0.5}.values(), "got a value of type dict_values"),
        ("0.5", "got text"),
        (["0.5", "0.5"], "got text"),
        ([0.5, object()], "got <object object at .* at index 1"),
        ([0.5j, 0.5], "got complex128"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused_by_name(function, values, match):
    name, call = FUNCTIONS[function]
    with pytest.raises(TypeError, match=rf"^{name} must be numbers \(n,\), {match}"):
        call(values)


@pytest.mark.parametrize("function", OF_RESULTS)
def test_values_that_are_refused(function):
    name, call = FUNCTIONS[function]
    for values, match in (
        ([], r"numbers \(n,\).*got shape \(0,\)"),
        ([[1.0, 2.0]], r"numbers .*got shape \(1, 2\)"),
        (1.0, r"numbers .*got shape \(\)"),
        ([1.0, math.nan], "finite, got nan at index 1"),
        ([math.inf, 1.0], "finite, got inf at index 0; leave out"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be {match}"):
            call(values)


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan, "95 %"])
def test_levels_that_are_refused(level):
    for call in (
        fewest,
        lambda level: paired([1.0], [1.0], level=level),
        lambda level: summarise([1.0, 2.0], level=level),
        lambda level: decided([1.0], level=level),
        lambda level: confidence_sequence([1.0], level=level),
    ):
        with pytest.raises(ValueError, match=f"^level must be above 0 and below 1.*got {level!r}"):
            call(level)


def test_an_iterator_is_no_list_but_to_holm():
    assert holm(x for x in (0.5, 0.25)) == holm([0.5, 0.25])
    for function in OF_RESULTS:
        name, call = FUNCTIONS[function]
        with pytest.raises(TypeError, match=rf"^{name} must .*got a generator; make a list of it"):
            call(x for x in (0.5, 0.25))
