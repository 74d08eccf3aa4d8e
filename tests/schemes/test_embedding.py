"""Facts of Gal & Ghahramani 2016, section 4.2, and Merity et al. 2018, section 4.3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import check, record, rows
from dropjax.models.layers import Embed
from dropjax.models.mlp import MLP
from dropjax.schemes import parse
from tests.compiled import jit, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(13)
TOKENS = jnp.asarray([3, 1, 3, 0, 5, 3, 1, 7])
TABLE = jnp.arange(1.0, 33.0).reshape(8, 4)


def embedded(draw, tokens=TOKENS):
    return Embed(8, 4).apply({"params": {"table": TABLE}}, tokens, draw)


def test_rows_are_dropped_whole_and_kept_ones_scaled():
    w = np.asarray(ops.embedding_dropout(KEY, ones(20_000, 3), 0.2))
    assert (w == w[:, :1]).all() and set(np.unique(w)) == {0, np.float32(1.25)}
    assert_mean(w[:, 0] == 0, 0.2)


def test_tables_of_leading_axes_have_rows_of_their_own():
    w = np.asarray(ops.embedding_dropout(KEY, ones(2, 50, 3), 0.5))
    assert (w == w[:, :, :1]).all() and (w[0] != w[1]).any()


def test_rates_may_differ_by_token():
    """A padding token can be spared."""
    rate = jnp.asarray([[0.0], [1.0], [0.5]])
    w = ops.embedding_dropout(KEY, ones(3, 4), rate)
    assert (w[0] == 1).all() and (w[1] == 0).all()


def test_a_dropped_type_is_dropped_wherever_it_occurs():
    tokens, fates = np.asarray(TOKENS), set()
    for i in range(8):
        y = np.asarray(
            embedded(sampled(parse("embedding(rate=0.5)"), Keys.of(KEY, i, i).within(f"{i}")))
        )
        factor = y / np.asarray(TABLE)[tokens]
        assert set(np.unique(factor)) <= {0, 2} and (factor == factor[:, :1]).all()
        for token in set(tokens):
            assert len(np.unique(factor[tokens == token])) == 1
        fates.add(tuple(factor[:, 0]))
    assert len(fates) > 1


@pytest.mark.parametrize("mode", ["batch", "example"])
def test_sequences_of_a_batch_share_the_mask_by_default(mode):
    scheme = parse(f'embedding(rate=0.5,mode="{mode}")')
    one = jax.vmap(lambda i: embedded(sampled(scheme, Keys.of(KEY, i)), jnp.arange(8)))
    batch = np.asarray(jit(one)(np.arange(6)))
    assert (batch == batch[:1]).all() == (mode == "batch")
    other = embedded(sampled(scheme, Keys.of(jax.random.key(0), 0)), jnp.arange(8))
    assert (batch[0] != other).any()


def test_it_acts_on_tables_before_tokens_are_looked_up():
    sites = record(lambda draw: Embed(8, 4).init(KEY, TOKENS, draw))
    check(parse("embedding"), sites)
    table = {row["site"]: (row["shape"], row["noise"]) for row in rows(parse("embedding"), sites)}
    assert table == {"table": ("(8, 4)", "(8, 1)"), "embedded": ("(8, 4)", "-")}
    with pytest.raises(ValueError, match="acts on TABLE sites; the model declares input"):
        check(parse("embedding"), record(lambda d: MLP(2, (4,)).init(KEY, ones(3), d)))


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ((KEY, jnp.ones((3, 2), jnp.int32), 0.5), TypeError, "^w must be an array of floats"),
        ((0, jnp.ones((3, 2)), 0.5), TypeError, "^key must be a PRNG key"),
        ((KEY, jnp.ones((3, 2)), 1.5), ValueError, "^rate is the probability"),
        ((KEY, jnp.ones((3, 2)), jnp.full(2, 0.5)), ValueError, "does not broadcast"),
        ((KEY, jnp.ones(3), 0.5), ValueError, r"^w must be a table .* got shape \(3,\)"),
    ],
)
def test_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        dropjax.embedding_dropout(*arguments)
