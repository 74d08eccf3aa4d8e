"""Facts of Merity et al. 2018: hidden-to-hidden weights, one mask for all steps and the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.site import Kind, Site
from dropjax.models.layers import Recurrent
from dropjax.nn.recurrent import CELLS
from dropjax.schemes import parse
from tests.compiled import jit, keep_of, ones
from tests.nn.test_recurrent import WIDTH, random_params
from tests.statistics import assert_mean

KEY = jax.random.key(12)
TREE = {
    "layer_0": {"kernel": jnp.ones((3, 8)), "recurrent_kernel": jnp.ones((16, 8))},
    "layer_1": [{"recurrent_kernel": jnp.ones((16, 8))}, jnp.ones(2)],
    "step": 3,
}


def test_only_matching_weights_are_dropped_each_with_a_mask_of_its_own():
    dropped = dropjax.weight_drop(KEY, TREE, 0.5, match="recurrent")
    assert jax.tree.structure(dropped) == jax.tree.structure(TREE)
    assert dropped["layer_0"]["kernel"] is TREE["layer_0"]["kernel"]
    assert dropped["layer_1"][1] is TREE["layer_1"][1] and dropped["step"] == 3
    first = dropped["layer_0"]["recurrent_kernel"]
    second = dropped["layer_1"][0]["recurrent_kernel"]
    assert set(np.unique(first)) == set(np.unique(second)) == {0, 2}
    assert (first != second).any()


def test_match_is_a_regular_expression_over_whole_paths():
    dropped = dropjax.weight_drop(KEY, TREE, 1.0, match=r"^layer_1/0/rec.*kernel$")
    assert (dropped["layer_0"]["recurrent_kernel"] == 1).all()
    assert (dropped["layer_1"][0]["recurrent_kernel"] == 0).all()
    assert (dropjax.weight_drop(KEY, ones(9), 1.0, match="") == 0).all()


def test_a_mask_depends_on_the_path_and_not_on_the_other_leaves():
    part = {"layer_0": {"recurrent_kernel": TREE["layer_0"]["recurrent_kernel"]}}
    alone = dropjax.weight_drop(KEY, part, 0.5, match="")["layer_0"]["recurrent_kernel"]
    among = dropjax.weight_drop(KEY, TREE, 0.5, match="recurrent")["layer_0"]["recurrent_kernel"]
    np.testing.assert_array_equal(alone, among)


def test_rate_and_scale():
    y = np.asarray(dropjax.weight_drop(KEY, ones(100_000), 0.3, match=""))
    assert_mean(y == 0, 0.3)
    assert np.unique(y).tolist() == [0, np.float32(1 / 0.7)]


def test_gradients_are_the_scaled_mask_where_it_matches_and_1_elsewhere():
    def total(tree):
        dropped = dropjax.weight_drop(KEY, tree, 0.3, match="recurrent")
        return sum(leaf.sum() for leaf in jax.tree.leaves(dropped))

    floats = TREE | {"step": jnp.float32(3)}
    gradient = jit(jax.grad(total))(floats)
    wanted = dropjax.weight_drop(KEY, jax.tree.map(jnp.ones_like, floats), 0.3, match="recurrent")
    jax.tree.map(np.testing.assert_array_equal, gradient, wanted)
    kernels = gradient["layer_0"]["recurrent_kernel"], gradient["layer_1"][0]["recurrent_kernel"]
    assert set(np.unique(kernels)) == {0, np.float32(1 / 0.7)}
    assert (gradient["layer_0"]["kernel"] == 1).all() and gradient["step"] == 1


def test_errors():
    with pytest.raises(ValueError, match="match='foo' matches none of layer_0/kernel, layer_0/rec"):
        dropjax.weight_drop(KEY, TREE, 0.5, match="foo")
    with pytest.raises(TypeError, match="w must be an array of floats"):
        dropjax.weight_drop(KEY, TREE, 0.5, match="")  # "step" too
    with pytest.raises(ValueError, match="is not a regular expression"):
        dropjax.weight_drop(KEY, {"w": jnp.ones(2)}, 0.5, match="(")


def test_one_mask_serves_all_steps_of_a_sequence():
    """The layer under it is the clean layer with one masked kernel."""
    draw, params = sampled(parse("weight_drop(rate=0.4)"), KEY), random_params("lstm", 3, WIDTH)
    x = jnp.asarray(np.random.default_rng(4).normal(size=(6, 3)), jnp.float32)
    layer = Recurrent(CELLS["lstm"], WIDTH)
    site = Site("recurrent_kernel", Kind.WEIGHT, ("input", "output"))
    (mask,) = draw.noise(site, params["recurrent_kernel"].shape)
    masked = np.float32(params["recurrent_kernel"] * keep_of(mask) / 0.6)
    masked = params | {"recurrent_kernel": masked}
    wanted = layer.apply({"params": masked}, x, dropjax.CLEAN)
    np.testing.assert_allclose(
        layer.apply({"params": params}, x, draw), wanted, rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(wanted, layer.apply({"params": params}, x, dropjax.CLEAN), atol=0.01)
