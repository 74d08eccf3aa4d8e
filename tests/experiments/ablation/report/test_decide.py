import math

import numpy as np
import pytest

from dropjax import compare
from experiments.ablation.report.decide import ROUND, add_seeds

SCHEMES = ["a", "b", "c"]


def world(seed: int, effects: dict[str, float], noise: float = 0.004):
    """Test accuracies of imagined runs; those of one seed have something in common."""

    def result(scheme: str, number: int) -> float:
        of = np.random.default_rng([seed, number])
        common = of.normal(0.97, 0.004)
        own = np.random.default_rng([seed, number, len(scheme), ord(scheme[0])])
        # Of 2,000 examples: differences are discrete, and often zero.
        return round(2000 * (common + effects.get(scheme, 0) + own.normal(0, noise))) / 2000

    asked: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def run(schemes, seeds):
        asked.append((tuple(schemes), tuple(seeds)))
        return {scheme: [result(scheme, n) for n in seeds] for scheme in schemes}

    return run, asked


def test_a_scheme_that_is_better_is_decided_and_gets_no_more_seeds():
    run, asked = world(0, {"a": 0.02})
    found = add_seeds(SCHEMES, "none", run, first=10, most=60)
    verdict = found[0]
    assert verdict.scheme == "a" and verdict.after > 0
    low, high = verdict.interval
    assert 0 < low < verdict.mean < high
    assert verdict.level == pytest.approx(1 - 0.05 / 3)
    seeds = [seed for schemes, seeds in asked if "a" in schemes for seed in seeds]
    assert len(seeds) == len(verdict.differences) < verdict.after + ROUND
    assert [seed for _, seeds in asked for seed in seeds] == list(range(10, 70))


def test_it_ends_when_all_are_decided():
    run, asked = world(1, dict.fromkeys(SCHEMES, -0.03))
    found = add_seeds(SCHEMES, "none", run, first=0, most=500)
    assert all(verdict.after and verdict.interval[1] < 0 for verdict in found)
    assert sum(len(seeds) for _, seeds in asked) < 40


def test_the_first_round_has_as_many_seeds_as_could_decide_anything():
    run, asked = world(2, {})
    add_seeds(SCHEMES, "none", run, first=0, most=30)
    assert len(asked[0][1]) == compare.fewest(1 - 0.05 / 3)
    assert {len(seeds) for _, seeds in asked[1:-1]} == {ROUND}
    assert sum(len(seeds) for _, seeds in asked) == 30


def test_a_run_that_did_not_complete_takes_its_pair_with_it():
    def run(schemes, seeds):
        return {
            scheme: [
                None if scheme == "a" and n == 3 else 0.9 + 0.01 * (scheme == "a") for n in seeds
            ]
            for scheme in schemes
        }

    (verdict,) = add_seeds(["a"], "none", run, first=0, most=10)
    assert verdict.lost == 1 and len(verdict.differences) == 9
    assert verdict.after > 0


def test_where_nothing_completes_nothing_is_known():
    (verdict,) = add_seeds(
        ["a"], "none", lambda s, n: {x: [None] * len(n) for x in s}, first=0, most=8
    )
    assert verdict.after == 0 and math.isnan(verdict.mean)
    assert (*verdict.interval, verdict.lost) == (-math.inf, math.inf, 8)


def test_too_few_seeds_and_no_scheme_are_refused():
    with pytest.raises(
        ValueError, match="max_seeds=6: with 3 comparisons it takes 7 seeds or more"
    ):
        add_seeds(SCHEMES, "none", world(0, {})[0], first=0, most=6)
    with pytest.raises(ValueError, match="no scheme"):
        add_seeds([], "none", world(0, {})[0], first=0, most=50)


def test_under_the_null_any_decision_is_as_rare_as_the_level_says():
    """A thousand ablations, three comparisons each that share a baseline, up to 40 seeds."""
    wrong = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        table = {
            scheme: (np.round(2000 * (0.97 + rng.normal(0, 0.004, 40))) / 2000).tolist()
            for scheme in ["none", *SCHEMES]
        }

        def run(schemes, seeds, table=table):
            return {scheme: [table[scheme][n] for n in seeds] for scheme in schemes}

        found = add_seeds(SCHEMES, "none", run, first=0, most=40)
        wrong += any(verdict.after for verdict in found)
    assert 0 < wrong <= 50


# Skewed: 0 is refuted, but not all that is below it.
STRADDLING = [0.004520001868589329, -0.1920005867053022, 5.497155322593708, -0.17864319339425697]
STRADDLING += [0.06916995094167627, 4.307026726163118, 0.08788116274848766, -0.1950506303795509]
STRADDLING += [0.9478550365893492, 1.9813306890259201, 0.9206552965319189, 9.150688228846338]


def verdict_of(differences: list[float], level: float):
    """The verdict of seeds that are added with these differences."""

    def run(schemes, seeds):
        return {
            scheme: [differences[n] if scheme == "a" else 0.0 for n in seeds] for scheme in schemes
        }

    (found,) = add_seeds(["a"], "none", run, first=0, most=len(differences), level=level)
    return found


def test_where_0_is_refuted_but_not_both_its_sides_nothing_is_decided():
    assert compare.decided(STRADDLING, level=0.8) == 12
    found = verdict_of(STRADDLING, 0.8)
    assert found.after == 0 and found.interval[0] < 0 < found.interval[1]


def test_a_verdict_its_mean_and_its_interval_say_the_same():
    rng = np.random.default_rng(3)
    many = [
        lambda n: rng.normal(0.8, 1, n),
        lambda n: rng.integers(-1, 3, n) / 360,
        lambda n: np.full(n, -0.25),
        lambda n: rng.standard_cauchy(n) + 0.7,
        # It turns after the decision, in the same round of seeds.
        lambda n: np.array([1.0] * 7 + [-30.0] * (n - 7)),
    ]
    after = []
    for i in range(40):
        found = verdict_of(many[i % len(many)](int(rng.integers(9, 25))).tolist(), 0.9)
        low, high = found.interval
        assert bool(found.after) == (low > 0 or high < 0)
        if found.after:
            assert (low > 0) == found.higher == (found.mean > 0)
            assert found.after == compare.decided(found.differences, level=0.9)
        after.append(found.after)
    assert 0 in after and len(set(after)) > 3
