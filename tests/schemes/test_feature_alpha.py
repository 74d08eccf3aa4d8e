"""Facts of Klambauer et al. 2017 on whole maps: SELU's limit in all of a map, or in none of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.plan import check, record, rows
from dropjax.core.site import Kind, Site
from dropjax.models.cnn import CNN
from dropjax.models.mlp import MLP
from dropjax.schemes import parse
from tests.compiled import normal, ones, ops
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


def test_by_default_it_is_for_images_with_channels_last():
    x = np.arange(192.0, dtype=np.float32).reshape(2, 3, 4, 8)
    y = ops.feature_alpha_dropout(KEY, x, 0.3)
    np.testing.assert_array_equal(y, ops.feature_alpha_dropout(KEY, x, 0.3, spatial_axes=[1, 2]))
    np.testing.assert_array_equal(y, ops.alpha_dropout(KEY, x, 0.3, shared_axes=(1, 2)))


@pytest.mark.parametrize("mean, variance", [(0.0, 1.0), (1.0, 0.5)])
def test_mean_and_variance_are_kept_over_maps(mean, variance):
    x = mean + np.sqrt(variance) * normal(400, 2, 2, 50, seed=1)
    y = ops.feature_alpha_dropout(KEY, x, 0.3, mean=mean, variance=variance)
    y = np.asarray(y, np.float64).reshape(400, 4, 50).transpose(0, 2, 1).reshape(-1, 4)
    # The four values of a map share a decision: what is independent is a map.
    assert_mean(y.mean(1), mean)
    assert_mean(((y - mean) ** 2).mean(1), variance)


def test_on_the_cnn_its_noise_has_size_1_along_height_and_width():
    sites = record(lambda draw: CNN(2, (3, 5), dense=(4,)).init(KEY, ones(8, 12, 1), draw))
    scheme = parse("feature_alpha")
    check(scheme, sites)
    noise = {row["site"]: row["noise"] for row in rows(scheme, sites) if row["noise"] != "-"}
    assert noise == {"stage_0/map": "(1, 1, 3)", "stage_1/map": "(1, 1, 5)"}


def test_on_units_without_space_it_asks_for_alpha():
    sites = record(lambda draw: MLP(2, (4,)).init(KEY, ones(3), draw))
    with pytest.raises(ValueError, match=r"no site it acts on has a spatial axis.*alpha"):
        check(parse('feature_alpha(at="hidden")'), sites)


def test_on_a_sequence_a_feature_is_dropped_in_all_steps_and_evaluation_is_the_identity():
    site = Site("embedded", Kind.EMBED, ("time", "feature"))
    scheme, x = parse('feature_alpha(rate=0.5,at="embedded")'), jnp.zeros((7, 32))
    y = np.asarray(sampled(scheme, KEY)(x, site))
    assert (y == y[:1]).all() and len(np.unique(y)) == 2
    assert (deterministic(scheme)(x, site) == x).all()


@pytest.mark.parametrize(
    "arguments, named, error, match",
    [
        ((KEY, jnp.ones((2, 2, 3), jnp.int32), 0.5), {}, TypeError, "^x must be an array of"),
        ((0, jnp.ones((2, 2, 3)), 0.5), {}, TypeError, "^key must be a PRNG key"),
        ((KEY, jnp.ones((2, 2, 3)), 2), {}, ValueError, "^rate is the probability"),
        ((KEY, jnp.ones((2, 3)), 0.5), {}, ValueError, "spatial_axes names axis -3"),
        ((KEY, jnp.ones((2, 2, 3)), 0.5), {"variance": -1.0}, ValueError, "^variance must be"),
    ],
)
def test_errors(arguments, named, error, match):
    with pytest.raises(error, match=match):
        dropjax.feature_alpha_dropout(*arguments, **named)
