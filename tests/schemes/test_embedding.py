"""Facts of Gal & Ghahramani 2016, section 4.2, and Merity et al. 2018, section 4.3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.models.layers import Embed
from dropjax.schemes import parse
from tests.compiled import jit, ones, ops

KEY = jax.random.key(13)
TOKENS = jnp.asarray([3, 1, 3, 0, 5, 3, 1, 7])
TABLE = jnp.arange(1.0, 33.0).reshape(8, 4)


def embedded(draw, tokens=TOKENS):
    return Embed(8, 4).apply({"params": {"table": TABLE}}, tokens, draw)


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


def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match=r"^w must be a table .* got shape \(3,\)"):
        dropjax.embedding_dropout(KEY, jnp.ones(3), 0.5)
