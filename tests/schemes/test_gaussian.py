"""Facts of Srivastava et al. 2014, section 10: x times N(1, p / (1 - p))."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.site import Kind
from dropjax.ops.gaussian import multiply
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import jit, ones, ops
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(7)
MANY = 100_000


@jit
def values(noise):
    return noise.values()


# The noise.


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.8])
def test_the_factor_has_mean_1_and_the_variance_of_bernoulli_dropout(rate):
    """p / (1 - p): neither p nor, for a standard deviation, its square."""
    factor = np.asarray(ops.gaussian_dropout(KEY, ones(MANY), rate), np.float64)
    assert_mean(factor, 1)
    assert_mean((factor - 1) ** 2, rate / (1 - rate))


@pytest.mark.parametrize("alpha", [0.01, 1.0, 5.0, 1e8])
def test_alpha_is_the_variance_of_the_factor(alpha):
    """Neither its square nor its root; and a rate of 1 - 1e-8, in float32, would be 1."""
    factor = np.asarray(ops.gaussian_dropout(KEY, ones(MANY), alpha=alpha), np.float64)
    assert_mean(factor, 1)
    assert_mean((factor - 1) ** 2, alpha)


def test_alpha_and_its_rate_make_the_same_noise():
    x = np.linspace(-3, 3, 1000, dtype=np.float32)
    for rate in (0.0, 0.2, 0.5, 0.9):
        y = jit(lambda a: ops.gaussian_dropout(KEY, x, alpha=a))(rate / (1 - rate))
        np.testing.assert_allclose(y, ops.gaussian_dropout(KEY, x, rate), rtol=2e-5, atol=1e-6)


def test_alpha_0_is_the_identity_and_alpha_has_no_gradient():
    x = jnp.asarray([-0.0, 1.5, -3.0])
    y = ops.gaussian_dropout(KEY, x, alpha=0.0)
    assert np.asarray(y).tobytes() == np.asarray(x).tobytes()

    def total(x, alpha):
        return ops.gaussian_dropout(KEY, x, alpha=alpha).sum()

    to_x, to_alpha = jax.grad(total, argnums=(0, 1))(x, 0.0)
    assert to_x.tolist() == [1, 1, 1] and to_alpha == 0


def test_alpha_and_rates_may_differ_by_element_and_nothing_is_kept_for_each():
    y = ops.gaussian_dropout(KEY, ones(50, 2), alpha=jnp.asarray([0.0, 1.0]))
    assert (y[:, 0] == 1).all() and (y[:, 1] != 1).all()
    y = ops.gaussian_dropout(KEY, ones(50, 3), jnp.asarray([0.0, 0.5, 1.0]))
    assert (y[:, 0] == 1).all() and (y[:, 1] != 1).all() and (y[:, 2] == 0).all()
    x = ones(64, 32)
    assert bytes_kept(lambda x: ops.gaussian_dropout(KEY, x, alpha=0.3), x) <= 24


@pytest.mark.parametrize(
    "rate, alpha, error, match",
    [
        (None, None, TypeError, "either rate or alpha, the variance; got neither"),
        (0.5, 1.0, TypeError, "either rate or alpha, the variance; got rate=0.5 and alpha=1.0"),
        (None, -0.1, ValueError, "^alpha must be finite and at least 0; got -0.1"),
        (None, np.inf, ValueError, "^alpha must be finite"),
        (None, np.nan, ValueError, "^alpha must be finite"),
        (None, True, TypeError, "^alpha must be a number"),
        (None, "a", TypeError, "^alpha must be a number"),
        (None, jnp.ones(2), ValueError, "^alpha of shape .* does not broadcast"),
    ],
)
def test_either_rate_or_alpha(rate, alpha, error, match):
    with pytest.raises(error, match=match):
        dropjax.gaussian_dropout(KEY, jnp.ones(3), rate, alpha=alpha)


def test_the_scheme_multiplies_by_the_numbers_of_its_site():
    draw, site, x = (
        sampled(parse("gaussian(rate=0.5)"), KEY),
        SITES[Kind.HIDDEN],
        np.arange(12.0, dtype=np.float32),
    )
    (noise,) = draw.noise(site, x.shape)
    np.testing.assert_allclose(draw(x, site), x * (1 + np.asarray(values(noise))), rtol=1e-6)
    np.testing.assert_array_equal(draw(x, site), multiply(noise, x, 0.5))
