"""The statistical battery: dropjax passes it, and what is bad on purpose is caught."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scripts import mask_battery as battery

SIZE = 2**17


def assert_passed(found):
    assert not battery.failures(found), battery.table(found)
    for p_values in found.values():
        assert all(0 < p <= 1 for p in p_values.values())


def test_dropjax_passes():
    found = battery.run_all(battery.GENERATORS["dropjax"], SIZE, seed=1)
    assert found.keys() == battery.BATTERY.keys()
    assert_passed(found)


# What is to see it, and how many words that takes.
CAUGHT = {
    "permutation": ("collisions", "one key", 2**20),
    "lcg": ("serial", "one key", SIZE),
    "shared_tie": ("rates", "drop counts", 2 * SIZE),
    "byte": ("rates", "drop counts", SIZE),
    "shifted": ("neighbours", "keys", SIZE),
    "two_rounds": ("avalanche", "all counters", SIZE),
    "three_rounds": ("serial", "strided", 2**24),
}


def test_every_bad_generator_has_its_test():
    assert CAUGHT.keys() == battery.GENERATORS.keys() - {"dropjax", "threefry"}


@pytest.mark.parametrize("name", CAUGHT)
def test_bad_generators_are_caught(name):
    test, looked_at, size = CAUGHT[name]
    p_values = battery.BATTERY[test, looked_at](battery.GENERATORS[name], size, 0)
    assert min(p_values.values()) < 1e-12


def test_a_shift_is_seen_where_it_is():
    p_values = battery.neighbours(battery.GENERATORS["shifted"], SIZE, 0, "keys")
    assert p_values["0.5 shift 1"] == 0 < p_values["0.5 shift -1"]


@pytest.mark.parametrize("name", battery.GENERATORS)
def test_at_is_indexing_into_the_words(name):
    generator, key = battery.GENERATORS[name], jax.random.key(3)
    counters = jnp.array([[5, 0, 699], [8, 8, 100]], jnp.uint32)
    words = np.asarray(generator.words(key, (7, 100)))
    np.testing.assert_array_equal(generator.at(key, counters), words.ravel()[np.asarray(counters)])


def test_endless_words_begin_with_those_of_the_streams():
    generator = battery.GENERATORS["dropjax"]
    for name in battery.ENDLESS:
        first, second, *_ = itertools.islice(battery.endless(generator, name), 2)
        begun = battery.stream(generator, name, first.size, 0)
        np.testing.assert_array_equal(first, begun)
        assert (first != second).mean() > 0.999


def test_p_values_are_uniform():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, SIZE, np.uint32)
    assert stats.kstest(list(battery.bit_pairs(words).values()), "uniform").pvalue > 1e-3
    found = []
    for _ in range(40):
        words = rng.integers(0, 2**32, 2**15, np.uint32)
        found += [*battery.serial(words).values(), *battery.gaps(words).values()]
        lost = rng.random(2**15) < 0.1
        found += [*battery.run_lengths(lost, 0.1).values()]
        found += [battery.correlation(lost[i:], lost[:-i], 0.1) for i in (1, 2, 3)]
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_too_regular_is_as_bad_as_too_irregular():
    rng = np.random.default_rng(0)
    every_other = np.arange(SIZE) % 2 == 0
    assert max(battery.run_lengths(every_other, 0.5).values()) < 1e-12
    # Each pair of top bytes as often as any other.
    number = rng.permutation(SIZE // 2).astype(np.uint32)
    pairs = np.stack([number >> 8 << 24, number << 24], axis=1).ravel()
    assert battery.serial(pairs)["top pairs"] < 1e-12
    # Each word once, where 128 are expected to come again.
    once = rng.permutation(2**20).astype(np.uint32) << 12
    assert battery.collisions(once)["words"] < 1e-12


def test_the_table_says_what_failed():
    found = {("a", "b"): {"x": 0.5, "y": 1e-9}, ("c", "d"): {"z": 0.1}}
    assert battery.failures(found) == [("a", "b")]
    lines = battery.table(found).splitlines()
    assert lines[1].split() == ["a", "b", "2", "1.0e-09", "y", "FAILED"]
    assert lines[2].split() == ["c", "d", "1", "1.0e-01", "z", "passed"]
