"""The multilayer perceptron against NumPy."""

import jax
import numpy as np
import pytest

from dropjax import models, sampled
from dropjax.core.draw import CLEAN, deterministic
from dropjax.core.plan import record
from dropjax.core.site import Kind, Site
from dropjax.models.mlp import MLP
from dropjax.schemes import parse
from tests.compiled import compiled, keep_of, outputs_of

KEY = jax.random.key(4)
X = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
WIDTHS, OUTPUTS = (5, 4), 3
SCOPES = ["layer_0", "layer_1", "head"]


def params_of():
    rng, sizes = np.random.default_rng(1), [X.size, *WIDTHS, OUTPUTS]
    return {
        scope: {
            "kernel": rng.normal(size=(a, b)).astype(np.float32),
            "bias": rng.normal(size=b).astype(np.float32),
        }
        for scope, a, b in zip(SCOPES, sizes[:-1], sizes[1:], strict=True)
    }


def apply(draw):
    return outputs_of(MLP(OUTPUTS, widths=WIDTHS), {"params": params_of()}, X, draw)


def by_hand(*, of_input=1, of_weights=None, of_hidden=None):
    """The network in NumPy, with a factor for the input, each kernel and each hidden layer."""
    h = np.float64(X).reshape(-1) * of_input
    for scope, p in params_of().items():
        w = p["kernel"] * (of_weights[scope] if of_weights else 1)
        h = h @ w + p["bias"]
        if scope != "head":
            h = np.maximum(h, 0) * (of_hidden[scope] if of_hidden else 1)
    return h


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_without_noise():
    assert apply(CLEAN).shape == (OUTPUTS,)
    for draw in (CLEAN, sampled(parse("none"), KEY), deterministic(parse("bernoulli|dropconnect"))):
        assert_close(apply(draw), by_hand())


@pytest.mark.parametrize("scaling, q", [("train", 0.6), ("test", 1)])
def test_dropconnect_masks_every_kernel(scaling, q):
    draw = sampled(parse(f'dropconnect(rate=0.4,scaling="{scaling}")'), KEY)
    masks = {}
    for scope, p in params_of().items():
        site = Site("linear", Kind.LINEAR, ("input", "output"))
        (mask,) = draw.scope(scope).noise(site, p["kernel"].shape)
        keep = keep_of(mask)
        assert 0 < keep.mean() < 1
        masks[scope] = keep / q
    assert_close(apply(draw), by_hand(of_weights=masks))
    assert not np.allclose(by_hand(of_weights=masks), by_hand(), atol=0.01)


def test_dropconnect_expected_at_test_time_multiplies_every_kernel():
    draw = deterministic(parse('dropconnect(rate=0.4,scaling="test")'))
    assert_close(apply(draw), by_hand(of_weights=dict.fromkeys(SCOPES, 0.6)))


def test_bernoulli_masks_hidden_units_and_by_name_the_input():
    draw = sampled(parse('bernoulli(rate=0.4)|bernoulli(rate=0.2,at="^input$")'), KEY)
    (of_input,) = draw.noise(Site("input", Kind.INPUT, ("feature",)), (X.size,))
    of_hidden = {}
    for scope, width in zip(SCOPES, WIDTHS, strict=False):
        (mask,) = draw.scope(scope).noise(Site("hidden", Kind.HIDDEN, ("feature",)), (width,))
        of_hidden[scope] = keep_of(mask) / 0.6
    logits = by_hand(of_input=keep_of(of_input) / 0.8, of_hidden=of_hidden)
    assert_close(apply(draw), logits)
    assert not np.allclose(logits, by_hand(), atol=0.01)


def test_sites():
    model = MLP(OUTPUTS, widths=WIDTHS)
    sites = record(lambda draw: model.init(KEY, X, draw))
    found = [(name, s.kind, s.axes, shape, round(s.depth, 3)) for name, (s, shape) in sites.items()]
    weight, feature = ("input", "output"), ("feature",)
    assert found == [
        ("input", Kind.INPUT, ("time", "feature"), X.shape, 0),
        ("layer_0/linear", Kind.LINEAR, weight, (6, 5), 0.333),
        ("layer_0/hidden", Kind.HIDDEN, feature, (5,), 0.333),
        ("layer_1/linear", Kind.LINEAR, weight, (5, 4), 0.667),
        ("layer_1/hidden", Kind.HIDDEN, feature, (4,), 0.667),
        ("head/linear", Kind.LINEAR, weight, (4, 3), 1),
    ]


def test_how_it_starts():
    params = compiled(lambda: MLP(OUTPUTS, widths=(50,)).init(KEY, X, CLEAN)["params"])()
    assert set(params) == {"layer_0", "head"}
    for layer, (a, b) in {"layer_0": (6, 50), "head": (50, 3)}.items():
        kernel, bound = np.asarray(params[layer]["kernel"]), np.sqrt(6 / (a + b))
        assert kernel.shape == (a, b)
        assert 0.8 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_array_equal(params[layer]["bias"], np.zeros(b))


def test_no_widths_make_a_linear_model():
    model = models.parse("mlp(widths=())", OUTPUTS)
    params = compiled(lambda: model.init(KEY, X, CLEAN))()
    head = params["params"]["head"]
    assert set(params["params"]) == {"head"}
    assert_close(outputs_of(model, params, X, CLEAN), X.reshape(-1) @ np.asarray(head["kernel"]))
