"""Facts of Iyyer et al. 2015, section 3.1: each occurrence of a word has a chance of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import jit, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(14)


def test_each_occurrence_is_dropped_on_its_own():
    y = np.asarray(ops.word_dropout(KEY, np.full((100, 200), 7), 0.3, unknown=1))
    assert set(np.unique(y)) == {1, 7}
    assert_mean(y.ravel() == 1, 0.3)
    assert (y != y[:1]).any() and (y != y[:, :1]).any()


def test_the_token_of_a_dropped_one_and_those_that_are_never_dropped():
    tokens = jnp.asarray([[0, 5, 2, 6], [7, 0, 2, 9]])
    y = ops.word_dropout(KEY, tokens, 1.0, unknown=4, protected=[0, 2])
    assert y.tolist() == [[0, 4, 2, 4], [4, 0, 2, 4]]
    assert ops.word_dropout(KEY, tokens, 1.0, unknown=4).tolist() == [[4] * 4] * 2
    np.testing.assert_array_equal(ops.word_dropout(KEY, tokens, 0.0, unknown=4), tokens)


def test_protection_changes_no_other_token_s_fate():
    tokens = np.arange(1000) % 10
    free = np.asarray(ops.word_dropout(KEY, tokens, 0.5, unknown=-1))
    spared = np.asarray(ops.word_dropout(KEY, tokens, 0.5, unknown=-1, protected=[3]))
    where = np.asarray(tokens) == 3
    np.testing.assert_array_equal(free[~where], spared[~where])
    assert (spared[where] == 3).all() and (free[where] == -1).any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32"])
def test_the_dtype_is_kept(dtype):
    for x in (np.arange(9).astype(dtype), jnp.arange(9).astype(dtype)):
        y = ops.word_dropout(KEY, x, 0.5, unknown=100, protected=[0])
        assert (y.dtype, y.shape) == (x.dtype, x.shape)


def test_the_rate_may_be_traced_or_differ_by_token():
    y = jax.jit(lambda r: ops.word_dropout(KEY, jnp.arange(2, 8), r, unknown=1))
    assert y(1.0).tolist() == [1] * 6 and y(0.0).tolist() == [2, 3, 4, 5, 6, 7]
    by_place = ops.word_dropout(KEY, jnp.full((5, 2), 3), jnp.asarray([0.0, 1.0]), unknown=1)
    assert by_place.tolist() == [[3, 1]] * 5


@pytest.mark.parametrize("x", [jnp.ones(3), jnp.ones(3, bool), [1, 2, 3], 5])
def test_what_are_no_tokens_is_refused_with_a_hint(x):
    with pytest.raises(TypeError, match=r"^x must be an array of tokens.*shared_axes=-1"):
        dropjax.word_dropout(KEY, x, 0.5, unknown=1)


@pytest.mark.parametrize("tokens", [{"unknown": 1.5}, {"unknown": 1, "protected": [2.5]}])
def test_tokens_that_are_no_integers_are_refused(tokens):
    with pytest.raises(TypeError, match=r"^(unknown|protected) must hold integers"):
        dropjax.word_dropout(KEY, jnp.arange(3), 0.5, **tokens)


def test_the_scheme_drops_embedded_tokens_with_all_their_features():
    """Two occurrences of one type may fare differently, and so may two sequences."""
    scheme, site, x = parse("word(rate=0.5)"), SITES[Kind.EMBED], ones(16, 6)
    draws = jax.vmap(lambda i: sampled(scheme, Keys.of(KEY, i))(x, site))
    y = np.asarray(jit(draws)(np.arange(100)))
    assert (y == y[..., :1]).all() and set(np.unique(y)) == {0, 2}
    assert_mean(y[..., 0].ravel() == 0, 0.5)
    assert (y != y[:1]).any() and (y != y[:, :1]).any()
