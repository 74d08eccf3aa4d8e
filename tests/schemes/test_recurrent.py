"""Facts of Semeniuta et al. 2016: what is written is dropped, what is remembered never."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit as sigmoid

from dropjax.core.draw import sampled
from dropjax.core.site import Kind, Site
from dropjax.models.layers import Recurrent
from dropjax.nn.recurrent import CELLS
from dropjax.schemes import parse
from tests.compiled import jit, ones
from tests.nn.test_recurrent import WIDTH, random_params

KEY = jax.random.key(11)
STEPS = 6
X = np.random.default_rng(4).normal(size=(STEPS, 3)).astype(np.float32)


def by_hand(cell, factor):
    """The layer as a loop, with `factor[t]` on the update of step t."""
    p, states, outputs = random_params(cell, 3, WIDTH), np.zeros((2, WIDTH)), []
    for t in range(STEPS):
        h, c = states
        a = X[t] @ p["kernel"] + p["bias"]
        u = h @ p["recurrent_kernel"] + p.get("recurrent_bias", 0)
        if cell == "lstm":
            i, f, g, o = np.split(a + u, 4)
            c = sigmoid(f) * c + sigmoid(i) * (np.tanh(g) * factor[t])
            h = sigmoid(o) * np.tanh(c)
        else:
            (a_r, a_z, a_n), (u_r, u_z, u_n) = np.split(a, 3), np.split(u, 3)
            z = sigmoid(a_z + u_z)
            h = z * h + (1 - z) * (np.tanh(a_n + sigmoid(a_r + u_r) * u_n) * factor[t])
        states = np.stack([h, c])
        outputs.append(h)
    return np.stack(outputs)


def layer(cell, draw):
    params = {"params": random_params(cell, 3, WIDTH)}
    return jit(lambda draw: Recurrent(CELLS[cell], WIDTH).apply(params, X, draw))(draw)


@pytest.mark.parametrize("mask", ["step", "sequence"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_layer_is_the_loop_with_masks_on_what_is_written(cell, mask):
    draw = sampled(parse(f'recurrent(rate=0.4,mask="{mask}")'), KEY)
    (noise,) = draw.noise(Site("update", Kind.UPDATE, ("time", "feature")), (STEPS, WIDTH))
    assert noise.shape == ((STEPS if mask == "step" else 1), WIDTH)
    keep = np.broadcast_to(np.asarray(jit(lambda m: m.keep())(noise)), (STEPS, WIDTH))
    assert 0 < keep.mean() < 1 and (keep == keep[:1]).all() == (mask == "sequence")
    wanted = by_hand(cell, keep / 0.6)
    np.testing.assert_allclose(layer(cell, draw), wanted, rtol=1e-5, atol=1e-5)
    assert not np.allclose(wanted, by_hand(cell, ones(STEPS, WIDTH)), atol=0.01)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_memory_is_never_lost(cell):
    """With every update dropped and the gates wide open, the old state stays as it is."""
    old = (jnp.asarray([0.3, -0.7]),) * len(CELLS[cell].states)
    gates, zero = CELLS[cell].gates, jnp.zeros(2)
    open_gates = {"lstm": [-30, 30, 1, 0], "gru": [0, 30, 1]}[cell]  # i, f, g, o; r, z, n
    from_input = jnp.repeat(jnp.asarray(open_gates, jnp.float32), 2)
    closed = -from_input  # all would be overwritten, but nothing is written
    for given, kept in [(from_input, old[-1]), (closed, zero)]:
        new = CELLS[cell].step(
            given, jnp.zeros(2 * gates), old, lambda update: 0 * update, lambda m: m
        )
        np.testing.assert_allclose(new[-1], kept, atol=1e-6)


def test_the_update_is_seen_before_its_gate_multiplies_it():
    seen = []
    for cell, pre in [("lstm", [-3, 5, 0.7, 2]), ("gru", [1, -3, 0.7])]:
        state = (jnp.asarray([0.5]),) * len(CELLS[cell].states)
        CELLS[cell].step(
            jnp.asarray(pre, jnp.float32),
            jnp.zeros(CELLS[cell].gates),
            state,
            lambda update: seen.append(update.tolist()) or update,
            lambda memory: memory,
        )
    np.testing.assert_allclose(seen, np.tanh([[0.7], [0.7]]), rtol=1e-6)
