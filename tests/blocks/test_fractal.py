"""Facts of Larsson et al. 2017, section 3: one survives, and all joins agree on a column."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax import blocks
from tests.compiled import compiled, normal
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(3)
fractal_join = compiled(blocks.fractal_join)
MANY = 20_000
# Powers of two: each mean of a subset says which subset it is the mean of.
XS = np.float32([[1.0], [2.0], [4.0]])
SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(range(3), n)]
MEANS = {float(np.mean(XS[list(s)], dtype=np.float32)): s for s in SUBSETS}


def survivors(rate, **options):
    xs = np.repeat(XS, MANY, axis=1)
    y = np.asarray(fractal_join(KEY, xs, rate, batch_axes=1, **options))
    values, counts = np.unique(y, return_counts=True)
    by_value = {round(mean, 5): s for mean, s in MEANS.items()}
    assert len(by_value) == len(SUBSETS)
    found = {by_value[round(float(v), 5)]: c for v, c in zip(values, counts, strict=True)}
    return y, {s: found.get(s, 0) / MANY for s in SUBSETS}


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
def test_local_drops_each_with_the_rate_and_spares_one_if_none_is_left(rate):
    """The probability of each set of survivors, by enumeration."""
    y, found = survivors(rate)
    for s in SUBSETS:
        wanted = (1 - rate) ** len(s) * rate ** (3 - len(s)) + (len(s) == 1) * rate**3 / 3
        assert abs(found[s] - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / MANY), (s, wanted)
    assert_mean(y, XS.mean())


def test_rates_0_and_1_and_their_gradients():
    xs = normal(3, 4, 5)

    @compiled
    def value_and_slopes(xs, rate):
        y, pullback = jax.vjp(lambda xs: fractal_join(KEY, xs, rate, batch_axes=1), xs)
        return y, pullback(jnp.ones_like(y))[0]

    for rate in (0.0, 1.0):
        y, gradient = value_and_slopes(xs, np.asarray(rate, np.float32))
        np.testing.assert_allclose(gradient.sum(axis=0), 1, rtol=1e-6)
        if rate == 0:
            np.testing.assert_allclose(y, xs.mean(axis=0), rtol=1e-6)
            np.testing.assert_allclose(gradient, 1 / 3, rtol=1e-6)
        else:  # one column an example, exactly
            assert set(np.unique(gradient)) == {0, 1}
            assert (np.asarray(gradient) == np.asarray(gradient)[..., :1]).all()
            assert ((np.asarray(y) == np.asarray(xs)).all(axis=-1).sum(axis=0) == 1).all()


def test_what_is_dropped_has_no_part_even_if_it_is_not_finite():
    xs = np.float32([[1.0] * 64, [np.nan] * 64])

    @compiled
    @jax.grad
    def slopes(xs):
        return jnp.nansum(fractal_join(KEY, xs, 0.5, batch_axes=1))

    y = fractal_join(KEY, xs, 0.5, batch_axes=1)
    assert (y == 1).any() and np.isnan(y).any()
    assert np.isfinite(slopes(xs)).all()


def test_global_keeps_one_column_for_all_joins_of_a_network():
    """Joins of two and of three columns, of different widths, agree on the column of an example."""
    xs = np.arange(3, dtype=np.float32)[:, None, None] + np.zeros((3, MANY, 2), np.float32)
    last = np.asarray(fractal_join(KEY, xs, None, batch_axes=1, mode="global"))
    within = np.asarray(
        fractal_join(KEY, xs[:2, :, :1], None, batch_axes=1, mode="global", columns=3)
    )
    assert (last == last[:, :1]).all()
    for column in range(3):
        assert_mean(last[:, 0] == column, 1 / 3)
    reached = last[:, 0] < 2
    np.testing.assert_array_equal(within[reached, 0], last[reached, 0])
    assert (within[~reached] == 1).all()
    other = fractal_join(jax.random.key(4), xs, None, batch_axes=1, mode="global")
    assert (np.asarray(other) != last).any()


def test_one_decision_for_all_or_one_for_each_key():
    xs = np.repeat(XS, 50, axis=1)
    assert len(np.unique(fractal_join(KEY, xs, 0.5, batch_axes=()))) == 1

    @compiled
    def by_key(xs):
        one = jax.vmap(lambda key, x: fractal_join(key, x, 0.5, batch_axes=()), in_axes=(0, 1))
        return one(jax.random.split(KEY, 50), xs)

    assert len(np.unique(by_key(xs))) > 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_means_are_taken_in_float32(dtype):
    xs = jnp.asarray([[1.0], [2.0], [2.0]], dtype)
    y = blocks.fractal_join(KEY, xs, 0.0, batch_axes=())
    assert y.dtype == dtype and y[0] == jnp.asarray(5 / 3, dtype)


def test_rates_may_differ_by_example():
    xs = np.repeat(XS, 100, axis=1)
    rate = np.float32(np.where(np.arange(100) < 50, 0.0, 0.9))
    y = np.asarray(fractal_join(KEY, xs, rate, batch_axes=1))
    np.testing.assert_allclose(y[:50], XS.mean(), rtol=1e-6)
    assert len(np.unique(y[50:])) > 2


@pytest.mark.parametrize(
    "xs, rate, options, error, match",
    [
        (jnp.ones((2, 3), jnp.int32), 0.5, {}, TypeError, "^xs must be an array of floats"),
        (jnp.ones((0, 3)), 0.5, {}, ValueError, "at least one column"),
        (jnp.ones((2, 3)), 1.5, {}, ValueError, "^rate is the probability"),
        (jnp.ones((2, 3)), jnp.full((2, 3), 0.5), {}, ValueError, "does not broadcast"),
        (jnp.ones((2, 3)), None, {}, ValueError, "needs a rate"),
        (jnp.ones((2, 3)), 0.5, {"mode": "global"}, ValueError, "has no rate; got rate=0.5"),
        (jnp.ones((2, 3)), 0.5, {"mode": "both"}, ValueError, "mode must be one of local, global"),
        (jnp.ones((2, 3)), 0.5, {"columns": 3}, ValueError, "columns=3 is for"),
        (jnp.ones((2, 3)), 0.5, {"batch_axes": 0}, ValueError, "that of the columns"),
    ],
)
def test_errors(xs, rate, options, error, match):
    with pytest.raises(error, match=match):
        fractal_join(KEY, xs, rate, **{"batch_axes": 1} | options)


def test_a_wrong_number_of_columns():
    for columns, error, match in ((2.5, TypeError, "^columns must be a"), (1, ValueError, "has 2")):
        with pytest.raises(error, match=match):
            fractal_join(KEY, jnp.ones((2, 3)), None, batch_axes=1, mode="global", columns=columns)


@pytest.mark.parametrize("options", [{"rate": 0.3}, {"rate": None, "mode": "global"}])
def test_the_backward_pass_keeps_a_byte_a_column_and_example(options):
    xs = np.ones((3, 8, 64, 16), np.float32)
    kept = bytes_kept(lambda xs: fractal_join(KEY, xs, batch_axes=1, **options), xs)
    assert kept <= 3 * 8 + 8
