"""Facts of Liu et al. 2022: as many tokens as the rate says, any as likely as another."""

import dataclasses
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse, patch
from tests.compiled import compiled, jit, ones, ops, outputs_of
from tests.models.test_transformer import IMAGE, TOKENS, by_hand, model, params_of, patches
from tests.ops.reference import words_of
from tests.statistics import assert_mean

KEY = jax.random.key(41)
MANY = 20_000


def kept(shape, rate=0.5, **options):
    """The positions that one key keeps, compiled."""
    f = jit(lambda x: dropjax.patch_dropout(KEY, x, rate, **options)[1])
    return np.asarray(f(ones(*shape)))


@pytest.mark.parametrize("rate", ["0", "0.07", "0.1", "0.3", "0.5", "0.7", "0.9", "0.99", "1"])
def test_the_number_kept_is_the_floor_in_exact_arithmetic_and_at_least_1(rate):
    """In floating point 20 (1 - 0.9) is less than 2, and would keep one token."""
    for tokens in (1, 2, 10, 20, 30, 100, 196, 4096):
        wanted = max(1, math.floor(tokens * (1 - Fraction(rate))))
        for number in (float(rate), np.float32(rate), jnp.float32(rate)):
            assert patch._count(number, tokens) == wanted
    assert patch._count(float(rate), 0) == 0
    of = jnp.ones((3, 21, 2))
    y, index = jax.eval_shape(lambda: dropjax.patch_dropout(KEY, of, float(rate)))
    wanted = 1 + max(1, math.floor(20 * (1 - Fraction(rate))))
    assert y.shape == (3, wanted, 2) and index.shape == (3, wanted)


def test_every_set_of_tokens_is_as_likely_as_another():
    index = kept((MANY, 6, 1), 0.5, prefix=1)[:, 1:]
    sets = list(itertools.combinations(range(1, 6), 2))
    assert {tuple(row) for row in index} == set(sets)
    for one in sets:
        assert_mean((index == one).all(1), 1 / len(sets))


def test_every_order_is_as_likely_as_another_if_it_is_left_open():
    index = kept((MANY, 5, 1), 0.5, prefix=1, ordered=False)[:, 1:]
    pairs = list(itertools.permutations(range(1, 5), 2))
    for pair in pairs:
        assert_mean((index == pair).all(1), 1 / len(pairs))
    ordered = kept((MANY, 5, 1), 0.5, prefix=1)[:, 1:]
    np.testing.assert_array_equal(np.sort(index, 1), ordered)


def test_the_tokens_kept_are_those_of_the_least_words():
    index = kept((2, 3, 9, 1), 0.4, prefix=2)
    least = np.argsort(words_of(KEY, (2, 3, 7)), -1)[..., :4]
    np.testing.assert_array_equal(index[..., 2:], np.sort(least, -1) + 2)


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("ordered", [True, False])
def test_the_prefix_comes_first_and_nothing_is_scaled(prefix, ordered):
    x = np.random.default_rng(0).uniform(1, 2, (4, 11, 3)).astype(np.float32)
    y, index = ops.patch_dropout(KEY, x, 0.6, prefix=prefix, ordered=ordered)
    assert index.dtype == jnp.int32
    y, index = np.asarray(y), np.asarray(index)
    assert (index[:, :prefix] == np.arange(prefix)).all()
    for row, positions, tokens in zip(y, index, x, strict=True):
        np.testing.assert_array_equal(row, tokens[positions])
        assert len(set(positions)) == len(positions)
        assert ordered is False or (np.diff(positions) > 0).all()
    assert len(np.unique(np.sort(index, 1), axis=0)) > 1  # a choice for each example


def test_the_positions_gather_encodings_too():
    """Encodings that are gathered after are those that were added before."""
    x, encoding = np.random.default_rng(1).uniform(1, 2, (2, 5, 8, 3)).astype(np.float32)
    y, index = ops.patch_dropout(KEY, x, 0.5, ordered=False)
    after = y + np.take_along_axis(encoding, index[..., None], -2)
    np.testing.assert_array_equal(
        after, ops.patch_dropout(KEY, x + encoding, 0.5, ordered=False)[0]
    )


@pytest.mark.parametrize("ordered", [True, False])
def test_rate_0_is_the_identity_and_rate_1_keeps_one_token(ordered):
    x = np.random.default_rng(2).uniform(1, 2, (3, 6, 2)).astype(np.float32)
    y, index = ops.patch_dropout(KEY, x, 0.0, ordered=ordered)
    np.testing.assert_array_equal(y, x)
    assert index.tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    assert ops.patch_dropout(KEY, x, 1.0, ordered=ordered)[0].shape == (3, 2, 2)
    only, index = ops.patch_dropout(KEY, x[:, :1], 0.5, ordered=ordered)
    np.testing.assert_array_equal(only, x[:, :1])
    assert index.shape == (3, 1)


def test_gradients_are_1_for_tokens_kept_and_0_for_others_and_the_dtype_is_kept():
    x = np.ones((3, 9, 2), jnp.bfloat16)

    @compiled
    def value_and_slopes(x):
        y, pullback, index = jax.vjp(lambda x: dropjax.patch_dropout(KEY, x, 0.5), x, has_aux=True)
        return y, index, pullback(jnp.ones_like(y))[0]

    y, index, gradient = value_and_slopes(x)
    assert y.dtype == x.dtype
    mask = np.zeros((3, 9, 1))
    np.put_along_axis(mask, np.asarray(index)[..., None], 1, 1)
    np.testing.assert_array_equal(gradient, np.broadcast_to(mask, x.shape))


def test_a_map_over_keys_is_a_loop():
    keys, x = jax.random.split(KEY, 5), np.arange(70, dtype=np.float32).reshape(5, 7, 2)
    mapped, _ = compiled(jax.vmap(lambda key, x: dropjax.patch_dropout(key, x, 0.5)))(keys, x)
    for key, row, y in zip(keys, x, mapped, strict=True):
        np.testing.assert_array_equal(y, ops.patch_dropout(key, row, 0.5)[0])


X = jnp.ones((4, 3))


@pytest.mark.parametrize(
    "arguments, options, error, match",
    [
        ((KEY, X[0], 0.5), {}, ValueError, r"^x must be \(..., tokens, features\), got shape"),
        ((KEY, X, 0.5), {"prefix": -1}, ValueError, "^prefix must be .* got -1"),
        ((KEY, X, 0.5), {"prefix": True}, ValueError, "^prefix must be"),
        ((KEY, X, 0.5), {"ordered": "no"}, TypeError, "^ordered must be True or False, got 'no'"),
        ((KEY, X, 0.5), {"prefix": 5}, ValueError, "^prefix=5 is more than the 4 tokens of x"),
    ],
)
def test_errors(arguments, options, error, match):
    with pytest.raises(error, match=match):
        dropjax.patch_dropout(*arguments, **options)


def test_a_traced_rate_is_refused_with_a_reason():
    with pytest.raises(TypeError, match=r"^rate must be a Python number: it decides how many"):
        jax.jit(lambda rate: dropjax.patch_dropout(KEY, X, rate))(0.5)


# The scheme.


def test_a_transformer_sees_the_tokens_that_are_kept_and_no_others():
    for pooling in ("mean", "token"):
        module = model(pooling=pooling)
        params = params_of(module, IMAGE)
        draw = sampled(parse("patch(rate=0.5)"), jax.random.key(3))
        (kept,) = draw.noise(Site("tokens", Kind.TOKENS, ("time", "feature")), (TOKENS, 6))
        assert kept.shape == (3,)
        wanted = by_hand(params, patches(IMAGE), keep=np.asarray(kept), token=pooling == "token")
        y = outputs_of(module, {"params": params}, IMAGE, draw)
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)


def test_a_rate_that_decides_shapes_takes_no_strength():
    scheme = parse("patch(rate=0.25)")
    assert scheme.scaled(0.5) == scheme and not jax.tree.leaves(scheme)
    with pytest.raises(ValueError, match=r"rate is the probability of dropping, in \[0, 1\]"):
        parse("patch(rate=1.5)")
    with pytest.raises(TypeError, match="not traced"):
        jit(lambda rate: dataclasses.replace(scheme, rate=rate).rate)(0.5)
