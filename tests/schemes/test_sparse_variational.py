"""Facts of Molchanov, Ashukha, Vetrov 2017 and of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind
from dropjax.schemes import parse
from dropjax.schemes.sparse_variational import log_alpha_of, prune
from dropjax.train import Problem, fit
from tests.cases import SITES
from tests.compiled import compiled, expected, normal, ones, ops
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(7)
LINEAR = SITES[Kind.LINEAR]
W = normal(4, 6)
X = normal(4, seed=1) + 1
B = np.arange(6, dtype=np.float32)
LOG_ALPHA = np.clip(3 * normal(4, 6, seed=2) + 1, -7, 7)
LOG_SIGMA2 = LOG_ALPHA + np.log(np.square(W))
PRUNED = np.where(LOG_ALPHA >= 3, 0, W)


def bound(log_sigma2=LOG_SIGMA2, text="sparse_variational"):
    return parse(text).bind({LINEAR.name: {"log_sigma2": log_sigma2}})


def test_some_weights_are_pruned_here():
    assert 0.1 < np.mean(LOG_ALPHA >= 3) < 0.9


def test_moments_are_those_of_independent_weights_with_variances_of_their_own():
    """Additive noise: sigma does not depend on w. Pruned weights have mean 0, and are noise."""

    @compiled
    @jax.vmap
    def draws(i):
        return sampled(bound(), Keys.of(jax.random.key(0), i)).linear(X, W, B, LINEAR)

    y, mean = np.float64(draws(np.arange(20_000))), np.float64(X @ PRUNED + B)
    assert_mean(y, mean)
    assert_mean((y - mean) ** 2, np.square(X) @ np.exp(LOG_SIGMA2))
    assert_mean((y[:, 0] - mean[0]) * (y[:, 1] - mean[1]), 0.0)


def test_evaluation_is_the_mean_and_what_is_noise_is_pruned():
    """Not weights drawn for each batch, with nothing pruned, as elsewhere."""
    y = compiled(lambda x, w, b: deterministic(bound()).linear(x, w, b, LINEAR))(X, W, B)
    np.testing.assert_allclose(y, X @ PRUNED + B, rtol=1e-5)
    np.testing.assert_array_equal(compiled(prune)(W, LOG_SIGMA2), PRUNED)
    op = expected.sparse_variational_linear(X, LOG_SIGMA2, w=W, b=B)
    np.testing.assert_array_equal(op, y)


def test_the_threshold_is_reached_at_3():
    w = ones(3)
    just = jnp.asarray([3.0, np.nextafter(np.float32(3), np.float32(0)), 2.0])
    assert prune(w, just).tolist() == [0, 1, 1]
    assert prune(w, just, threshold=2.0).tolist() == [0, 0, 0]
    assert prune(w.astype(jnp.bfloat16), just).dtype == jnp.bfloat16


def test_log_alpha_is_kept_within_8():
    w = jnp.asarray([0.0, 1e-30, 1.0, 1.0, 2.0])
    log_sigma2 = jnp.asarray([-10.0, 0.0, 20.0, -20.0, 1.0])
    expected = [8, 8, 8, -8, 1 - np.log(4)]
    np.testing.assert_allclose(log_alpha_of(w, log_sigma2), expected, rtol=1e-6)


def test_the_penalty_is_the_paper_s_and_is_summed():
    log_alpha = LOG_ALPHA.astype(np.float64)
    negative = 0.63576 * expit(1.8732 + 1.48695 * log_alpha)
    negative += -0.5 * np.log1p(np.exp(-log_alpha)) - 0.63576
    assert bound().penalty_at(LINEAR, (4, 6), W) == pytest.approx(-negative.sum(), rel=1e-5)


def test_the_report_is_the_share_of_pruned_weights():
    report = bound().report_at(LINEAR, W)
    assert report["sparsity"] == pytest.approx(np.mean(LOG_ALPHA >= 3))
    assert bound(text="sparse_variational(threshold=9.0)").report_at(LINEAR, W)["sparsity"] == 0


def test_the_result_is_of_the_dtype_of_x_whatever_that_of_the_weights():
    x = X.astype(jnp.bfloat16)
    y = ops.sparse_variational_linear(KEY, x, -10.0, w=W, b=B)
    mean = expected.sparse_variational_linear(x, -10.0, w=W, b=B)
    assert y.dtype == mean.dtype == jnp.bfloat16
    np.testing.assert_allclose(mean.astype(jnp.float32), X @ W + B, rtol=0.05, atol=0.05)


def test_weights_start_with_little_noise():
    scheme = parse("sparse_variational")
    learned = scheme.init_learned(KEY, {LINEAR.name: (LINEAR, (4, 6))}, {LINEAR.name: W})
    np.testing.assert_array_equal(learned[LINEAR.name]["log_sigma2"], np.full((4, 6), -10))


def test_gradients_are_finite_where_variances_or_weights_are_0():
    def total(x, w, log_sigma2):
        scheme = bound(log_sigma2)
        y = sampled(scheme, KEY).linear(x, w, None, LINEAR).sum()
        return y + scheme.penalty_at(LINEAR, (4, 6), w)

    some = W.copy()
    some[0], some[1] = 0.0, 1e-12
    slopes = compiled(jax.grad(total, argnums=(0, 1, 2)))
    for log_sigma2 in (-300.0, -10.0, 30.0):
        for x, w in [(0 * X, W), (X, 0 * W), (X, some), (np.float32(1e-25) * X, some)]:
            gradients = slopes(x, w, np.full((4, 6), log_sigma2, np.float32))
            assert all(np.isfinite(g).all() for g in gradients)


def test_a_pruned_mean_has_no_gradient_but_its_variance_has():
    def total(w, log_sigma2):
        return jnp.square(sampled(bound(log_sigma2), KEY).linear(X, w, None, LINEAR)).sum()

    to_w, to_variance = compiled(jax.grad(total, argnums=(0, 1)))(W, LOG_SIGMA2)
    gone = PRUNED == 0
    np.testing.assert_allclose(to_w[gone], 0, atol=1e-3)
    assert np.all(np.abs(to_w[~gone]) > 1e-4) and np.all(to_variance != 0)


def test_useless_weights_are_pruned_and_useful_ones_kept():
    x = normal(200, 8, seed=3)
    y = 3 * x[:, 0] - 2 * x[:, 1]

    def apply(params, x, draw):
        return draw.linear(x, params, None, LINEAR)[0]

    of = Problem(
        apply,
        lambda outputs, y: {"loss": jnp.square(outputs - y) / 2},
        parse("sparse_variational"),
        optax.adam(optax.linear_schedule(0.03, 0.0, 600)),
        penalty=optax.linear_schedule(0.0, 1.0, 200),
    )
    w = normal(8, 1)
    fitted = fit(of, w, x, y, key=KEY, epochs=150, batch_size=50)
    pruned = prune(fitted.params, fitted.learned[LINEAR.name]["log_sigma2"])
    weights = np.asarray(pruned)[:, 0]
    np.testing.assert_allclose(weights[:2], [3, -2], rtol=0.05)
    assert np.sum(weights[2:] == 0) >= 4 and np.all(np.abs(weights[2:]) < 0.05)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((KEY, X, W.astype(jnp.int32), 0.0), {}, TypeError, "^w must be an array of floats"),
        ((KEY, jnp.ones(3), W, 0.0), {}, ValueError, "^x of shape .3,. does not fit w"),
        ((KEY, X, W, 0.0), {"threshold": jnp.nan}, ValueError, "^threshold must be finite"),
        ((KEY, X, W, 0.0), {"threshold": "x"}, TypeError, "^threshold must be a number"),
    ],
)
def test_errors(arguments, options, error, match):
    with pytest.raises(error, match=match):
        key, x, w, learned = arguments
        dropjax.sparse_variational_linear(key, x, learned, w=w, **options)


@pytest.mark.parametrize("field", ["initial", "threshold"])
def test_fields_must_be_finite_numbers(field):
    for value, error in [(float("nan"), ValueError), ("x", TypeError), (True, TypeError)]:
        with pytest.raises(error, match=field):
            type(parse("sparse_variational"))(**{field: value})


def test_the_backward_pass_keeps_inputs_once():
    """Beside what is kept of each weight and output, which are few here."""
    x, w = ones(1000, 30), ones(30, 1)

    def layer(x, w):
        return ops.sparse_variational_linear(jax.random.key(0), x, -5.0, w=w)

    # Twice by name: both products have the same buffer.
    assert bytes_kept(layer, x, w) <= 2 * x.nbytes + 4 * 1000 + 100 * w.size
