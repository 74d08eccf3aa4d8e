"""Facts of Achille & Soatto 2018: log-normal noise, and what the information costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import dropjax
from dropjax.functions.information import log_normal_kl, log_uniform_kl
from dropjax.ops.gaussian import Normal
from tests.compiled import expected, jit, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(4)
MANY = 100_000


@pytest.fixture(scope="module")
def factors():
    return np.asarray(ops.information_dropout(KEY, ones(MANY), 0.7), np.float64)


def test_the_logarithm_of_the_noise_is_normal_with_standard_deviation_alpha(factors):
    """Not Gaussian noise, as some copies have it, which would be negative at times."""
    assert scipy.stats.kstest(np.log(factors) / 0.7, "norm").pvalue > 1e-3
    assert (factors > 0).all()


def test_the_mean_is_shifted_and_expected_knows(factors):
    """E[e] = exp(alpha**2 / 2), 1.28 for 0.7: what is evaluated without noise is smaller."""
    assert_mean(factors, np.exp(0.7**2 / 2))
    assert factors.mean() > 1.25
    x, alpha = jnp.float32([1.0, -2.0]), jnp.float32([0.7, 0.1])
    wanted = np.asarray(x) * np.exp(np.asarray(alpha) ** 2 / 2)
    np.testing.assert_allclose(expected.information_dropout(x, alpha), wanted, rtol=1e-6)
    x = np.float32([1.0, -0.0, np.inf, -3.5])
    assert expected.information_dropout(x, 0.0).tobytes() == x.tobytes()


def test_each_element_has_its_own_alpha():
    alpha = jnp.broadcast_to(jnp.float32([0.0, 0.3, 1.0]), (20_000, 3))
    y = np.asarray(ops.information_dropout(KEY, ones(20_000, 3), alpha))
    assert (y[:, 0] == 1).all()
    for i, a in ((1, 0.3), (2, 1.0)):
        assert_mean(np.log(y[:, i]) ** 2, a**2)


def test_gradients_reach_x_and_alpha():
    """By the reparametrisation: dy/dx = e, dy/dalpha = y z."""
    x, alpha = jnp.arange(1.0, 7.0), np.linspace(0.1, 0.6, 6, dtype=np.float32)

    def f(x, alpha):
        return ops.information_dropout(KEY, x, alpha).sum()

    to_x, to_alpha = jit(jax.grad(f, argnums=(0, 1)))(x, alpha)
    z = np.asarray(jit(Normal.values)(Normal.of(KEY, (6,))))
    np.testing.assert_allclose(to_x, np.exp(alpha * z), rtol=1e-5)
    np.testing.assert_allclose(to_alpha, x * z * np.exp(alpha * z), rtol=1e-5)


def test_vmap_equals_loop():
    keys, x = jax.random.split(KEY, 3), ones(4)
    rows = jax.vmap(lambda key: ops.information_dropout(key, x, 0.5))(keys)
    for row, key in zip(rows, keys, strict=True):
        np.testing.assert_allclose(row, ops.information_dropout(key, x, 0.5), rtol=1e-6)


# The cost.


@pytest.mark.parametrize("x, alpha, mean, std", [(0.5, 0.3, 0.0, 1.0), (4.0, 0.7, 0.5, 2.0)])
def test_the_divergence_from_a_log_normal_prior_by_quadrature(x, alpha, mean, std):
    q = scipy.stats.lognorm(s=alpha, scale=x)
    p = scipy.stats.lognorm(s=std, scale=np.exp(mean))
    wanted, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), *q.ppf([1e-15, 1 - 1e-15]), limit=200
    )
    found = log_normal_kl(jnp.float32([x]), alpha, mean=mean, std=std)
    assert found.shape == (1,) and found[0] == pytest.approx(wanted, rel=1e-5)
    assert log_normal_kl(jnp.exp(jnp.float32([mean])), std, mean=mean, std=std)[0] == (
        pytest.approx(0, abs=1e-6)
    )


def test_the_divergence_from_a_log_uniform_prior_falls_to_0_at_the_largest_noise():
    """Differences are those of E[log q(z) - log p(z)] with p(z) proportional to 1 / z."""

    def up_to_a_constant(alpha):
        q = scipy.stats.lognorm(s=alpha, scale=1.7)
        # log(1 / p(z)) is log z, of mean log 1.7 whatever alpha is.
        return -q.entropy() + np.log(1.7)

    alpha = jnp.float32([0.7, 0.35, 0.01])
    found = log_uniform_kl(alpha, alpha_max=0.7)
    wanted = [up_to_a_constant(float(a)) - up_to_a_constant(0.7) for a in alpha]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], np.log(2), rtol=1e-6)
    slope = jax.grad(lambda a: log_uniform_kl(a, alpha_max=0.7).sum())(alpha)
    np.testing.assert_allclose(slope, -1 / alpha, rtol=1e-6)
    assert log_uniform_kl(alpha.astype("bfloat16"), alpha_max=0.7).dtype == jnp.float32


@pytest.mark.parametrize(
    "key, x, alpha, error, match",
    [
        (KEY, jnp.ones(3), jnp.ones(3, jnp.int32), TypeError, "^alpha must be an array of floats"),
        (KEY, jnp.ones(3), jnp.ones((3, 3)), ValueError, "alpha of shape .3, 3. does not"),
    ],
)
def test_errors(key, x, alpha, error, match):
    with pytest.raises(error, match=match):
        dropjax.information_dropout(key, x, alpha)


@pytest.mark.parametrize("alpha", [-0.5, float("nan"), float("inf"), jnp.float32([0.5, -0.1, 1.0])])
def test_an_alpha_that_is_no_standard_deviation_is_refused(alpha):
    x = jnp.ones(3)
    for f in (
        lambda: dropjax.information_dropout(KEY, x, alpha),
        lambda: dropjax.expected.information_dropout(x, alpha),
        lambda: log_normal_kl(x, alpha),
    ):
        with pytest.raises(ValueError, match="alpha must be finite and at least 0"):
            f()
