"""Facts of Gomez et al. 2019: only the smallest weights of each column, or units, are dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.schemes import parse
from tests.compiled import compiled, expected, jit, normal, ops
from tests.statistics import assert_mean

KEY = jax.random.key(2)
W = normal(10, 6, seed=9)


def targets(w, fraction, unit):
    """By hand: booleans, the smallest of each column, or the columns of smallest norm."""
    w, found = np.asarray(w), np.zeros(w.shape, bool)
    if unit:
        count = round(fraction * w.shape[1])
        smallest = sorted(range(w.shape[1]), key=lambda j: np.linalg.norm(w[:, j]))
        found[:, smallest[:count]] = True
        return found
    count = round(fraction * w.shape[0])
    for j in range(w.shape[1]):
        found[sorted(range(w.shape[0]), key=lambda i: abs(w[i, j]))[:count], j] = True
    return found


@pytest.mark.parametrize("target", ["weight", "unit"])
def test_at_rate_1_all_targets_and_nothing_else_are_pruned(target):
    @compiled
    def both(w, fraction):
        options = {"fraction": fraction, "target": target}
        mean = dropjax.expected.targeted_dropout(w, 1.0, **options)
        return dropjax.targeted_dropout(KEY, w, 1.0, **options), mean

    for fraction in (0.0, 0.3, 0.5, 0.75, 1.0):
        wanted = np.where(targets(W, fraction, target == "unit"), 0, W)
        for found in both(W, np.asarray(fraction, np.float32)):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("target", ["weight", "unit"])
def test_targets_are_dropped_at_the_rate_and_nothing_is_rescaled(target):

    @compiled
    @jax.vmap
    def drop(number):
        key = jax.random.key(number)
        return dropjax.targeted_dropout(key, W, 0.4, fraction=0.5, target=target)

    y, at = drop(np.arange(2000)), targets(W, 0.5, target == "unit")
    assert_mean(y == 0, np.where(at, 0.4, 0))
    kept = y != 0
    np.testing.assert_array_equal(y[kept], np.broadcast_to(W, y.shape)[kept])
    whole = (y == 0).all(1) | (y != 0).all(1)
    assert whole.all() == (target == "unit")
    assert_mean(y, expected.targeted_dropout(W, 0.4, fraction=0.5, target=target))


def test_fraction_may_be_traced():
    many = jit(lambda f: ops.targeted_dropout(KEY, W, 1.0, fraction=f))
    assert [(np.asarray(many(f)) == 0).sum() for f in (0.1, 0.5)] == [6, 30]


def test_the_mean_of_half_precision_weights_is_rounded_once():
    """bfloat16 has no 0.9 but 0.8984, which would be rounded again."""
    w = W.astype(jnp.bfloat16)
    mean = expected.targeted_dropout(w, 0.1, fraction=1.0)
    wanted = (np.float32(0.9) * np.asarray(w, np.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(mean, wanted)


def test_bad_input():
    with pytest.raises(ValueError, match="fraction"):
        parse("targeted(fraction=1.5)")
    with pytest.raises(ValueError, match="inputs and outputs"):
        dropjax.targeted_dropout(KEY, W[0], 0.5)
    with pytest.raises(ValueError, match="target must be one of weight, unit"):
        dropjax.targeted_dropout(KEY, W, 0.5, target="row")  # type: ignore[arg-type]
