"""Facts of Gal, Hron, Kendall 2017 and of the authors' code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.stats
from scipy.special import expit, logit

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind
from dropjax.core.trial import shape_of
from dropjax.ops.logistic import Logistic, relaxed_drop
from dropjax.schemes import parse
from dropjax.train import Problem, fit
from tests.cases import SITES
from tests.compiled import jit, normal, ones, ops
from tests.ops.reference import words_of
from tests.statistics import assert_mean

KEY = jax.random.key(7)
MANY = 100_000
LINEAR, MAP = SITES[Kind.LINEAR], SITES[Kind.FEATURE_MAP]
W = normal(4, 6)
X = normal(4, seed=1)


def uniform_of(key, shape):
    """The uniform numbers behind the noise, in NumPy."""
    return ((words_of(key, shape).astype(np.int64) >> 9) + 0.5) / 2**23


def factor_of(u, rate, temperature):
    z = expit((logit(rate) + logit(u)) / temperature)
    return (1 - z) / (1 - rate)


def bound(text, site, rate):
    return parse(text).bind({site.name: {"logit": jnp.float32(logit(rate))}})


# The noise and the op.


@pytest.mark.parametrize(("rate", "temperature"), [(0.1, 0.1), (0.4, 0.1), (0.3, 2 / 3)])
def test_the_mask_is_the_paper_s(rate, temperature):
    x = normal(5, 40)
    y = ops.concrete_dropout(KEY, x, rate, temperature=temperature)
    expected = x * factor_of(uniform_of(KEY, x.shape), rate, temperature)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


def test_at_a_low_temperature_it_is_bernoulli_dropout():
    y = np.asarray(ops.concrete_dropout(KEY, ones(MANY), 0.3, temperature=0.001))
    assert np.mean((y < 1e-6) | (np.abs(y - 1 / 0.7) < 1e-5)) > 0.99
    assert_mean(y < 0.5, 0.3)


@pytest.mark.parametrize(("rate", "temperature"), [(0.1, 0.1), (0.3, 2 / 3)])
def test_the_mask_is_relaxed_and_its_mean_is_not_quite_one(rate, temperature):
    y = np.asarray(ops.concrete_dropout(KEY, ones(MANY), rate, temperature=temperature))
    exact, _ = scipy.integrate.quad(lambda u: factor_of(u, rate, temperature), 0, 1)
    assert_mean(y, exact)
    assert exact < 0.999
    assert np.mean((y > 0.01) & (y < 0.99 / (1 - rate))) > 0.05


def test_the_gradient_in_the_rate_is_the_slope_for_given_noise():
    """Elsewhere the rate has none; here it is what the scheme lives on."""
    x, u, rate = jnp.arange(1.0, 9.0), uniform_of(KEY, (8,)), 0.3

    def total(rate):
        return jnp.sum(ops.concrete_dropout(KEY, x, rate))

    z = expit((logit(rate) + logit(u)) / 0.1)
    slope = -z * (1 - z) / 0.1 / (rate * (1 - rate)) / (1 - rate) + (1 - z) / (1 - rate) ** 2
    slopes = jit(jax.grad(total))
    assert slopes(rate) == pytest.approx(float(np.sum(np.arange(1, 9) * slope)), rel=1e-4)
    by_site = slopes(np.full(8, rate, np.float32))
    np.testing.assert_allclose(by_site, np.arange(1, 9) * slope, rtol=1e-3, atol=1e-4)


def test_gradients_are_finite_at_any_rate_and_rates_may_differ():
    x = jnp.asarray([1.0, -0.0, 3.0])

    @jit
    def at(x, rate):
        return ops.concrete_dropout(KEY, x, rate)

    slopes = jit(jax.grad(lambda x, rate: at(x, rate).sum(), argnums=(0, 1)))
    for rate in (0.0, 1e-30, 1e-7, 1 - 1e-7, 1.0):
        assert all(np.isfinite(slope).all() for slope in slopes(x, rate))
    mixed = at(x, jnp.asarray([0.0, 0.5, 1.0]))
    assert mixed[0] == 1 and mixed[2] == 0


def test_logits_of_any_size_are_safe():
    def total(x, logit):
        return relaxed_drop(Logistic.of(KEY, (4,)), x, logit, jnp.float32(0.1)).sum()

    value_and_slopes = jit(jax.value_and_grad(total, argnums=(0, 1)))
    for size in (-200.0, -30.0, 30.0, 200.0):
        found = value_and_slopes(ones(4), size)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        assert found[0] == (4 if size < 0 else pytest.approx(0, abs=1e-6))


@pytest.mark.parametrize(
    "temperature, error, match",
    [
        (0.0, ValueError, "^temperature must be in"),
        ("hot", TypeError, "^temperature must be a"),
        (jnp.ones((4, 1)), ValueError, "^temperature of"),
    ],
)
def test_errors(temperature, error, match):
    with pytest.raises(error, match=match):
        dropjax.concrete_dropout(KEY, jnp.ones(3), 0.5, temperature=temperature)


# The scheme.


def test_noise_is_on_the_inputs_of_a_layer_and_differs_between_its_rows():
    scheme = bound("concrete", LINEAR, 0.3)
    draw = sampled(scheme, Keys.of(KEY))
    x = ones(2, 4)  # as of two steps of a sequence
    factors = draw.linear(x, jnp.eye(4), None, LINEAR)
    assert not np.allclose(factors[0], factors[1])
    y = draw.linear(x, W, ones(6), LINEAR)
    np.testing.assert_allclose(y, factors @ W + 1, rtol=1e-5, atol=1e-6)
    own = Keys.of(KEY).within(LINEAR.name).example
    expected = factor_of(uniform_of(own, (2, 4)), 0.3, 0.1)
    np.testing.assert_allclose(factors, expected, rtol=1e-4, atol=1e-6)


def test_feature_maps_are_dropped_whole_at_a_temperature_of_their_own():
    scheme = bound('concrete(at="map")', MAP, 0.3)
    keys = Keys.of(KEY)
    y = np.asarray(sampled(scheme, keys)(jnp.ones(shape_of(MAP)), MAP))
    assert (y == y[:1, :1]).all()
    u = uniform_of(keys.within(MAP.name).example, (1, 1, 4))
    np.testing.assert_allclose(y[:1, :1], factor_of(u, 0.3, 2 / 3), rtol=1e-4)


def test_monte_carlo_is_relaxed_as_training_is_and_evaluation_has_no_noise():
    scheme = bound("concrete", LINEAR, 0.3)
    assert scheme.in_evaluation() is scheme and scheme.is_random_in_evaluation()
    np.testing.assert_array_equal(deterministic(scheme).linear(X, W, None, LINEAR), X @ W)


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_the_penalty_is_that_of_the_authors_code(times):
    """Theirs is a part of a mean loss, c times the negative log-likelihood; c = 2 or 1."""
    rate, length, examples = 0.2, 0.5, 50
    scheme = bound(f"concrete(length_scale={length})", LINEAR, rate)
    weight_regularizer = times * length**2 / (2 * examples)
    dropout_regularizer = times / examples
    theirs = weight_regularizer * np.sum(np.square(W)) / (1 - rate)
    theirs += dropout_regularizer * 4 * (rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    ours = times * scheme.penalty_at(LINEAR, (4, 6), W) / examples
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_the_penalty_of_feature_maps_counts_channels_and_no_weights():
    scheme = bound('concrete(at="map")', MAP, 0.2)
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    assert scheme.penalty_at(MAP, shape_of(MAP), None) == pytest.approx(-4 * entropy, rel=1e-5)


def test_every_layer_starts_at_the_initial_rate_and_reports_its_own():
    scheme = parse("concrete(initial=0.3)")
    learned = scheme.init_learned(KEY, {LINEAR.name: (LINEAR, (4, 6))}, {LINEAR.name: W})
    report = scheme.bind(learned).report({LINEAR.name: (LINEAR, (4, 6))}, {LINEAR.name: W})
    assert report[LINEAR.name]["rate"] == pytest.approx(0.3)


def test_noise_pays_where_the_data_do_not_mind():
    """A rate goes up to 1/2 if the output does not matter, and down if it does."""
    weights = {"free": 0.0, "needed": 5.0}

    def apply(params, x, draw):
        sites = [dataclasses.replace(LINEAR, name=name) for name in weights]
        return [draw.linear(x, params, None, site)[0] for site in sites]

    def loss(outputs, _):
        each = zip(weights.values(), outputs, strict=True)
        return {"loss": sum(weight * jnp.square(y) for weight, y in each)}

    of = Problem(
        apply,
        loss,
        parse("concrete(initial=0.2)"),
        optax.multi_transform(
            {"fixed": optax.set_to_zero(), "learned": optax.adam(0.1)},
            {"params": "fixed", "learned": "learned"},
        ),
    )
    x = ones(20, 4)
    learned = fit(of, ones(4, 1), x, x[:, 0], key=KEY, epochs=100, batch_size=20).learned
    assert expit(float(learned["free"]["logit"])) == pytest.approx(0.5, abs=0.02)
    assert expit(float(learned["needed"]["logit"])) < 0.05


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("concrete(initial=0.0)", r"initial must be in \(0, 1\)"),
        ("concrete(initial=1.0)", r"initial must be in \(0, 1\)"),
        ("concrete(temperature=0.0)", r"temperature must be in \(0, inf\)"),
        ("concrete(spatial_temperature=-1.0)", "spatial_temperature must be in"),
        ("concrete(length_scale=0.0)", "length_scale must be in"),
    ],
)
def test_wrong_fields_are_refused(text, match):
    with pytest.raises(ValueError, match=match):
        parse(text)


def test_whole_numbers_are_taken_as_floats():
    assert isinstance(parse("concrete(temperature=1)").temperature, float)
