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
from tests.compiled import compiled, normal
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

LINEAR = SITES[Kind.LINEAR]
W, X = normal(4, 6), normal(4, seed=1)

dropconnect_gaussian = compiled(dropjax.dropconnect_gaussian)
dropconnect_linear = compiled(dropjax.dropconnect_linear)
dropconnect_moments = compiled(dropjax.dropconnect_moments)


def outputs(text, examples=None, keys=20_000):
    scheme = parse(text)

    def one(i):
        step = jax.random.key(i if examples is None else 0)
        return sampled(scheme, Keys.of(step, i)).linear(X, W, None, LINEAR)

    return compiled(jax.vmap(one))(np.arange(examples or keys))


def test_one_mask_for_the_whole_batch_by_default():
    batch = outputs("dropconnect", examples=5)
    assert (batch == batch[0]).all()


def test_one_mask_an_example_as_in_the_paper():
    batch = outputs('dropconnect(mode="example")', examples=5)
    assert all((batch[0] != row).any() for row in batch[1:])


def test_moments_are_those_of_the_paper_s_gaussian():
    """Section 3: u = (M * W) v has mean q W v and variance p q (W * W)(v * v)."""
    u = outputs('dropconnect(rate=0.3,scaling="test")')
    mean = 0.7 * (X @ W)
    assert_mean(u, mean)
    assert_mean((u - mean) ** 2, 0.3 * 0.7 * (X**2 @ W**2))
    test_time = deterministic(parse('dropconnect(rate=0.3,scaling="test")'))
    y = compiled(test_time.linear)(X, W, None, LINEAR)
    np.testing.assert_allclose(y, mean, rtol=1e-5)


def test_masks_of_a_batch_and_of_examples_agree_in_mean_gradient_not_in_its_variance():
    """A mask for each example averages the noise of a batch's gradient; one for all does not."""

    def gradient(text, step):
        scheme = parse(text)

        def loss(w):
            keys = jax.vmap(lambda i: Keys.of(jax.random.key(step), i))(jnp.arange(16))
            y = jax.vmap(lambda k: sampled(scheme, k).linear(X, w, None, LINEAR))(keys)
            return y.mean()

        return jax.grad(loss)(W)

    @compiled
    @jax.vmap
    def gradients(step):
        return gradient("dropconnect", step), gradient('dropconnect(mode="example")', step)

    many, own = gradients(np.arange(3000))
    exact = np.tile(X[:, None] / 6, (1, 6))
    assert_mean(many, exact)
    assert_mean(own, exact)
    ratio = many.var(axis=0) / own.var(axis=0)
    np.testing.assert_allclose(ratio.mean(), 16, rtol=0.1)


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


@pytest.mark.parametrize("rate", RATES, ids=["one", "by input", "by output"])
def test_moments_are_those_of_all_masks(rate):
    @compiled
    def moments_and_means(traced):
        return {
            scaling: (
                layer(dropjax.dropconnect_moments, rate=traced, scaling=scaling),
                layer(dropjax.expected.dropconnect_linear, rate=rate, scaling=scaling),
                layer(dropjax.expected.dropconnect_gaussian, rate=rate, scaling=scaling),
            )
            for scaling in ("train", "test")
        }

    for scaling, (moments, *means) in moments_and_means(np.float32(rate)[...]).items():
        mean, variance = enumerated(rate, scaling)
        np.testing.assert_allclose(moments[0], mean, rtol=1e-6)
        np.testing.assert_allclose(moments[1], variance, rtol=1e-6)
        for expected in means:
            np.testing.assert_allclose(expected, mean, rtol=1e-6)


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("op", [dropconnect_gaussian, dropconnect_linear])
def test_samples_have_the_moments_of_all_masks(op, scaling):
    mean, variance = enumerated(0.3, scaling)
    x = np.tile(SMALL_X, (50_000, 1))
    u = np.asarray(op(KEY, x, 0.3, w=SMALL_W, b=SMALL_B, scaling=scaling), np.float64)
    assert_mean(u, mean)
    assert_mean((u - mean) ** 2, variance)
    assert_mean((u[:, 0] - mean[0]) * (u[:, 1] - mean[1]), 0)  # outputs share no weight
    masks = op is dropconnect_linear
    assert len(np.unique(u[:, 0])) == 8 if masks else len(np.unique(u[:, 0])) > 10_000


def test_inference_averages_what_follows_not_the_pre_activation():
    """Algorithm 2: the mean of relu(u), for which the Gaussian has a closed form."""
    mean, variance = (np.asarray(m, np.float64) for m in enumerated(0.3, "test"))
    x = np.tile(SMALL_X, (50_000, 1))
    u = dropconnect_gaussian(KEY, x, 0.3, w=SMALL_W, b=SMALL_B, scaling="test")
    std = np.sqrt(variance)
    normal = scipy.stats.norm
    closed = mean * normal.cdf(mean / std) + std * normal.pdf(mean / std)
    assert_mean(np.maximum(u, 0), closed)
    assert (np.abs(closed - np.maximum(mean, 0)) > 1e-3).any()


def test_at_rate_0_it_is_the_layer_and_at_rate_1_the_bias_with_finite_gradients():
    ops = (dropjax.dropconnect_gaussian, dropjax.dropconnect_linear)
    kinds = itertools.product(("train", "test"), ops)

    def outputs_and_slopes(scaling, op):
        def f(x, w, rate):
            return op(KEY, x, rate, w=w, b=SMALL_B, scaling=scaling)

        slopes = jax.grad(lambda *arguments: jnp.sum(f(*arguments) ** 2), (0, 1, 2))
        each = [jax.vmap(of, (None, None, 0)) for of in (f, slopes)]
        return lambda x, w, rates: [of(x, w, rates) for of in each]

    of_each = [outputs_and_slopes(*kind) for kind in kinds]

    @compiled
    def by_kind_and_input(xs, w, rates):
        return [[of(x, w, rates) for x in xs] for of in of_each]

    xs, rates = [SMALL_X, np.zeros(3, np.float32)], np.float32([0.0, 0.5, 1.0])
    for at_x, at_zeros in by_kind_and_input(xs, SMALL_W, rates):
        first, _, last = at_x[0]
        np.testing.assert_allclose(first, SMALL_X @ SMALL_W + SMALL_B, rtol=1e-6)
        np.testing.assert_array_equal(last, SMALL_B)
        for _, slopes in (at_x, at_zeros):
            assert all(np.isfinite(slope).all() for slope in slopes)
            assert (slopes[2] == 0).all()
            assert all((slope[2] == 0).all() for slope in slopes)


def test_without_noise_the_gaussian_is_the_layer_to_the_bit():
    x, w = normal(5, 40).astype(jnp.bfloat16), normal(40, 6, seed=1).astype(jnp.bfloat16)
    y = dropconnect_gaussian(KEY, x, 0.0, w=w)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, compiled(jnp.matmul)(x, w))


def test_half_precision_squares_in_float32():
    """In float16 squares of weights of 1e-3 are 1e-6, and of 1e-4 are 0."""
    x, w = np.ones(100, np.float16), np.full((100, 2), 1e-4, np.float16)
    mean, variance = dropconnect_moments(x, 0.5, w=w)
    assert mean.dtype == jnp.float16 and variance.dtype == jnp.float32
    np.testing.assert_allclose(variance, 100 * float(w[0, 0]) ** 2, rtol=1e-5)


# A mask for each row.


@pytest.mark.parametrize("scaling, scale", [("train", 1 / 0.7), ("test", 1.0)])
def test_each_row_has_a_mask_of_its_own_whatever_the_chunk(scaling, scale):
    x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    keep = np.asarray(dropjax.keep_mask(KEY, 0.3, (8, 5, 6)))

    def ours(chunk):
        def layer(x, w):
            y = dropjax.dropconnect_linear(KEY, x, 0.3, w=w, scaling=scaling, chunk=chunk)
            return (y**2).sum(), y

        return layer

    def reference(x, w):
        rows = jnp.einsum("ni,nio->no", x.reshape(8, 5), jnp.where(keep, w[None] * scale, 0))
        return (rows**2).sum()

    @compiled
    def by_chunk(x, w):
        gradients = [
            jax.grad(ours(chunk), argnums=(0, 1), has_aux=True)(x, w) for chunk in (None, 1, 3, 100)
        ]
        return gradients, jax.grad(reference, argnums=(0, 1))(x, w)

    gradients, wanted = by_chunk(x, w)
    rows = [x.reshape(8, 5)[n] @ (keep[n] * w * np.float32(scale)) for n in range(8)]
    for slopes, y in gradients:
        np.testing.assert_allclose(y.reshape(8, 6), rows, rtol=1e-5, atol=1e-6)
        for slope, of_reference in zip(slopes, wanted, strict=True):
            np.testing.assert_allclose(slope, of_reference, rtol=1e-4, atol=1e-5)


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
    x, w = np.ones((3, 4096), jnp.bfloat16), np.ones((4096, 2), jnp.bfloat16)
    y = dropconnect_linear(KEY, x, 0.5, w=w)
    exact = dropconnect_linear(KEY, x.astype(np.float32), 0.5, w=w.astype(np.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


# The scheme's mode.


@pytest.mark.parametrize("scaling", ["train", "test"])
def test_the_gaussian_mode_has_the_masks_moments_at_dense_layers_and_kernels(scaling):
    u = outputs(f'dropconnect(rate=0.3,mode="gaussian",scaling="{scaling}")')
    mean, variance = dropconnect_moments(X, 0.3, w=W, scaling=scaling)
    assert_mean(u, mean)
    assert_mean((u - mean) ** 2, variance)
    assert scipy.stats.kstest((u[:, 0] - mean[0]) / np.sqrt(variance[0]), "norm").pvalue > 1e-3
    scheme = parse(f'dropconnect(rate=0.3,mode="gaussian",scaling="{scaling}")')
    site = SITES[Kind.WEIGHT]
    draws = compiled(jax.vmap(lambda i: sampled(scheme, Keys.of(KEY, i))(W, site)))
    noisy = draws(np.arange(20_000))
    q, scale = 0.7, 1 / 0.7 if scaling == "train" else 1
    assert_mean(noisy, q * scale * W)
    assert_mean((noisy - q * scale * W) ** 2, 0.3 * q * scale**2 * W**2)


def test_in_gaussian_mode_each_example_and_each_row_has_noise_of_its_own():
    batch = outputs('dropconnect(mode="gaussian")', examples=5)
    assert len(np.unique(batch[:, 0])) == 5
    draw = sampled(parse('dropconnect(mode="gaussian")'), KEY)
    rows = compiled(draw.linear)(np.tile(X, (3, 1)), W, None, LINEAR)
    assert len(np.unique(rows[:, 0])) == 3


@pytest.mark.parametrize(
    "x, rate, named, error, match",
    [
        (X, 0.5, {"w": W.astype(int)}, TypeError, "^w must be an array of floats"),
        (X, 0.5, {"b": 1}, TypeError, "^b must be an array of floats"),
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


def test_no_rows_or_no_inputs():
    shapes = [(0, 4), (2, 0), (0, 0)]

    @compiled
    def of_ones():
        ops = (dropjax.dropconnect_linear, dropjax.dropconnect_gaussian)
        return [
            [f(KEY, jnp.ones(shape), 0.5, w=jnp.ones((shape[1], 3))) for f in ops]
            for shape in shapes
        ]

    for shape, outputs in zip(shapes, of_ones(), strict=True):
        for y in outputs:
            assert y.shape == (shape[0], 3) and not y.any()


def test_a_chunk_is_a_number_of_rows():
    for chunk in (0, 1.5, True):
        with pytest.raises(ValueError, match=r"^chunk must be a whole number of rows"):
            dropjax.dropconnect_linear(KEY, X, 0.5, w=W, chunk=chunk)
