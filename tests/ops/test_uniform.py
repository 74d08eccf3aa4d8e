"""Lazy numbers are what they are called: uniform, normal or logistic, each from one word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dropjax.ops.gaussian import Normal
from dropjax.ops.logistic import Logistic
from dropjax.ops.uniform import Uniform
from tests.compiled import compiled
from tests.ops.reference import words_of
from tests.statistics import assert_mean

KEY = jax.random.key(16)
# Each with its distribution in SciPy and its first four moments.
NUMBERS = {
    Uniform: (scipy.stats.uniform(-1, 2), (0, 1 / 3, 0, 1 / 5)),
    Normal: (scipy.stats.norm, (0, 1, 0, 3)),
    Logistic: (scipy.stats.logistic, (0, np.pi**2 / 3, 0, 7 * np.pi**4 / 15)),
}
each = pytest.mark.parametrize("kind", NUMBERS)


@compiled
def values(noise):
    return noise.values()


@each
def test_numbers_have_their_distribution(kind):
    """Kolmogorov-Smirnov, the first four moments, and how heavy the tails are."""
    of, moments = NUMBERS[kind]
    numbers = np.float64(values(kind.of(KEY, (100_000,))))
    assert scipy.stats.kstest(numbers, of.cdf).pvalue > 1e-3
    for power, moment in enumerate(moments, 1):
        assert_mean(numbers**power, moment)
    for chance in (0.05, 0.003, 0.0005):
        assert_mean(np.abs(numbers) > of.isf(chance / 2), chance)


@each
def test_a_number_is_the_inverse_distribution_function_of_the_midpoint_of_its_word(kind):
    midpoint = ((words_of(KEY, (1000,)).astype(np.int64) >> 9) + 0.5) / 2**23
    found = values(kind.of(KEY, (1000,)))
    np.testing.assert_allclose(found, NUMBERS[kind][0].ppf(midpoint), rtol=1e-4, atol=1e-6)
    if kind is Uniform:
        np.testing.assert_array_equal(found, 2 * midpoint - 1)


@each
def test_the_ends_are_finite_and_opposite(kind, monkeypatch):
    """Of the least and the largest word, and of both in the middle."""
    ends = jnp.asarray([0, 2**32 - 1, 2**31 - 1, 2**31], jnp.uint32)
    for module in ("uniform", "gaussian", "logistic"):
        monkeypatch.setattr(f"dropjax.ops.{module}.words", lambda *_, **__: ends)
    low, high, below, above = np.asarray(kind.of(KEY, (4,)).values())
    least = NUMBERS[kind][0].ppf(2.0**-24)
    assert abs(low - least) < 0.01 and high == -low
    assert -1e-6 < below < 0 and above == -below


@each
def test_rows_are_the_rows_of_the_array(kind):
    @compiled
    def by_row(noise, rows):
        return jax.vmap(lambda t: noise.row(t).values())(rows), noise.row(1).row(2).values()

    whole = kind.of(KEY, (4, 6))
    rows, one = by_row(whole, np.arange(4))
    np.testing.assert_array_equal(rows, values(whole))
    assert whole.row(1).shape == (6,) and one == rows[1, 2]
    shared = kind.of(KEY, (1, 6))
    np.testing.assert_array_equal(values(shared.row(3)), values(shared)[0])


@each
def test_numbers_of_raw_and_typed_keys_agree(kind):
    raw = kind.of(jax.random.PRNGKey(16), [5])
    np.testing.assert_array_equal(values(raw), values(kind.of(KEY, (5,))))
