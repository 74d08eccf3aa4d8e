"""Facts of weight scaling: Srivastava et al. 2014, section 4, and the geometric mean."""

import doctest
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from dropjax.core.draw import CLEAN, deterministic
from dropjax.evaluate import weight_scaling
from dropjax.models.mlp import MLP
from dropjax.schemes import parse
from tests.compiled import compiled

RNG = np.random.default_rng(0)
W, B, X = RNG.normal(size=(6, 3)), RNG.normal(size=3), RNG.normal(size=6)


def geometric_mean(log_probabilities_of_mask, rate):
    """Of the predictions under all masks of six units, weighted and normalised; and the mean."""
    logs, weights = [], []
    for mask in itertools.product((0, 1), repeat=6):
        logs.append(log_probabilities_of_mask(np.array(mask)))
        weights.append((1 - rate) ** sum(mask) * rate ** (6 - sum(mask)))
    weights = np.array(weights)[:, None]
    geometric = scipy.special.softmax((weights * np.array(logs)).sum(axis=0))
    return geometric, (weights * np.exp(logs)).sum(axis=0)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_of_one_softmax_layer_it_gives_the_geometric_mean_over_all_masks(rate):
    geometric, arithmetic = geometric_mean(
        lambda mask: scipy.special.log_softmax((mask * X) @ W + B), rate
    )
    params = {"kernel": jnp.float32(W), "bias": jnp.float32(B)}
    scaled = weight_scaling(params, rate, match="kernel")
    found = jax.nn.softmax(jnp.float32(X) @ scaled["kernel"] + scaled["bias"])
    np.testing.assert_allclose(found, geometric, rtol=1e-5)
    assert np.abs(found - arithmetic).max() > 0.01  # which is another mean


def test_the_network_without_dropout_then_does_what_the_deterministic_draw_does():
    """Only the kernels that read dropped units are scaled, each by its layer's own rate."""
    model = MLP(3, (5, 4))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones(6), CLEAN))["params"]
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)
    scheme = parse(
        'bernoulli(rate=0.5,scaling="test")|bernoulli(rate=0.2,scaling="test",at="input")'
    )
    x = np.float32(X)
    apply = compiled(model.apply)
    wanted = apply({"params": params}, x, deterministic(scheme))
    scaled = weight_scaling(params, 0.5, match="(layer_1|head)/kernel")
    scaled = weight_scaling(scaled, 0.2, match="layer_0/kernel")
    np.testing.assert_allclose(apply({"params": scaled}, x, CLEAN), wanted, rtol=1e-5)
    for name in params:
        np.testing.assert_array_equal(scaled[name]["bias"], params[name]["bias"])


def test_dtypes_are_kept():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.int32)}
    scaled = weight_scaling(tree, 0.25, match="a")
    assert scaled["a"].dtype == jnp.bfloat16 and (scaled["a"] == 0.75).all()
    assert scaled["b"] is tree["b"]


@pytest.mark.parametrize(
    "rate, match, error, message",
    [
        (1.5, "kernel", ValueError, "^rate is the probability"),
        (0.5, "kernels", ValueError, "match='kernels' matches none of kernel, step"),
        (0.5, "(", ValueError, "is not a regular expression"),
        (0.5, "step", TypeError, "^step must be an array of floats"),
    ],
)
def test_errors(rate, match, error, message):
    with pytest.raises(error, match=message):
        weight_scaling({"kernel": jnp.ones(2), "step": jnp.ones((), jnp.int32)}, rate, match=match)


def test_examples_run():
    failed, tried = doctest.testmod(importlib.import_module("dropjax.evaluate.weight_scaling"))
    assert tried and not failed
