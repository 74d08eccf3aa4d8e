"""Facts that peers have right and that no row of COMING_FROM.md has; each needs its peer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from tests.statistics import assert_mean

KEY = jax.random.key(4)


def test_attention_weights_are_dropped_as_in_pytorch_s_attention():
    """Of values that are the identity, attention returns its weights, with what was dropped."""
    torch = pytest.importorskip("torch")
    q, k = np.random.default_rng(0).normal(size=(2, 20, 4, 6, 8)).astype(np.float32)
    torch.manual_seed(0)
    query, keys, values = (torch.from_numpy(a) for a in (q, k, np.eye(6, dtype=np.float32)))
    attend = torch.nn.functional.scaled_dot_product_attention
    values = values.expand(20, 4, 6, 6)
    clean = attend(query, keys, values).numpy()
    theirs = attend(query, keys, values, dropout_p=0.3).numpy()
    ours = np.asarray(dropjax.attention_dropout(KEY, jnp.asarray(clean), 0.3))
    for y in (theirs, ours):
        factors = y / clean
        np.testing.assert_allclose(factors[factors != 0], 1 / 0.7, rtol=1e-4)
        assert_mean(factors.ravel() == 0, 0.3)
        assert len({mask.tobytes() for mask in (y == 0).reshape(80, 36)}) == 80  # none is shared


def test_noise_is_added_as_by_keras():
    """`GaussianNoise(stddev)`: of each element, whatever its size; nothing in evaluation."""
    keras = pytest.importorskip("keras")
    x = np.linspace(-3, 3, 20_000, dtype=np.float32).reshape(4, 5000)
    layer = keras.layers.GaussianNoise(0.5, seed=0)
    np.testing.assert_array_equal(np.asarray(layer(x, training=False)), x)
    theirs = np.asarray(layer(x, training=True))
    ours = np.asarray(dropjax.gaussian_noise(KEY, jnp.asarray(x), 0.5))
    for y in (theirs, ours):
        noise = (y - x).ravel()
        assert_mean(noise, 0)
        assert_mean(noise**2, 0.25)
        assert_mean(noise**4, 3 * 0.25**2)
        assert_mean(noise * x.ravel(), 0)
        assert_mean(noise**2 * (np.abs(x.ravel()) - 1.5), 0)
