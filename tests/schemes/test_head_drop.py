"""Facts of Zhou et al. 2020, against the enumeration of all masks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import jit, ones, ops
from tests.statistics import assert_mean

HEADS = 3


def many(rate, count=4000):
    x = ones(HEADS, 1, 1)
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    draw = jit(jax.vmap(lambda k: ops.head_drop(k, x, rate, batch_axes=())))
    return np.asarray(draw(keys)).reshape(count, HEADS)


@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_each_pattern_comes_as_often_as_it_should(rate):
    found = many(rate) > 0
    for pattern in itertools.product([False, True], repeat=HEADS):
        kept = sum(pattern)
        chance = (1 - rate) ** kept * rate ** (HEADS - kept) if kept else 0
        if kept == 1:  # this one is chosen where all were dropped
            chance += rate**HEADS / HEADS
        assert_mean((found == pattern).all(1), chance)


def test_what_is_kept_is_scaled_by_heads_over_kept():
    y = many(0.5)
    kept = (y > 0).sum(1)
    assert kept.min() == 1  # never none: the scale would be infinite
    np.testing.assert_allclose(y.sum(1), HEADS, rtol=1e-6)
    np.testing.assert_allclose(y.max(1), HEADS / kept, rtol=1e-6)


def test_the_mean_is_x_even_at_rate_1():
    for rate in (0.5, 1.0):
        assert_mean(many(rate), 1.0)


def test_a_head_is_dropped_as_a_whole_and_examples_choose_for_themselves():
    x = ones(5, HEADS, 4, 2)
    y = np.asarray(ops.head_drop(jax.random.key(0), x, 0.5, batch_axes=0))
    assert (y == y[:, :, :1, :1]).all()
    assert len({row.tobytes() for row in y[:, :, 0, 0]}) > 1
    shared = np.asarray(ops.head_drop(jax.random.key(0), x, 0.5, batch_axes=()))
    assert (shared == shared[:1]).all()


def test_on_attention_weights_too():
    site = Site("w", Kind.ATTENTION, ("head", "query", "key"))
    scheme = parse('head_drop(rate=0.5,at="w")')
    noise = scheme.sample(Keys.of(jax.random.key(1)), site, (HEADS, 4, 4))
    assert noise.shape == (HEADS, 1, 1) and noise.any()


def test_examples_may_have_rates_of_their_own_but_heads_may_not():
    """The scale supposes that all heads are kept equally often."""
    x = ones(2, HEADS, 4, 2)
    rates = jnp.asarray([0.0, 1.0]).reshape(2, 1, 1, 1)
    kept = np.asarray(ops.head_drop(jax.random.key(0), x, rates, batch_axes=0)) != 0
    assert kept[:, :, 0, 0].sum(1).tolist() == [HEADS, 1]
    with pytest.raises(ValueError, match="rate of shape"):
        rates = jnp.asarray([0.9, 0.1, 0.1]).reshape(HEADS, 1, 1)
        ops.head_drop(jax.random.key(0), x, rates, batch_axes=0)


def test_bad_input():
    x = jnp.ones((2, HEADS, 4, 2))
    with pytest.raises(ValueError, match="head_axis=1 is among batch_axes"):
        dropjax.head_drop(jax.random.key(0), x, 0.5, head_axis=1, batch_axes=(0, 1))
    site = Site("b", Kind.HEADS, ("time", "feature"))
    assert "no axis of heads" in (parse("head_drop").refuses([site]) or "")
