"""Facts of Tompson et al. 2015, section 3.2: whole feature maps are dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.plan import check, record, rows
from dropjax.core.site import Kind, Site
from dropjax.models.cnn import CNN
from dropjax.models.mlp import MLP
from dropjax.schemes import parse
from tests.compiled import ops
from tests.statistics import assert_mean

KEY = jax.random.key(9)


@pytest.mark.parametrize(
    "shape, axes",
    [
        ((3, 5, 16), (-2,)),
        ((3, 4, 5, 16), (-3, -2)),
        ((3, 2, 4, 5, 16), (-4, -3, -2)),
        ((3, 16, 4, 5), (-2, -1)),
    ],
    ids=["1-D", "2-D", "3-D", "channels first"],
)
def test_maps_are_dropped_whole_and_each_image_and_channel_on_its_own(shape, axes):
    y = np.asarray(ops.spatial_dropout(KEY, np.ones(shape, np.float32), 0.5, spatial_axes=axes))
    decisions = y.min(axes)
    assert (y == np.expand_dims(decisions, axes)).all()
    assert set(np.unique(decisions)) == {0, 2}
    assert decisions.shape == (3, 16)
    assert (decisions[:1] != decisions).any(1).tolist() == [False, True, True]


def test_by_default_it_is_for_images_with_channels_last():
    x = np.arange(192.0, dtype=np.float32).reshape(2, 3, 4, 8)
    y = ops.spatial_dropout(KEY, x, 0.3)
    np.testing.assert_array_equal(y, ops.spatial_dropout(KEY, x, 0.3, spatial_axes=[1, 2]))
    np.testing.assert_array_equal(y, ops.dropout(KEY, x, 0.3, shared_axes=(1, 2)))


def test_the_rate_is_that_of_maps():
    y = np.asarray(ops.spatial_dropout(KEY, np.ones((200, 2, 2, 100), np.float32), 0.2))
    assert_mean(y[:, 0, 0].ravel() == 0, 0.2)
    assert set(np.unique(y)) == {0, np.float32(1.25)}


def test_on_the_cnn_its_noise_has_size_1_along_height_and_width():
    sites = record(
        lambda draw: CNN(2, (3, 5), dense=(4,)).init(KEY, np.ones((8, 12, 1), np.float32), draw)
    )
    scheme = parse("spatial")
    check(scheme, sites)
    noise = {row["site"]: row["noise"] for row in rows(scheme, sites) if row["noise"] != "-"}
    assert noise == {"stage_0/map": "(1, 1, 3)", "stage_1/map": "(1, 1, 5)"}


def test_on_a_sequence_a_feature_is_dropped_in_all_steps():
    site = Site("embedded", Kind.EMBED, ("time", "feature"))
    y = np.asarray(
        sampled(parse('spatial(rate=0.5,at="embedded")'), KEY)(np.ones((7, 32), np.float32), site)
    )
    assert (y == y[:1]).all() and set(np.unique(y)) == {0, 2}


def test_on_units_without_space_it_asks_for_bernoulli():
    sites = record(lambda draw: MLP(2, (4,)).init(KEY, np.ones(3, np.float32), draw))
    with pytest.raises(ValueError, match=r"no site it acts on has a spatial axis.*bernoulli"):
        check(parse('spatial(at="hidden")'), sites)


@pytest.mark.parametrize(
    "arguments, axes, error, match",
    [
        ((KEY, jnp.ones((2, 2, 3), jnp.int32), 0.5), (-3, -2), TypeError, "^x must be an array of"),
        ((0, jnp.ones((2, 2, 3)), 0.5), (-3, -2), TypeError, "^key must be a PRNG key"),
        ((KEY, jnp.ones((2, 2, 3)), 2), (-3, -2), ValueError, "^rate is the probability"),
        ((KEY, jnp.ones((2, 2, 3)), jnp.full((2, 1, 1), 0.5)), 0, ValueError, "not broadcast"),
        ((KEY, jnp.ones((2, 3)), 0.5), (-3, -2), ValueError, "spatial_axes names axis -3"),
        ((KEY, jnp.ones((2, 3)), 0.5), (-2, 0), ValueError, "spatial_axes names an axis twice"),
    ],
)
def test_errors(arguments, axes, error, match):
    with pytest.raises(error, match=match):
        dropjax.spatial_dropout(*arguments, spatial_axes=axes)


@pytest.mark.parametrize("axes", [(2,), (2, 3), (2, 3, 4)])
def test_maps_are_kept_and_scaled_as_by_torch(axes):
    """`Dropout1d`, `Dropout2d` and `Dropout3d`: channels first, one decision for each of them."""
    torch = pytest.importorskip("torch")
    shape = (100, 40, *(3, 4, 2)[: len(axes)])
    torch.manual_seed(0)
    theirs = getattr(torch.nn, f"Dropout{len(axes)}d")(0.3)(torch.ones(shape)).numpy()
    ours = np.asarray(ops.spatial_dropout(KEY, np.ones(shape, np.float32), 0.3, spatial_axes=axes))
    for y in (theirs, ours):
        first = y.reshape(*shape[:2], -1)[..., :1]
        assert (y.reshape(*shape[:2], -1) == first).all()
        np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
        assert_mean(first.ravel() == 0, 0.3)
