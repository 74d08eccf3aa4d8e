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


def test_std_may_differ_by_element_and_be_traced():
    std = jnp.asarray([0.0, 1.0, 10.0])
    y = np.asarray(jit(dropjax.gaussian_noise)(KEY, ones(2000, 3), std), np.float64)
    assert (y[:, 0] == 1).all()
    for column, spread in ((1, 1.0), (2, 10.0)):
        assert_mean((y[:, column] - 1) ** 2, spread**2)


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
