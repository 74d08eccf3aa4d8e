"""Facts of Moon et al. 2015: c_t = m (f c_tm1 + i g_t), one mask a sequence."""

import jax
import numpy as np
import pytest
from scipy.special import expit as sigmoid

from dropjax.core.draw import sampled
from dropjax.core.plan import check
from dropjax.core.site import Kind, Site
from dropjax.models.layers import Recurrent
from dropjax.nn.recurrent import CELLS
from dropjax.schemes import parse
from tests.compiled import jit
from tests.nn.test_recurrent import WIDTH, random_params

KEY = jax.random.key(11)
STEPS, RATE = 6, 0.4
X = np.random.default_rng(4).normal(size=(STEPS, 3)).astype(np.float32)


def moon(keep):
    """The paper's LSTM: the mask on the memory itself, in every step; its outputs scaled."""
    p, h, c, outputs = random_params("lstm", 3, WIDTH), np.zeros(WIDTH), np.zeros(WIDTH), []
    for t in range(STEPS):
        i, f, g, o = np.split(X[t] @ p["kernel"] + p["bias"] + h @ p["recurrent_kernel"], 4)
        c = keep * (sigmoid(f) * c + sigmoid(i) * np.tanh(g))
        h = sigmoid(o) * np.tanh(c) / (1 - RATE)
        outputs.append(h)
    return np.stack(outputs)


def test_a_layer_is_the_papers_with_the_mask_on_the_memory_and_the_outputs_scaled():
    draw = sampled(parse(f"rnn_drop(rate={RATE})"), KEY)
    (noise,) = draw.noise(Site("readout", Kind.READOUT, ("time", "feature")), (STEPS, WIDTH))
    assert noise.shape == (1, WIDTH)
    keep = np.asarray(noise.keep())[0]
    assert 0 < keep.mean() < 1
    layer = Recurrent(CELLS["lstm"], WIDTH)
    params = {"params": random_params("lstm", 3, WIDTH)}
    outputs = jit(lambda draw: layer.apply(params, X, draw))(draw)
    np.testing.assert_allclose(outputs, moon(keep), rtol=1e-5, atol=1e-6)
    assert (np.asarray(outputs)[:, ~keep] == 0).all()


def test_a_readout_without_time_is_refused():
    sites = {"r": (Site("r", Kind.READOUT, ("feature",)), (4,))}
    with pytest.raises(ValueError, match="no time axis"):
        check(parse("rnn_drop"), sites)
