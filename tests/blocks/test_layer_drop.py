"""Facts of Fan et al. 2020, section 3.2: a layer is there or not, and nothing is rescaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.blocks import layer_drop
from tests.compiled import compiled
from tests.statistics import assert_mean

KEY = jax.random.key(5)
X = np.float32([1.0, -2.0])


def twice(x):
    return 2 * x


def test_a_layer_is_skipped_with_the_rate_and_nothing_is_rescaled():
    drop = jax.vmap(lambda key: layer_drop(key, twice, X, 0.2))
    y = compiled(lambda: drop(jax.random.split(KEY, 20_000)))()
    kept = (y == 2 * X).all(axis=1)
    assert ((y == X).all(axis=1) ^ kept).all()
    assert_mean(kept, 0.8)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_0_and_1_and_gradients(rate):
    factor = 2 if rate == 0 else 1

    def f(x, rate):
        return layer_drop(KEY, twice, x, rate).sum()

    value, slopes = compiled(jax.value_and_grad(f, (0, 1)))(X, np.asarray(rate, np.float32))
    assert value == factor * X.sum()
    assert (slopes[0] == factor).all() and slopes[1] == 0
    value, slopes = compiled(jax.value_and_grad(lambda x: f(x, rate)))(X)  # a fixed rate
    assert value == factor * X.sum() and (slopes == factor).all()


def test_a_skipped_layer_is_not_computed():
    seen = []

    def f(x):
        jax.debug.callback(lambda: seen.append(None))
        return 2 * x

    run = jax.jit(lambda key: layer_drop(key, f, X, 0.5))
    outputs = [np.asarray(run(jax.random.key(i))) for i in range(20)]
    jax.effects_barrier()
    kept = sum(bool((y == 2 * X).all()) for y in outputs)
    assert 0 < kept < 20
    assert len(seen) == kept


def test_trees():
    x = {"a": jnp.ones(2), "b": jnp.zeros((), jnp.int32)}
    y = layer_drop(KEY, lambda t: {"a": t["a"] + 1, "b": t["b"] + 1}, x, 0.0)
    assert y["a"].tolist() == [2, 2] and y["b"] == 1


@pytest.mark.parametrize(
    "key, f, rate, error, match",
    [
        (0, twice, 0.5, TypeError, "^key must be a PRNG key"),
        (KEY, twice, 1.5, ValueError, "^rate is the probability"),
        (KEY, twice, jnp.full(2, 0.5), ValueError, "does not broadcast"),
        (KEY, jnp.sum, 0.5, ValueError, r"like x, float32\[2\]; it gives float32\[\]"),
        (KEY, lambda x: (x, x), 0.5, ValueError, "f must return what is like x"),
        (KEY, lambda x: x > 0, 0.5, ValueError, r"it gives bool\[2\]"),
    ],
)
def test_errors(key, f, rate, error, match):
    with pytest.raises(error, match=match):
        layer_drop(key, f, X, rate)
