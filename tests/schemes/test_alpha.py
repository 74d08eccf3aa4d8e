"""Facts of Klambauer et al. 2017, section "New Dropout Technique"."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import compiled, ops
from tests.statistics import assert_mean

KEY = jax.random.key(8)
SATURATED = -1.7580993408473766
CONSTANTS = {0.1: (0.9212845, 0.1619710), 0.5: (0.8864049, 0.7791939)}


@pytest.mark.parametrize("rate", CONSTANTS)
def test_values_are_those_of_the_paper(rate):
    """a x + b where kept, a alpha' + b where dropped, whatever x is there."""
    a, b = CONSTANTS[rate]
    x = np.linspace(-3, 5, 10_000, dtype=np.float32)
    y = np.asarray(ops.alpha_dropout(KEY, x, rate))
    dropped = np.isclose(y, a * SATURATED + b, atol=1e-5)
    np.testing.assert_allclose(y[~dropped], (a * np.asarray(x) + b)[~dropped], atol=1e-5)
    assert len(np.unique(y[dropped])) <= 2  # the constant, and at most one kept x beside it
    assert_mean(dropped, rate)


MOMENTS = [(0.0, 1.0), (-0.5, 0.25), (1.5, 4.0), (SATURATED, 0.5)]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("moments", MOMENTS)
def test_any_mean_and_variance_are_kept_exactly(moments, rate):
    """Both branches as affine maps, read off the op, under x of two values with these moments."""
    mean, variance = moments
    x = np.tile(np.float32([mean - np.sqrt(variance), mean + np.sqrt(variance)]), 500)
    # As arrays they are arguments of one program.
    at, m, v = (np.asarray(value, np.float32) for value in (rate, mean, variance))
    y = np.asarray(ops.alpha_dropout(KEY, x, at, mean=m, variance=v), np.float64)
    kept_at, total, square = [], 0.0, 0.0
    # What x is dropped from is the same for both values: their only common result.
    (dropped,) = np.intersect1d(*np.float32([y[::2], y[1::2]]))
    for number in (0, 1):
        (kept,) = set(np.float32(y[number::2])) - {dropped}
        kept_at.append(kept)
        total += 0.5 * ((1 - rate) * kept + rate * dropped)
        square += 0.5 * ((1 - rate) * kept**2 + rate * dropped**2)
    np.testing.assert_allclose(total, mean, atol=1e-5)
    np.testing.assert_allclose(square - total**2, variance, rtol=1e-5)
    assert kept_at[1] > kept_at[0]  # an increasing map: a > 0


@pytest.mark.parametrize("rate", CONSTANTS)
def test_the_default_moments_give_the_paper_s_constants(rate):
    """A mean and a variance that are given, even traced, and those that are not."""
    x, (a, b) = jnp.asarray([[0.0, 1.0]] * 50), CONSTANTS[rate]
    f = jax.jit(lambda m, v: dropjax.alpha_dropout(KEY, x, rate, shared_axes=1, mean=m, variance=v))
    y = f(0.0, 1.0)
    kept = np.asarray(y)[np.ptp(y, axis=1) > 0]
    np.testing.assert_allclose(kept, np.tile([b, a + b], (len(kept), 1)), rtol=1e-6)
    np.testing.assert_array_equal(y, dropjax.alpha_dropout(KEY, x, rate, shared_axes=1))


def test_a_deep_selu_network_stays_normalised_with_it_and_not_with_plain_dropout():
    @compiled
    def moments_after_32_layers(x):
        def layer(xs, number):
            w = jax.random.normal(jax.random.key(10 + number), (784, 784)) / 28
            drops, key = (dropjax.alpha_dropout, dropjax.dropout), jax.random.key(100 + number)
            return [f(key, jax.nn.selu(x @ w), 0.1) for f, x in zip(drops, xs, strict=True)], None

        xs, _ = jax.lax.scan(layer, [x, x], jnp.arange(32))
        return [(x.mean(), x.var()) for x in xs]

    x = np.asarray(jax.random.normal(KEY, (128, 784)))
    (mean, variance), (plain_mean, plain_variance) = moments_after_32_layers(x)
    assert abs(mean) <= 0.1 and 0.8 <= variance <= 1.2
    assert abs(plain_mean) > 0.1 or plain_variance > 1.3


def test_the_scheme_is_the_function_of_its_mask():
    draw, x, site = (
        sampled(parse("alpha(rate=0.5)"), KEY),
        np.arange(12.0, dtype=np.float32),
        SITES[Kind.HIDDEN],
    )
    (mask,) = draw.noise(site, x.shape)
    a, b = CONSTANTS[0.5]
    keep = np.asarray(mask.keep())
    assert 0 < keep.sum() < 12
    np.testing.assert_allclose(
        draw(x, site), np.where(keep, a * np.asarray(x) + b, a * SATURATED + b), rtol=1e-5
    )


def test_other_moments_are_kept_at_the_ends_too():
    x = np.float32([0.0, -0.0, 1.5, -np.inf])
    assert ops.alpha_dropout(KEY, x, 0.0, mean=0.7, variance=1.3).tobytes() == x.tobytes()
    assert (ops.alpha_dropout(KEY, x, 1.0, mean=-2.0, variance=3.0) == -2).all()


@pytest.mark.parametrize(
    "named, error, match",
    [
        ({"variance": 0.0}, ValueError, "^variance must be a finite number above 0, got 0.0"),
        ({"variance": np.nan}, ValueError, "^variance must be a finite number above 0"),
        ({"mean": np.inf}, ValueError, "^mean must be a finite number, got inf"),
        ({"mean": jnp.zeros(3)}, ValueError, "^mean must be one real number"),
        ({"mean": None}, TypeError, "^mean must be a number, got None"),
    ],
)
def test_errors_of_options(named, error, match):
    with pytest.raises(error, match=match):
        dropjax.alpha_dropout(KEY, jnp.ones(3), 0.5, **named)
