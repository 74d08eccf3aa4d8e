"""Facts of additive noise: x + N(0, std**2), whatever x is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.site import Kind
from dropjax.ops.gaussian import Normal
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import jit, ones, ops
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(14)
MANY = 100_000


@pytest.mark.parametrize("std", [0.1, 3.0])
def test_what_is_added_is_normal_with_that_standard_deviation(std):
    x = np.linspace(-100, 100, MANY, dtype=np.float32)
    noise = (np.asarray(ops.gaussian_noise(KEY, x, std), np.float64) - x) / std
    assert_mean(noise, 0)
    assert_mean(noise**2, 1)
    assert scipy.stats.kstest(noise, "norm").pvalue > 1e-3


def test_noise_is_added_not_multiplied():
    x = jnp.asarray([0.0, 1.0, -2.0, 1e6])
    z = np.asarray(Normal.of(KEY, x.shape).values())
    np.testing.assert_allclose(ops.gaussian_noise(KEY, x, 0.5), x + 0.5 * z, rtol=1e-6)
    assert ops.gaussian_noise(KEY, x, 0.5)[0] != 0


def test_std_0_is_the_identity_to_the_bit():
    x = jnp.asarray([0.0, -0.0, 1.5, -jnp.inf])
    for std in (0.0, 0, jnp.zeros(()), jnp.zeros(4)):
        y = jit(dropjax.gaussian_noise)(KEY, x, std)
        assert np.asarray(y).tobytes() == np.asarray(x).tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_the_sum_not_the_noise(dtype):
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, 2000), dtype)
    y = ops.gaussian_noise(KEY, x, 0.01)
    exact = ops.gaussian_noise(KEY, x.astype(jnp.float32), 0.01)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, exact.astype(dtype))
    rounded = x + (0.01 * Normal.of(KEY, x.shape).values()).astype(dtype)
    assert (y != rounded).any()


def test_shared_axes_share_one_number():
    y = np.asarray(ops.gaussian_noise(KEY, ones(4, 5, 6), 0.5, shared_axes=(0, -1)))
    assert (y == y[:1, :, :1]).all() and len(np.unique(y)) == 5


def test_std_may_differ_by_element_and_be_traced():
    std = jnp.asarray([0.0, 1.0, 10.0])
    y = np.asarray(jit(dropjax.gaussian_noise)(KEY, ones(2000, 3), std), np.float64)
    assert (y[:, 0] == 1).all()
    for column, spread in ((1, 1.0), (2, 10.0)):
        assert_mean((y[:, column] - 1) ** 2, spread**2)


def test_the_gradient_is_1_none_goes_to_std_and_nothing_is_kept():
    x = ones(64, 32)

    def total(x, std):
        return ops.gaussian_noise(KEY, x, std).sum()

    for std in (0.0, 0.3):
        to_x, to_std = jax.grad(total, argnums=(0, 1))(x, std)
        assert (to_x == 1).all() and to_std == 0
    assert bytes_kept(lambda x: ops.gaussian_noise(KEY, x, 0.3), x) <= 24


def test_the_scheme_is_on_inputs_and_elsewhere_by_name():
    scheme, site, x = (
        parse("gaussian_noise(std=0.5)"),
        SITES[Kind.INPUT],
        ones(2, 3, 4),
    )
    draw = sampled(scheme, KEY)
    (noise,) = draw.noise(site, x.shape)
    np.testing.assert_allclose(draw(x, site), x + 0.5 * noise.values(), rtol=1e-6)
    assert (deterministic(scheme)(x, site) == x).all()
    hidden = SITES[Kind.HIDDEN]
    assert not scheme.wants(hidden)
    assert parse('gaussian_noise(std=0.5,at="hidden")').wants(hidden)


def test_strength_scales_the_standard_deviation():
    assert parse("gaussian_noise(std=0.5)").scaled(0.5) == parse("gaussian_noise(std=0.25)")


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ((KEY, jnp.ones(3, jnp.int32), 0.5), TypeError, "^x must be an array of floats"),
        ((0, jnp.ones(3), 0.5), TypeError, "^key must be a PRNG key"),
        ((KEY, jnp.ones(3), -0.1), ValueError, "^std must be finite and at least 0; got -0"),
        ((KEY, jnp.ones(3), np.nan), ValueError, "^std must be finite"),
        ((KEY, jnp.ones(3), None), TypeError, "^std must be a number, at least 0, got None"),
        ((KEY, jnp.ones(3), jnp.ones(2)), ValueError, "^std of shape .* does not broadcast"),
        ((KEY, jnp.ones(3), 0.5, 1), ValueError, "shared_axes names axis 1"),
    ],
)
def test_errors(arguments, error, match):
    key, x, std, *axes = arguments
    with pytest.raises(error, match=match):
        dropjax.gaussian_noise(key, x, std, shared_axes=axes)
