"""Facts of Srivastava et al. 2014."""

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core.draw import deterministic, sampled
from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import normal, ops
from tests.statistics import assert_mean


def test_by_name_alone_it_leaves_the_input_be():
    assert parse("bernoulli").wants(SITES[Kind.HIDDEN])
    assert not parse("bernoulli").wants(SITES[Kind.INPUT])
    assert parse('bernoulli(at="input")').wants(SITES[Kind.INPUT])


def test_the_two_scalings_are_equal_after_rescaling_the_weights():
    """Section 10: dividing by the keep probability in training, or multiplying at test time.

    A layer trained with scaling="test" computes the same with its weights multiplied by q.
    """
    key, x = jax.random.key(0), normal(16, seed=1)
    w, q = normal(16, 3, seed=2), 0.7
    train, test = (parse(f'bernoulli(rate=0.3,scaling="{s}")') for s in ("train", "test"))
    site = SITES[Kind.HIDDEN]
    for make in (lambda scheme: sampled(scheme, key), deterministic):
        np.testing.assert_allclose(
            make(test)(x, site) @ w, make(train)(x, site) @ (w * q), rtol=1e-5, atol=1e-6
        )


def test_values_are_0_or_scaled_and_their_variance_is_the_paper_s():
    """Var[x m / q] = x^2 p / q."""
    rate = 0.2
    y = np.asarray(ops.dropout(jax.random.key(0), jnp.full(100_000, 3.0), rate))
    assert set(np.unique(y)) == {np.float32(0), np.float32(3.0 / 0.8)}
    assert_mean((y - 3.0) ** 2, 9 * rate / (1 - rate))
