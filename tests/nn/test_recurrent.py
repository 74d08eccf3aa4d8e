"""The cells against those of Flax, and how a recurrent layer starts."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from dropjax.core.draw import CLEAN
from dropjax.models.layers import Recurrent
from dropjax.nn.recurrent import CELLS
from tests.compiled import compiled, outputs_of

FLAX = {"elman": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
WIDTH = 4


def to_flax(cell: str, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a `Recurrent` layer as those of the Flax cell, gate by gate."""
    gates = {"elman": [""], "gru": ["r", "z", "n"], "lstm": ["i", "f", "g", "o"]}[cell]
    split = {name: np.split(np.asarray(p), len(gates), axis=-1) for name, p in params.items()}
    theirs = {}
    for i, gate in enumerate(gates):
        of_input = {"kernel": split["kernel"][i]}
        of_hidden = {"kernel": split["recurrent_kernel"][i]}
        bias = split["bias"][i]
        if cell == "lstm":
            of_hidden["bias"] = bias
        elif gate == "n":
            of_input["bias"], of_hidden["bias"] = bias, split["recurrent_bias"][i]
        else:  # what is only added needs one bias
            of_input["bias"] = bias + (split["recurrent_bias"][i] if cell == "gru" else 0)
        theirs |= {f"i{gate}": of_input, f"h{gate}": of_hidden}
    return theirs


def random_params(cell: str, features: int, width: int) -> dict[str, np.ndarray]:
    """Parameters with every entry in use, biases too."""
    rng, gates = np.random.default_rng(0), CELLS[cell].gates
    shapes = {"kernel": (features, gates * width), "bias": (gates * width,)}
    shapes["recurrent_kernel"] = (width, gates * width)
    if CELLS[cell].hidden_bias:
        shapes["recurrent_bias"] = (gates * width,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_is_that_of_flax_over_several_steps(cell):
    params, rng = random_params(cell, 3, WIDTH), np.random.default_rng(1)
    theirs = {"params": to_flax(cell, params)}
    module = FLAX[cell](WIDTH)
    xs = rng.normal(size=(6, 2, 3)).astype(np.float32)
    state = tuple(rng.uniform(-1, 1, (2, WIDTH)).astype(np.float32) for _ in CELLS[cell].states)
    carry = (state[1], state[0]) if cell == "lstm" else state[0]
    bias = params.get("recurrent_bias", np.zeros((), np.float32))

    @compiled
    def ours_and_theirs(x, state, carry):
        from_input = x @ params["kernel"] + params["bias"]
        from_hidden = state[0] @ params["recurrent_kernel"] + bias
        new = CELLS[cell].step(from_input, from_hidden, state, lambda g: g, lambda m: m)
        return new, module.apply(theirs, carry, x)

    with jax.numpy_rank_promotion("allow"):
        for x in xs:
            state, (carry, output) = ours_and_theirs(x, state, carry)
            np.testing.assert_allclose(state[0], output, rtol=1e-5, atol=1e-6)
            if cell == "lstm":
                np.testing.assert_allclose(state[1], carry[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_is_that_of_flax(cell):
    params = random_params(cell, 3, WIDTH)
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    ours = outputs_of(Recurrent(CELLS[cell], WIDTH), {"params": params}, x, CLEAN)
    with jax.numpy_rank_promotion("allow"):
        apply = compiled(nn.RNN(FLAX[cell](WIDTH)).apply)
        theirs = apply({"params": {"cell": to_flax(cell, params)}}, x)
    assert ours.shape == (6, WIDTH)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_how_a_layer_starts(cell):
    width, features, gates = 6, 5, CELLS[cell].gates
    layer = Recurrent(CELLS[cell], width)
    x = np.ones((3, features), np.float32)
    params = compiled(lambda: layer.init(jax.random.key(0), x, CLEAN)["params"])()
    names = {"kernel", "bias", "recurrent_kernel"}
    assert set(params) == names | ({"recurrent_bias"} if cell == "gru" else set())

    bias = np.zeros((gates, width))
    if cell == "lstm":
        bias[1] = 1  # the forget gate, second of i, f, g, o
    np.testing.assert_array_equal(params["bias"], bias.ravel())
    if cell == "gru":
        np.testing.assert_array_equal(params["recurrent_bias"], np.zeros(gates * width))

    blocks = np.split(np.asarray(params["recurrent_kernel"], np.float64), gates, axis=1)
    for i, block in enumerate(blocks):
        assert block.shape == (width, width)
        np.testing.assert_allclose(block.T @ block, np.eye(width), atol=1e-6)
        for other in blocks[:i]:
            assert np.abs(block - other).max() > 0.1

    bound = np.sqrt(6 / (features + gates * width))
    kernel = np.asarray(params["kernel"])
    assert kernel.shape == (features, gates * width)
    assert 0.8 * bound < np.abs(kernel).max() <= bound
