"""Moments against quadrature, enumeration of all masks, and Monte-Carlo."""

import doctest
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

import dropjax
from dropjax.evaluate import moments, monte_carlo
from dropjax.evaluate.moments import Moments
from tests.compiled import compiled, normal
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(0)
MEANS, SPREADS = [-8.0, -1.0, 0.0, 0.4, 3.0, 12.0], [0.01, 0.7, 4.0]
GAUSSIANS = list(itertools.product(MEANS, SPREADS))
PAIRS = list(itertools.product(GAUSSIANS[::4], GAUSSIANS[1::4]))

mlp = compiled(moments.mlp)


class Normal:
    """The normal distribution; that of SciPy checks its arguments at each point of a quadrature."""

    def __init__(self, mu, sigma):
        self.mu, self.sigma = mu, sigma

    def pdf(self, x):
        z = (x - self.mu) / self.sigma
        return math.exp(-z * z / 2) / (self.sigma * math.sqrt(2 * math.pi))

    def cdf(self, x):
        return scipy.special.ndtr((x - self.mu) / self.sigma)


def quadrature(function, density, low, high, points=None):
    """Mean and variance of a function."""

    def integral(f):
        return scipy.integrate.quad(f, low, high, points=points, epsabs=1e-13, limit=500)[0]

    mean = integral(lambda x: function(x) * density(x))
    return mean, integral(lambda x: (function(x) - mean) ** 2 * density(x))


def of_gaussian(function, mu, sigma):
    density = Normal(mu, sigma).pdf
    low, high = mu - 12 * sigma, mu + 12 * sigma
    return quadrature(function, density, low, high, [mu, min(max(0, low), high)])


def of(mu, sigma):
    return Moments(jnp.float32([mu]), jnp.float32([sigma**2]))


@pytest.mark.parametrize("mu, sigma", GAUSSIANS)
def test_relu(mu, sigma):
    found = moments.relu(of(mu, sigma))
    mean, variance = of_gaussian(lambda x: max(x, 0), mu, sigma)
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-5, atol=1e-6 * sigma)
    np.testing.assert_allclose(found.variance[0], variance, rtol=1e-5, atol=1e-6 * sigma**2)


def test_sigmoid_of_what_hardly_varies_hardly_varies():
    """The slope of the sigmoid, at most 1/4, times the spread, to first order."""
    for mu in MEANS:
        found = moments.sigmoid(of(mu, 0.01))
        assert np.sqrt(found.variance[0]) < 0.25 * 0.01


def test_relu_of_a_mean_far_above_0_keeps_the_variance():
    """The textbook formula subtracts squares of 1e4 and leaves nothing of a variance of 1."""
    found = moments.relu(of(1e4, 1.0))
    assert found.mean[0] == 1e4 and found.variance[0] == 1
    found = moments.relu(of(-1e4, 1.0))
    assert found.mean[0] == found.variance[0] == 0


@pytest.mark.parametrize("mu, sigma", GAUSSIANS)
def test_sigmoid_is_as_near_as_it_says(mu, sigma):
    found = moments.sigmoid(of(mu, sigma))
    mean, variance = of_gaussian(scipy.special.expit, mu, sigma)
    assert abs(found.mean[0] - mean) < 0.02
    assert abs(np.sqrt(found.variance[0]) - np.sqrt(variance)) < 0.06


@pytest.mark.parametrize("a, b", PAIRS)
def test_maximum(a, b):
    """By the density of the maximum of two independent numbers."""
    first, second = Normal(*a), Normal(*b)
    ends = [m + s * 10 * k for m, s in (a, b) for k in (-1, 0, 1)]

    def density(x):
        return first.pdf(x) * second.cdf(x) + second.pdf(x) * first.cdf(x)

    mean, variance = quadrature(lambda x: x, density, min(ends), max(ends), sorted(ends)[1:-1])
    for found in (moments.maximum(of(*a), of(*b)), moments.maximum(of(*b), of(*a))):
        np.testing.assert_allclose(found.mean[0], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.variance[0], variance, rtol=1e-4, atol=1e-5)


def test_maximum_of_large_means_keeps_the_variance():
    shifted = moments.maximum(of(1e4, 1.0), of(1e4, 1.0))
    assert shifted.variance[0] == pytest.approx(1 - 1 / np.pi, rel=1e-5)
    assert shifted.mean[0] == pytest.approx(1e4 + 1 / np.sqrt(np.pi), rel=1e-7)


def test_what_is_known_stays_known():
    """Variance 0, with finite gradients."""
    x = np.float32([-2.0, 0.0, 3.0])
    functions = (
        moments.relu,
        moments.sigmoid,
        lambda m: moments.maximum(m, moments.exactly(jnp.asarray(x[::-1]))),
        lambda m: moments.dropout(m, 0.0),
    )
    wanted = (np.maximum(x, 0), scipy.special.expit(x), np.maximum(x, x[::-1]), x)

    @compiled
    def values_and_slopes(x):
        known = moments.exactly(x)
        return [
            (f(known), [jax.grad(lambda m, f=f, i=i: f(m)[i].sum())(known) for i in range(2)])
            for f in functions
        ]

    for (value, slopes), mean in zip(values_and_slopes(x), wanted, strict=True):
        np.testing.assert_allclose(value.mean, mean, rtol=1e-6)
        assert (value.variance == 0).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


# Dropout and dense layers, exactly.


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_dropout_and_a_dense_layer_by_enumeration(rate, scaling):
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=5), rng.normal(size=(5, 3)), rng.normal(size=3)
    scale = 1 / (1 - rate) if scaling == "train" and rate < 1 else 1
    outputs, weights = [], []
    for mask in itertools.product((0, 1), repeat=5):
        outputs.append((np.array(mask) * scale * x) @ w + b)
        weights.append((1 - rate) ** sum(mask) * rate ** (5 - sum(mask)))
    outputs, weights = np.array(outputs), np.array(weights)[:, None]
    mean = (weights * outputs).sum(axis=0)
    variance = (weights * (outputs - mean) ** 2).sum(axis=0)
    dropped = moments.dropout(moments.exactly(np.float32(x)), rate, scaling=scaling)
    found = moments.dense(dropped, np.float32(w), np.float32(b))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-5, atol=1e-6)
    whole = moments.mlp(
        [(np.float32(w), np.float32(b))], np.float32(x), 0.9, input_rate=rate, scaling=scaling
    )
    np.testing.assert_array_equal(whole, found)


def test_dropout_of_what_varies_and_gaussian_dropout():
    """E[y^2] = E[x^2] / (1 - rate), whatever the distributions."""
    rate, n = 0.3, 200_000
    x = np.float32(1.5 + 0.8 * normal(n))
    for op, options in (
        (dropjax.dropout, {}),
        (dropjax.gaussian_dropout, {}),
        (dropjax.dropout, {"scaling": "test"}),
    ):
        found = moments.dropout(of(1.5, 0.8), rate, **options)
        y = np.asarray(op(KEY, x, rate, **options), np.float64)
        assert_mean(y, found.mean[0])
        assert_mean((y - float(found.mean[0])) ** 2, found.variance[0])


# Whole networks.


def network(widths, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.normal(size=(a, b)) * np.sqrt(2 / a)).astype(np.float32),
            (rng.normal(size=b) * 0.1).astype(np.float32),
        )
        for a, b in itertools.pairwise(widths)
    ]


def sampled_outputs(layers, x, rate):
    def one(params, x, key):
        for i, (w, b) in enumerate(params[:-1]):
            x = jax.nn.relu(x @ w + b)
            x = dropjax.dropout(dropjax.derive(key, i), x, rate)
        w, b = params[-1]
        return x @ w + b

    return monte_carlo(one, layers, x, KEY, samples=20_000)


def plain_outputs(layers, x):
    for w, b in layers[:-1]:
        x = np.maximum(x @ w + b, 0)
    return x @ layers[-1][0] + layers[-1][1]


def test_an_mlp_with_one_hidden_layer_is_exact():
    """Its inputs are known, and so its hidden units: five standard errors of 20,000 samples."""
    layers = network((8, 32, 4))
    x = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    found = mlp(layers, x, 0.4)
    mean, spread = sampled_outputs(layers, x, 0.4)
    np.testing.assert_array_less(np.abs(found.mean - mean), 5 * spread / np.sqrt(20_000))
    # The standard error of a standard deviation is that of the mean over sqrt(2), if Gaussian.
    np.testing.assert_allclose(np.sqrt(found.variance), spread, rtol=5 / np.sqrt(40_000))


def test_a_deep_mlp_is_nearer_to_monte_carlo_than_weight_scaling():
    """Its hidden units are correlated, and only about Gaussian.

    In units of the spread 20,000 samples have a standard error of 0.007, so 0.05 leaves the
    approximation 0.02 beyond four of these; weight scaling is off by up to 0.4.
    """
    layers = network((8, 64, 64, 4))
    x = np.random.default_rng(2).normal(size=(10, 8)).astype(np.float32)
    found = mlp(layers, x, 0.5)
    mean, spread = sampled_outputs(layers, x, 0.5)
    gap = np.abs(found.mean - mean) / spread
    of_weight_scaling = np.abs(plain_outputs(layers, x) - mean) / spread
    assert gap.max() < 0.05 and of_weight_scaling.max() > 0.2
    assert gap.mean() < of_weight_scaling.mean() / 5
    np.testing.assert_allclose(np.sqrt(found.variance), spread, rtol=0.15)


def test_half_precision_is_widened_and_batches_are_rows():
    layers = network((8, 16, 3))
    x = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)
    found = mlp(layers, jnp.asarray(x, jnp.bfloat16), 0.5)
    assert found.mean.dtype == found.variance.dtype == jnp.float32
    assert found.mean.shape == found.variance.shape == (5, 3)
    alone = mlp(layers, x[2], 0.5)
    whole = jax.jit(lambda x, rate: moments.mlp(layers, x, rate))(x, jnp.float32(0.5))
    np.testing.assert_allclose(whole.variance[2], alone.variance, rtol=1e-5)


def test_rate_1_leaves_the_last_bias():
    layers = network((8, 16, 3))
    x = np.ones(8, np.float32)

    def variance(x, rate):
        return moments.mlp(layers, x, rate).variance.sum()

    found = mlp(layers, x, 1.0)
    np.testing.assert_array_equal(found.mean, layers[-1][1])
    assert (found.variance == 0).all()
    assert (jax.jit(jax.grad(variance))(x, jnp.float32(1.0)) == 0).all()


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: moments.mlp([], np.ones(3), 0.5), ValueError, "at least one"),
        (lambda: moments.exactly(np.ones(3, int)), TypeError, "^x must be an array of floats"),
        (lambda: moments.dropout(of(0, 1), 1.5), ValueError, "^rate is the probability"),
        (lambda: moments.dropout(of(0, 1), 0.5, scaling="none"), ValueError, "scaling must be one"),
        (lambda: moments.dense(of(0, 1), np.ones((1, 2), int)), TypeError, "^w must be an array"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("f", "arguments"),
    [
        (moments.relu, 2),
        (moments.sigmoid, 2),
        (moments.maximum, 4),
        (lambda of: moments.dropout(of, 0.3), 1),
        (lambda of: moments.dropout(of, 0.3, scaling="test"), 1),
    ],
)
def test_the_backward_pass_keeps_arguments_alone(f, arguments):
    one, two = (Moments(jnp.full(1000, i + 0.5), jnp.full(1000, i + 1.5)) for i in range(2))
    kept = bytes_kept(f, one, two) if arguments == 4 else bytes_kept(f, one)
    assert kept <= arguments * one.mean.nbytes + 8


def test_the_backward_pass_of_a_dense_layer_keeps_its_weights_once():
    x, w = Moments(jnp.ones((1, 100)), jnp.ones((1, 100))), jnp.ones((100, 300))
    # Twice by name: both products have the same buffer.
    assert bytes_kept(moments.dense, x, w) <= 2 * w.nbytes + 2 * x.mean.nbytes


def test_examples_run():
    failed, tried = doctest.testmod(moments)
    assert tried and not failed
