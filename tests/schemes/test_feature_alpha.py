"""Facts of Klambauer et al. 2017 on whole maps: SELU's limit in all of a map, or in none of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.core.draw import deterministic, sampled
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import normal, ops
from tests.schemes.test_alpha import CONSTANTS, SATURATED
from tests.statistics import assert_mean

KEY = jax.random.key(13)


@pytest.mark.parametrize("rate", CONSTANTS)
@pytest.mark.parametrize(
    "shape, axes",
    [((30, 5, 16), (-2,)), ((30, 4, 5, 16), (-3, -2)), ((30, 16, 4, 5), (-2, -1))],
    ids=["1-D", "2-D", "channels first"],
)
def test_a_map_is_dropped_whole_and_gets_the_constants_of_the_paper(rate, shape, axes):
    x = np.linspace(-1, 3, np.prod(shape), dtype=np.float32).reshape(shape)
    y = np.asarray(ops.feature_alpha_dropout(KEY, x, rate, spatial_axes=axes))
    a, b = CONSTANTS[rate]
    dropped = np.ptp(y, axes) == 0
    assert_mean(dropped.ravel(), rate)
    # Each image and each channel on its own.
    assert (dropped != dropped[:1]).any() and (dropped != dropped[:, :1]).any()
    whole = np.broadcast_to(np.expand_dims(dropped, axes), shape)
    np.testing.assert_allclose(y, np.where(whole, a * SATURATED + b, a * x + b), atol=1e-5)


@pytest.mark.parametrize("mean, variance", [(0.0, 1.0), (1.0, 0.5)])
def test_mean_and_variance_are_kept_over_maps(mean, variance):
    x = mean + np.sqrt(variance) * normal(400, 2, 2, 50, seed=1)
    y = ops.feature_alpha_dropout(KEY, x, 0.3, mean=mean, variance=variance)
    y = np.asarray(y, np.float64).reshape(400, 4, 50).transpose(0, 2, 1).reshape(-1, 4)
    # The four values of a map share a decision: what is independent is a map.
    assert_mean(y.mean(1), mean)
    assert_mean(((y - mean) ** 2).mean(1), variance)


def test_on_a_sequence_a_feature_is_dropped_in_all_steps_and_evaluation_is_the_identity():
    site = Site("embedded", Kind.EMBED, ("time", "feature"))
    scheme, x = parse('feature_alpha(rate=0.5,at="embedded")'), jnp.zeros((7, 32))
    y = np.asarray(sampled(scheme, KEY)(x, site))
    assert (y == y[:1]).all() and len(np.unique(y)) == 2
    assert (deterministic(scheme)(x, site) == x).all()
