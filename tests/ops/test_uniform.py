"""Lazy uniform numbers are what they are called."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from dropjax.ops.gaussian import symmetric
from dropjax.ops.uniform import Uniform
from tests.ops.reference import words_of
from tests.statistics import assert_mean

KEY = jax.random.key(16)


@jax.jit
def values(noise):
    return noise.values()


def test_numbers_are_uniform_between_minus_1_and_1():
    numbers = np.asarray(values(Uniform.of(KEY, (100_000,))), np.float64)
    assert scipy.stats.kstest(numbers, "uniform", (-1, 2)).pvalue > 1e-3
    for power, moment in [(1, 0), (2, 1 / 3), (3, 0), (4, 1 / 5)]:
        assert_mean(numbers**power, moment)


def test_a_number_is_the_midpoint_of_its_word():
    midpoint = ((words_of(KEY, (1000,)).astype(np.int64) >> 9) + 0.5) / 2**23
    np.testing.assert_array_equal(values(Uniform.of(KEY, (1000,))), 2 * midpoint - 1)


def test_the_ends_are_opposite_and_short_of_1():
    low, high, below, above = np.asarray(
        symmetric(jnp.asarray([0, 2**32 - 1, 2**31 - 1, 2**31], jnp.uint32))
    )
    assert -1 < low == -high and 0 < above == -below


def test_rows_are_the_rows_of_the_array():
    whole = Uniform.of(KEY, (4, 6))
    rows = jax.jit(jax.vmap(lambda t: values(whole.row(t))))(np.arange(4))
    np.testing.assert_array_equal(rows, values(whole))
    np.testing.assert_array_equal(values(Uniform.of(KEY, (1, 6)).row(3)), rows[0])
