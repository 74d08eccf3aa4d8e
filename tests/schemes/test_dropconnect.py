"""Facts of Wan et al. 2013."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

LINEAR = SITES[Kind.LINEAR]
W = jax.random.normal(jax.random.key(0), (4, 6))
X = jax.random.normal(jax.random.key(1), (4,))


def outputs(text, examples=None, keys=20_000):
    scheme = parse(text)

    def one(i):
        step = jax.random.key(i if examples is None else 0)
        return sampled(scheme, Keys.of(step, i)).linear(X, W, None, LINEAR)

    return jax.vmap(one)(jnp.arange(examples or keys))


def test_one_mask_for_the_whole_batch_by_default():
    batch = np.asarray(outputs("dropconnect", examples=5))
    assert (batch == batch[0]).all()


def test_one_mask_an_example_as_in_the_paper():
    batch = np.asarray(outputs('dropconnect(mode="example")', examples=5))
    assert all((batch[0] != row).any() for row in batch[1:])


def test_moments_are_those_of_the_paper_s_gaussian():
    """Section 3: u = (M * W) v has mean q W v and variance p q (W * W)(v * v)."""
    u = np.asarray(outputs('dropconnect(rate=0.3,scaling="test")'))
    mean = np.asarray(0.7 * (X @ W))
    assert_mean(u, mean)
    assert_mean((u - mean) ** 2, 0.3 * 0.7 * (X**2 @ W**2))
    test_time = deterministic(parse('dropconnect(rate=0.3,scaling="test")'))
    np.testing.assert_allclose(test_time.linear(X, W, None, LINEAR), mean, rtol=1e-5)


def test_masks_of_a_batch_and_of_examples_agree_in_mean_gradient_not_in_its_variance():
    """A mask for each example averages the noise of a batch's gradient; one for all does not."""

    def gradient(text, step):
        scheme = parse(text)

        def loss(w):
            keys = jax.vmap(lambda i: Keys.of(jax.random.key(step), i))(jnp.arange(16))
            y = jax.vmap(lambda k: sampled(scheme, k).linear(X, w, None, LINEAR))(keys)
            return y.mean()

        return jax.grad(loss)(W)

    many = jax.vmap(lambda step: gradient("dropconnect", step))(jnp.arange(3000))
    own = jax.vmap(lambda step: gradient('dropconnect(mode="example")', step))(jnp.arange(3000))
    exact = jnp.tile(X[:, None] / 6, (1, 6))
    assert_mean(many, exact)
    assert_mean(own, exact)
    ratio = np.asarray(many).var(axis=0) / np.asarray(own).var(axis=0)
    np.testing.assert_allclose(ratio.mean(), 16, rtol=0.1)


def test_the_op_drops_weights():
    w = np.asarray(dropjax.dropconnect(jax.random.key(0), jnp.ones((100, 100)), 0.25))
    assert set(np.unique(w)) == {np.float32(0), np.float32(4 / 3)}


# The moments, and the Gaussian that has them.

KEY = jax.random.key(20)
SMALL_W = np.asarray([[0.5, -1.0], [2.0, 0.25], [-3.0, 1.5]], np.float32)
SMALL_X = np.asarray([1.0, -2.0, 0.5], np.float32)
SMALL_B = np.asarray([10.0, -1.0], np.float32)
RATES = [0.3, np.asarray([[0.1], [0.5], [0.9]], np.float32), np.float32([0.2, 0.7])]


def enumerated(rate, scaling):
    """Mean and variance over all 64 masks on a layer of 3 inputs and 2 outputs, in float64."""
    rate = np.broadcast_to(np.asarray(rate, np.float64), SMALL_W.shape)
    scale = 1 / (1 - rate) if scaling == "train" else np.ones_like(rate)
    outputs, weights = [], []
    for bits in itertools.product([0, 1], repeat=6):
        mask = np.reshape(bits, SMALL_W.shape)
        outputs.append(SMALL_X @ (mask * SMALL_W * scale) + SMALL_B)
        weights.append(np.prod(np.where(mask, 1 - rate, rate)))
    outputs, weights = np.asarray(outputs), np.asarray(weights)
    np.testing.assert_allclose(weights.sum(), 1)
    mean = weights @ outputs
    return mean, weights @ (outputs - mean) ** 2


def layer(f, *arguments, rate, scaling):
    return f(*arguments, SMALL_X, rate, w=SMALL_W, b=SMALL_B, scaling=scaling)


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("rate", RATES, ids=["one", "by input", "by output"])
def test_moments_are_those_of_all_masks(rate, scaling):
    mean, variance = enumerated(rate, scaling)
    found = jax.jit(lambda r: layer(dropjax.dropconnect_moments, rate=r, scaling=scaling))(rate)
    np.testing.assert_allclose(found[0], mean, rtol=1e-6)
    np.testing.assert_allclose(found[1], variance, rtol=1e-6)
    for name in ("dropconnect_linear", "dropconnect_gaussian"):
        expected = layer(getattr(dropjax.expected, name), rate=rate, scaling=scaling)
        np.testing.assert_allclose(expected, mean, rtol=1e-6)


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("op", [dropjax.dropconnect_gaussian, dropjax.dropconnect_linear])
def test_samples_have_the_moments_of_all_masks(op, scaling):
    mean, variance = enumerated(0.3, scaling)
    x = jnp.tile(jnp.asarray(SMALL_X), (50_000, 1))
    u = np.asarray(op(KEY, x, 0.3, w=SMALL_W, b=SMALL_B, scaling=scaling), np.float64)
    assert_mean(u, mean)
    assert_mean((u - mean) ** 2, variance)
    assert_mean((u[:, 0] - mean[0]) * (u[:, 1] - mean[1]), 0)  # outputs share no weight
    masks = op is dropjax.dropconnect_linear
    assert len(np.unique(u[:, 0])) == 8 if masks else len(np.unique(u[:, 0])) > 10_000


def test_inference_averages_what_follows_not_the_pre_activation():
    """Algorithm 2: the mean of relu(u), for which the Gaussian has a closed form."""
    mean, variance = (np.asarray(m, np.float64) for m in enumerated(0.3, "test"))
    x = jnp.tile(jnp.asarray(SMALL_X), (50_000, 1))
    u = dropjax.dropconnect_gaussian(KEY, x, 0.3, w=SMALL_W, b=SMALL_B, scaling="test")
    std = np.sqrt(variance)
    normal = scipy.stats.norm
    closed = mean * normal.cdf(mean / std) + std * normal.pdf(mean / std)
    assert_mean(jax.nn.relu(u), closed)
    assert (np.abs(closed - np.maximum(mean, 0)) > 1e-3).any()


def test_at_rate_0_it_is_the_layer_and_at_rate_1_the_bias_with_finite_gradients():
    for scaling in ("train", "test"):
        for op in (dropjax.dropconnect_gaussian, dropjax.dropconnect_linear):

            @jax.jit
            def f(x, w, rate, op=op, scaling=scaling):
                return op(KEY, x, rate, w=w, b=SMALL_B, scaling=scaling)

            plain = SMALL_X @ SMALL_W + SMALL_B
            np.testing.assert_allclose(f(SMALL_X, SMALL_W, 0.0), plain, rtol=1e-6)
            np.testing.assert_array_equal(f(SMALL_X, SMALL_W, 1.0), SMALL_B)
            for rate in (0.0, 0.5, 1.0):
                for x in (SMALL_X, np.zeros(3, np.float32)):
                    slopes = jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), (0, 1, 2))(
                        x, SMALL_W, rate
                    )
                    assert all(bool(jnp.isfinite(slope).all()) for slope in slopes)
                    assert slopes[2] == 0
                    if rate == 1:
                        assert all((slope == 0).all() for slope in slopes)


def test_without_noise_the_gaussian_is_the_layer_to_the_bit():
    x = jax.random.normal(KEY, (5, 40), jnp.bfloat16)
    w = jax.random.normal(jax.random.key(1), (40, 6), jnp.bfloat16)
    y = dropjax.dropconnect_gaussian(KEY, x, 0.0, w=w)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x @ w)


def test_half_precision_squares_in_float32():
    """In float16 squares of weights of 1e-3 are 1e-6, and of 1e-4 are 0."""
    x, w = jnp.ones(100, jnp.float16), jnp.full((100, 2), 1e-4, jnp.float16)
    mean, variance = dropjax.dropconnect_moments(x, 0.5, w=w)
    assert mean.dtype == jnp.float16 and variance.dtype == jnp.float32
    np.testing.assert_allclose(variance, 100 * float(w[0, 0]) ** 2, rtol=1e-5)


# A mask for each row.


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
@pytest.mark.parametrize("scaling, scale", [("train", 1 / 0.7), ("test", 1.0)])
def test_each_row_has_a_mask_of_its_own_whatever_the_chunk(chunk, scaling, scale):
    x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    keep = np.asarray(dropjax.keep_mask(KEY, 0.3, (8, 5, 6)))
    named = {"scaling": scaling, "chunk": chunk}

    def loss(x, w):
        return (dropjax.dropconnect_linear(KEY, x, 0.3, w=w, **named) ** 2).sum()

    def reference(x, w):
        rows = jnp.einsum("ni,nio->no", x.reshape(8, 5), jnp.where(keep, w[None] * scale, 0))
        return (rows**2).sum()

    y = dropjax.dropconnect_linear(KEY, x, 0.3, w=w, **named)
    rows = [x.reshape(8, 5)[n] @ (keep[n] * w * np.float32(scale)) for n in range(8)]
    np.testing.assert_allclose(np.asarray(y).reshape(8, 6), rows, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(
        jax.grad(loss, argnums=(0, 1))(x, w), jax.grad(reference, argnums=(0, 1))(x, w), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_it_needs_the_memory_of_a_few_masks_not_of_one_for_each_row():
    x, w = jnp.ones((32, 512)), jnp.ones((512, 600))

    def bytes_of(f):
        total = jax.jit(jax.grad(lambda w: f(w).sum()))
        return total.lower(w).compile().memory_analysis().temp_size_in_bytes

    def vmapped(w):
        keys = jax.random.split(KEY, len(x))
        return jax.vmap(lambda k, row: row @ dropjax.dropconnect(k, w, 0.5))(keys, x)

    assert bytes_of(vmapped) > 32 * w.nbytes
    assert bytes_of(lambda w: dropjax.dropconnect_linear(KEY, x, 0.5, w=w)) < 8 * w.nbytes
    assert bytes_kept(lambda w: dropjax.dropconnect_linear(KEY, x, 0.5, w=w), w) < 4 * w.nbytes


def test_half_precision_sums_in_float32():
    x, w = jnp.ones((3, 4096), jnp.bfloat16), jnp.ones((4096, 2), jnp.bfloat16)
    y = dropjax.dropconnect_linear(KEY, x, 0.5, w=w)
    exact = dropjax.dropconnect_linear(KEY, x.astype(jnp.float32), 0.5, w=w.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


# The scheme's mode.


@pytest.mark.parametrize("scaling", ["train", "test"])
def test_the_gaussian_mode_has_the_masks_moments_at_dense_layers_and_kernels(scaling):
    u = np.asarray(outputs(f'dropconnect(rate=0.3,mode="gaussian",scaling="{scaling}")'))
    mean, variance = dropjax.dropconnect_moments(X, 0.3, w=W, scaling=scaling)
    assert_mean(u, mean)
    assert_mean((u - np.asarray(mean)) ** 2, variance)
    assert scipy.stats.kstest((u[:, 0] - mean[0]) / np.sqrt(variance[0]), "norm").pvalue > 1e-3
    scheme = parse(f'dropconnect(rate=0.3,mode="gaussian",scaling="{scaling}")')
    site = SITES[Kind.WEIGHT]
    noisy = jax.vmap(lambda i: sampled(scheme, Keys.of(KEY, i))(W, site))(jnp.arange(20_000))
    q, scale = 0.7, 1 / 0.7 if scaling == "train" else 1
    assert_mean(noisy, q * scale * W)
    assert_mean((np.asarray(noisy) - np.asarray(q * scale * W)) ** 2, 0.3 * q * scale**2 * W**2)


def test_in_gaussian_mode_each_example_and_each_row_has_noise_of_its_own():
    batch = np.asarray(outputs('dropconnect(mode="gaussian")', examples=5))
    assert len(np.unique(batch[:, 0])) == 5
    draw = sampled(parse('dropconnect(mode="gaussian")'), KEY)
    rows = np.asarray(draw.linear(jnp.tile(X, (3, 1)), W, None, LINEAR))
    assert len(np.unique(rows[:, 0])) == 3


@pytest.mark.parametrize(
    "x, rate, named, error, match",
    [
        (X.astype(int), 0.5, {}, TypeError, "^x must be an array of floats"),
        (X, 0.5, {"w": W.astype(int)}, TypeError, "^w must be an array of floats"),
        (X, 0.5, {"b": 1}, TypeError, "^b must be an array of floats"),
        (X, 1.5, {}, ValueError, "^rate is the probability"),
        (X, jnp.full(4, 0.5), {}, ValueError, "does not broadcast"),
        (X[:3], 0.5, {}, ValueError, "^x of shape .* does not fit w"),
        (X[0], 0.5, {}, ValueError, "^x of shape .* does not fit w"),
        (X, 0.5, {"w": W[0]}, ValueError, "^w must be a matrix"),
        (X, 0.5, {"b": jnp.ones(4)}, ValueError, "^b of shape .* does not fit w"),
        (X, 0.5, {"scaling": "none"}, ValueError, "^scaling must be one of"),
    ],
)
def test_errors(x, rate, named, error, match):
    named = {"w": W} | named
    for f in (dropjax.dropconnect_linear, dropjax.dropconnect_gaussian):
        with pytest.raises(error, match=match):
            f(KEY, x, rate, **named)
        with pytest.raises(TypeError, match=r"^key must be a PRNG key"):
            f(0, X, 0.5, w=W)
    for f in (dropjax.dropconnect_moments, dropjax.expected.dropconnect_linear):
        with pytest.raises(error, match=match):
            f(x, rate, **named)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)])
def test_no_rows_or_no_inputs(shape):
    for f in (dropjax.dropconnect_linear, dropjax.dropconnect_gaussian):
        y = f(KEY, jnp.ones(shape), 0.5, w=jnp.ones((shape[1], 3)))
        assert y.shape == (shape[0], 3) and not y.any()


@pytest.mark.parametrize("chunk", [0, 1.5, True])
def test_a_chunk_is_a_number_of_rows(chunk):
    with pytest.raises(ValueError, match=r"^chunk must be a whole number of rows"):
        dropjax.dropconnect_linear(KEY, X, 0.5, w=W, chunk=chunk)
