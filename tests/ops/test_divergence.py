"""Divergence from the log-uniform prior, against Dawson's integral and measured values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

from dropjax.ops.divergence import kl_exact, kl_kingma, kl_molchanov
from tests.ops.test_mask import bytes_kept

ALPHAS = np.logspace(-12, 6, 37)
LOG_ALPHAS = np.log(ALPHAS)
LIMIT = (np.euler_gamma + np.log(2)) / 2


def by_dawson(log_alpha: float) -> float:
    """2 times the integral of Dawson's function from 0 to 1 / sqrt(2 alpha)."""
    z = np.exp(-log_alpha / 2) / np.sqrt(2)
    # Beyond 20 by parts: the function is 1 / (2 s) + 1 / (4 s**3) + ...
    near, _ = scipy.integrate.quad(scipy.special.dawsn, 0, min(z, 20), epsabs=1e-12, limit=200)
    if z <= 20:
        return 2 * near
    tail = [np.log(s) - 1 / (4 * s**2) - 3 / (16 * s**4) for s in (20, z)]
    return 2 * near + tail[1] - tail[0]


def test_exact_is_the_integral_of_dawson_s_function():
    found = kl_exact(jnp.asarray(LOG_ALPHAS))
    np.testing.assert_allclose(found, [by_dawson(a) for a in LOG_ALPHAS], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("alpha", "true", "molchanov", "kingma"),
    [
        (0.01, -2.2975, -2.3032, -2.2911),
        (0.1, -1.0889, -1.0877, -1.0496),
        (0.5, -0.1046, -0.1049, -0.0681),
        (1, 0.2092, 0.2045, 0.2457),
        (2, 0.4055, 0.4000, 1.3517),
        (100, 0.6309, 0.6307, 5.7e5),
    ],
)
def test_values_measured_by_sampling(alpha, true, molchanov, kingma):
    """log(alpha) / 2 - E log|1 + sqrt(alpha) e| of 4 million samples: the negative, shifted."""
    log_alpha = np.log(alpha)
    assert LIMIT - kl_exact(log_alpha) == pytest.approx(true, abs=1.5e-3)
    assert 0.63576 - kl_molchanov(log_alpha) == pytest.approx(molchanov, abs=1e-4)
    assert LIMIT - kl_kingma(log_alpha) == pytest.approx(kingma, abs=1e-4, rel=0.01)


def test_the_slope_is_exact_too():
    slopes = jax.vmap(jax.grad(kl_exact))(jnp.asarray(LOG_ALPHAS))
    z = np.exp(-LOG_ALPHAS / 2) / np.sqrt(2)
    np.testing.assert_allclose(slopes, -z * scipy.special.dawsn(z), rtol=1e-4, atol=1e-6)


def test_molchanov_s_is_within_0_01_everywhere_and_vanishes_where_alpha_grows():
    found = kl_molchanov(jnp.asarray(LOG_ALPHAS))
    np.testing.assert_allclose(found, kl_exact(jnp.asarray(LOG_ALPHAS)), atol=1e-2)
    assert np.all(np.diff(found) < 0) and 0 <= found[-1] < 1e-4


def test_kingma_s_is_within_0_05_up_to_1_and_wrong_beyond():
    inside = jnp.linspace(-20.0, 0.0, 81)
    np.testing.assert_allclose(kl_kingma(inside), kl_exact(inside), atol=0.05)
    beyond = np.log(np.asarray([2.0, 10.0]))
    gap = np.asarray(kl_exact(beyond) - kl_kingma(beyond))
    np.testing.assert_allclose(gap, [0.95, 448], rtol=0.01)


@pytest.mark.parametrize("kl", [kl_exact, kl_kingma, kl_molchanov])
def test_any_shape_and_dtype(kl):
    whole = kl(jnp.full((2, 3), -1.0, jnp.bfloat16))
    assert whole.shape == (2, 3) and whole.dtype == jnp.float32
    assert kl(-1).shape == () and np.allclose(whole, kl(-1.0), rtol=1e-6)
    ends = np.float32([-1e4, -80.0, 0.0, 8.0, 1e4])[: 4 if kl is kl_kingma else 5]
    assert np.isfinite(jax.jit(jax.grad(lambda a: kl(a).sum()))(ends)).all()


@pytest.mark.parametrize("kl", [kl_exact, kl_kingma, kl_molchanov])
def test_the_backward_pass_keeps_log_alpha_alone(kl):
    """And not the 49 terms of the sum."""
    log_alpha = jnp.linspace(-9.0, 9.0, 1000)
    assert bytes_kept(kl, log_alpha) <= log_alpha.nbytes + 49 * 8
