"""Facts of Ko et al. 2017: the same columns for all examples, and as many each time."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from tests.compiled import compiled, jit, ops
from tests.statistics import assert_mean

KEY = jax.random.key(18)
X = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def test_a_rounded_number_of_columns_is_kept_in_order_and_scaled():
    kept = {0.0: 5, 0.09: 5, 0.1: 4, 0.2: 4, 0.5: 2, 0.8: 1, 0.99: 1, 1.0: 0}

    @compiled
    def at_each(x):
        def both(rate):
            train, test = (
                dropjax.controlled_dropout(KEY, x, rate, scaling=s) for s in ("train", "test")
            )
            return *train, *test

        return [both(rate) for rate in kept]

    for number, (y, index, plain, same) in zip(kept.values(), at_each(X), strict=True):
        assert y.shape == (4, number) and index.dtype == jnp.int32
        assert sorted(set(index.tolist())) == index.tolist()
        np.testing.assert_allclose(y, X[:, index] * (5 / max(number, 1)), rtol=1e-6)
        np.testing.assert_array_equal(same, index)
        np.testing.assert_array_equal(plain, X[:, index])


def drawn(rate, keys=20_000):
    one = jax.vmap(lambda key: dropjax.controlled_dropout(key, X, rate)[1])
    return np.asarray(jit(one)(jax.random.split(KEY, keys)))


def test_each_set_of_columns_is_as_likely_as_any_other():
    index = drawn(0.4)
    counts = collections.Counter(map(tuple, index.tolist()))
    sets = list(itertools.combinations(range(5), 3))
    assert set(counts) == set(sets)
    for columns in sets:
        assert_mean((index == columns).all(1), 1 / len(sets))


@pytest.mark.parametrize("scaling, factor", [("train", 1.0), ("test", 0.6)])
def test_the_smaller_product_has_the_mean_of_the_whole_one(scaling, factor):
    """Over all 10 sets of 3 columns out of 5, exactly; and for dropout's own array."""

    @jit
    @jax.vmap
    def products(key):
        y, index = dropjax.controlled_dropout(key, X, 0.4, scaling=scaling)
        whole = jnp.zeros_like(X).at[:, index].set(y)
        return index, y @ jnp.asarray(W)[index], whole @ W

    index, small, whole = (np.asarray(part) for part in products(jax.random.split(KEY, 120)))
    np.testing.assert_allclose(small, whole, rtol=1e-4, atol=1e-5)
    found = dict(zip(map(tuple, index.tolist()), small.astype(np.float64), strict=True))
    assert len(found) == 10
    np.testing.assert_allclose(np.mean(list(found.values()), 0), factor * (X @ W), atol=1e-5)


def test_of_one_column_it_is_kept_below_rate_1_so_that_the_mean_is_x():
    y, index = dropjax.controlled_dropout(KEY, X[:, :1], 0.5)
    np.testing.assert_array_equal(y, X[:, :1])
    assert index.tolist() == [0]
    assert dropjax.controlled_dropout(KEY, X[:, :0], 0.5)[0].shape == (4, 0)
    assert dropjax.controlled_dropout(KEY, X[:, :1], 1.0)[0].shape == (4, 0)


def test_the_gradient_is_the_scale_at_kept_columns_and_0_elsewhere():
    @compiled
    def slopes(x, rate):
        f = functools.partial(dropjax.controlled_dropout, KEY, rate=rate)
        y, pullback, index = jax.vjp(f, x, has_aux=True)
        return pullback(jnp.ones_like(y))[0], index

    slope, index = slopes(X, 0.4)
    wanted = np.zeros_like(X)
    wanted[:, index] = 5 / 3
    np.testing.assert_allclose(slope, wanted, rtol=1e-6)
    assert (slopes(X, 1.0)[0] == 0).all()


def test_any_axis_may_hold_the_columns_and_half_precision_is_scaled_in_float32():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 9, 2)), jnp.bfloat16)
    y, index = ops.controlled_dropout(KEY, x, 0.2, axis=1)
    assert y.shape == (3, 7, 2) and y.dtype == x.dtype
    wide = x.astype(jnp.float32)[:, np.asarray(index)] * (9 / 7)
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    "arguments, named, error, match",
    [
        ((KEY, X, 0.5), {"scaling": "none"}, ValueError, "^scaling must be one of"),
    ],
)
def test_errors(arguments, named, error, match):
    with pytest.raises(error, match=match):
        dropjax.controlled_dropout(*arguments, **named)


def test_a_traced_rate_is_refused():
    with pytest.raises(TypeError, match="must not be traced"):
        jax.jit(lambda rate: dropjax.controlled_dropout(KEY, X, rate))(0.5)
