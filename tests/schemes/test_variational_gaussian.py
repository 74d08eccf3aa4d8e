"""Facts of Kingma, Salimans, Welling 2015."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind
from dropjax.schemes import parse
from dropjax.schemes.variational_gaussian import VariationalGaussian
from experiments.papers.local_reparameterization import WeightNoise
from tests.cases import SITES
from tests.compiled import compiled, expected, normal, ops
from tests.statistics import assert_mean

KEY = jax.random.key(7)
LINEAR = SITES[Kind.LINEAR]
SITES_OF_LAYER = {LINEAR.name: (LINEAR, (4, 6))}
W = normal(4, 6)
X = normal(4, seed=1)
B = np.arange(6, dtype=np.float32)
NOISES = pytest.mark.parametrize("noise", ["weights", "inputs"])


def initial(scheme):
    scheme = parse(scheme) if isinstance(scheme, str) else scheme
    return scheme.bind(scheme.init_learned(KEY, SITES_OF_LAYER, {LINEAR.name: W}))


def outputs(scheme, count=20_000):
    return np.float64(drawn(scheme, np.arange(count)))


@compiled
def drawn(scheme, rows):
    def one(row):
        return sampled(scheme, Keys.of(jax.random.key(0), row)).linear(X, W, B, LINEAR)

    return jax.vmap(one)(rows)


MEAN = np.asarray(X @ W + B, np.float64)


@NOISES
def test_alpha_is_a_variance_and_the_noise_has_mean_1(noise):
    """The copied mistakes: noise of mean 0, and alpha as a standard deviation."""
    y = outputs(initial(f'variational_gaussian(initial=0.2,noise="{noise}")'))  # alpha 0.25
    assert_mean(y, MEAN)
    assert_mean((y - MEAN) ** 2, 0.25 * np.asarray(X**2 @ W**2))


@pytest.mark.parametrize("alphas", ["layer", "unit", "element"])
@NOISES
def test_noise_on_weights_is_independent_between_outputs_and_noise_on_inputs_is_not(noise, alphas):
    y = outputs(initial(f'variational_gaussian(noise="{noise}",alphas="{alphas}")'))  # alpha 1
    product = (y[:, :1] - MEAN[0]) * (y[:, 1:] - MEAN[1:])
    shared = np.asarray((X**2 * W[:, 0]) @ W[:, 1:])
    assert_mean(product, shared if noise == "inputs" else 0.0)


def test_each_weight_unit_or_layer_has_an_alpha():
    def shape(text):
        return initial(text).learned[LINEAR.name]["log_alpha"].shape

    assert shape("variational_gaussian") == (1, 1)
    assert shape('variational_gaussian(alphas="unit")') == (4, 1)
    assert shape('variational_gaussian(alphas="element")') == (4, 6)
    assert shape('variational_gaussian(alphas="element",noise="inputs")') == (4, 1)


def test_alphas_of_weights_are_their_own():
    log_alpha = normal(4, 6, seed=10) - 2
    scheme = parse('variational_gaussian(alphas="element")')
    y = outputs(scheme.bind({LINEAR.name: {"log_alpha": log_alpha}}))
    assert_mean((y - MEAN) ** 2, np.asarray(X**2 @ (np.exp(log_alpha) * W**2)))
    own = parse('variational_gaussian(alphas="unit",noise="inputs")')
    y = outputs(own.bind({LINEAR.name: {"log_alpha": log_alpha[:, :1]}}))
    assert_mean((y - MEAN) ** 2, np.asarray((X**2 * np.exp(log_alpha[:, 0])) @ W**2))


def test_the_penalty_is_summed_over_weights_or_over_inputs():
    """A sum, not a mean: it stands beside the likelihood of the whole training set."""
    alpha = 0.25
    cubic = 1.16145124 * alpha - 1.50204118 * alpha**2 + 0.58629921 * alpha**3
    one = (np.euler_gamma + np.log(2)) / 2 - (0.5 * np.log(alpha) + cubic)
    for alphas in ("layer", "unit", "element"):
        for noise, terms in [("weights", 24), ("inputs", 4)]:
            text = f'variational_gaussian(initial=0.2,noise="{noise}",alphas="{alphas}")'
            penalty = initial(text).penalty_at(LINEAR, (4, 6), W)
            assert penalty == pytest.approx(terms * one, rel=1e-5)


def test_alpha_stays_at_most_1_and_can_come_back():
    """The cubic explodes beyond 1. There the penalty stops pulling, but the loss does not."""
    scheme = parse("variational_gaussian")

    def bound(log_alpha):
        return scheme.bind({LINEAR.name: {"log_alpha": jnp.full((1, 1), log_alpha)}})

    def noisy(log_alpha):
        return sampled(bound(log_alpha), KEY).linear(X, W, B, LINEAR)

    def penalty(log_alpha):
        return bound(log_alpha).penalty_at(LINEAR, (4, 6), W)

    @compiled
    def at(log_alpha):
        value, slope = jax.value_and_grad(penalty)(log_alpha)
        return noisy(log_alpha), jax.grad(lambda a: noisy(a)[0])(log_alpha), value, slope

    above, most, below = (at(np.asarray(a, np.float32)) for a in (2.0, 0.0, -0.1))
    np.testing.assert_array_equal(above[0], most[0])
    assert above[2] == most[2] and above[3] == 0 > below[3]
    assert above[1] == most[1] == pytest.approx(float(most[0][0] - MEAN[0]) / 2)
    assert bound(2.0).report_at(LINEAR, W)["alpha"] == 1


def test_the_variance_of_the_gradient_is_least_with_local_noise_and_most_with_one_sample():
    """Section 2.2 and table 1: local < weights drawn for each example < for the batch."""
    xs = normal(32, 4, seed=5) + 1
    targets = np.sin(xs @ W)

    def gradients(scheme):
        @compiled
        @jax.vmap
        def one(step):
            def loss(w):
                def example(i, x, target):
                    keys = Keys.of(jax.random.key(step), i)
                    y = sampled(scheme, keys).linear(x, w, None, LINEAR)
                    return jnp.sum(jnp.square(jnp.tanh(y) - target))

                return jnp.mean(jax.vmap(example)(jnp.arange(32), xs, targets))

            return jax.grad(loss)(W)

        return np.float64(one(np.arange(2000)))

    local, separate, single = (
        gradients(scheme)
        for scheme in (
            initial(VariationalGaussian()),
            initial(WeightNoise(draws="example")),
            initial(WeightNoise(draws="step")),
        )
    )
    total = [g.var(axis=0).sum() for g in (local, separate, single)]
    assert 1.2 * total[0] < total[1] and 2 * total[1] < total[2]
    assert_mean(local - separate, 0.0)  # one expectation: only the variance differs
    assert_mean(local - single, 0.0)


def test_gradients_are_finite_where_the_variance_is_0():
    scheme = initial("variational_gaussian")

    def total(x, w):
        return sampled(scheme, KEY).linear(x, w, None, LINEAR).sum()

    slopes = compiled(jax.grad(total, argnums=(0, 1)))
    for x, w in [(0 * X, W), (X, 0 * W), (np.float32(1e-25) * X, W)]:
        assert all(np.isfinite(g).all() for g in slopes(x, w))
    np.testing.assert_allclose(slopes(0 * X, W)[0], W.sum(axis=1), rtol=1e-5)


def test_alpha_0_is_no_noise():
    for noise in ("weights", "inputs"):
        y = dropjax.variational_gaussian_linear(KEY, X, -jnp.inf, w=W, b=B, noise=noise)
        np.testing.assert_array_equal(y, dropjax.expected.variational_gaussian_linear(X, w=W, b=B))


@NOISES
def test_a_variance_that_is_no_number_is_seen(noise):
    """Rather than taken for none."""
    y = dropjax.variational_gaussian_linear(KEY, X, jnp.nan, w=W, noise=noise)
    assert np.isnan(y).all()


@NOISES
def test_the_result_is_of_the_dtype_of_x_whatever_that_of_the_weights(noise):
    x = X.astype(jnp.bfloat16)
    y = ops.variational_gaussian_linear(KEY, x, -1.0, w=W, b=B, noise=noise)
    mean = expected.variational_gaussian_linear(x, w=W, b=B)
    assert y.dtype == mean.dtype == jnp.bfloat16
    np.testing.assert_allclose(mean.astype(jnp.float32), MEAN, rtol=0.05, atol=0.05)


def test_noise_is_drawn_for_each_row():
    scheme = initial("variational_gaussian")
    y = compiled(sampled(scheme, KEY).linear)(np.stack([X, X]), W, None, LINEAR)
    assert y.shape == (2, 6) and not np.any(y[0] == y[1])


def test_evaluation_is_the_plain_layer():
    y = deterministic(initial("variational_gaussian")).linear(X, W, B, LINEAR)
    np.testing.assert_array_equal(y, X @ W + B)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((KEY, X, X, 0.0), {}, ValueError, "^w must be a matrix"),
        ((KEY, jnp.ones(3), W, 0.0), {}, ValueError, "^x of shape .3,. does not fit w"),
        ((KEY, X, W, 0.0), {"b": X}, ValueError, "^b of shape .4,. does not fit w"),
        ((KEY, X, W, W), {"noise": "inputs"}, ValueError, "^log_alpha .*does not broadcast"),
        ((KEY, X, W, 0.0), {"noise": "both"}, ValueError, "^noise must be one of weights, inputs"),
    ],
)
def test_errors(arguments, options, error, match):
    with pytest.raises(error, match=match):
        key, x, w, learned = arguments
        dropjax.variational_gaussian_linear(key, x, learned, w=w, **options)


@pytest.mark.parametrize("value", [0.0, 0.6, 1.0])
def test_the_initial_rate_gives_an_alpha_of_at_most_1(value):
    with pytest.raises(ValueError, match=r"^initial must be"):
        parse(f"variational_gaussian(initial={value})")
