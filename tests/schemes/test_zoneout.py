"""Facts of Krueger et al. 2017."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.core.draw import deterministic, sampled
from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import expected, ones, ops
from tests.statistics import assert_mean


def test_each_unit_is_new_or_previous_unscaled():
    new, old = jnp.arange(1.0, 1001.0), -jnp.arange(1.0, 1001.0)
    h = np.asarray(ops.zoneout(jax.random.key(0), new, 0.3, previous=old))
    assert ((h == new) | (h == old)).all()
    assert_mean(h < 0, 0.3)


def test_rate_1_never_updates_and_rate_0_always():
    new, old = ones(5), jnp.zeros(5)
    assert (ops.zoneout(jax.random.key(0), new, 1.0, previous=old) == old).all()
    assert (ops.zoneout(jax.random.key(0), new, 0.0, previous=old) == new).all()


def test_the_expectation_is_not_the_identity():
    """Section 3.2: at test time h_t = z h_tm1 + (1 - z) h^_t."""
    new, old = jnp.asarray([1.0, 2.0]), jnp.asarray([3.0, -2.0])
    np.testing.assert_allclose(expected.zoneout(new, 0.25, previous=old), [1.5, 1.0], rtol=1e-6)
    assert deterministic(parse("zoneout(rate=0.25)"))(new, SITES[Kind.STATE], old).tolist() == [
        1.5,
        1.0,
    ]


def test_gradients_flow_to_whichever_was_taken():
    """Section 4: the previous state passes backwards unchanged where it was kept."""
    key, new, old = jax.random.key(0), ones(1000), jnp.zeros(1000)

    def total(new, old):
        return ops.zoneout(key, new, 0.5, previous=old).sum()

    to_new, to_old = jax.grad(total, argnums=(0, 1))(new, old)
    assert set(np.unique(to_new)) == {0.0, 1.0}
    np.testing.assert_array_equal(to_new + to_old, ones(1000))


def test_cell_and_state_take_rates_of_their_own_by_name():
    scheme = parse('zoneout(rate=0.5,at="cell")|zoneout(rate=0.05,at="state")')
    cell = SITES[Kind.STATE].__class__("layer_0/cell", Kind.STATE, ("time", "feature"))
    assert [link.wants(cell) for link in scheme.links] == [True, False]


def test_without_a_previous_state_it_says_so():
    scheme = parse("zoneout")
    for draw in (sampled(scheme, jax.random.key(0)), deterministic(scheme)):
        with pytest.raises(ValueError, match="fallback="):
            draw(ones(4, 6), SITES[Kind.STATE])
