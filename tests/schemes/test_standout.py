"""Facts of Ba & Frey 2013: kept with probability sigmoid(slope * a + offset)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import dropjax
from dropjax.schemes import parse
from dropjax.schemes.standout import Standout
from tests.compiled import expected, normal, ones, ops
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(5)
X = jnp.asarray([0.0, 0.5, 1.0, 3.0])


def many(**options):
    keys = jax.vmap(jax.random.key)(jnp.arange(4000))
    return np.asarray(jax.vmap(lambda k: ops.standout(k, X + 1, **options))(keys))


@pytest.mark.parametrize("slope, offset", [(1.0, 0.0), (0.5, -1.0), (-1.0, 0.3)])
def test_probability_of_being_kept(slope, offset):
    y = many(slope=slope, offset=offset)
    keep = scipy.special.expit(slope * (np.asarray(X) + 1) + offset)
    assert_mean(y != 0, keep)
    assert np.isin(y, [0, *np.asarray(X + 1)]).all()  # nothing is rescaled
    at_test = expected.standout(X + 1, slope=slope, offset=offset)
    np.testing.assert_allclose(at_test, keep * (np.asarray(X) + 1), rtol=1e-6)


@pytest.mark.parametrize("offset", [-1.0, 0.0, 2.0])
def test_with_slope_0_it_is_bernoulli_dropout_to_the_bit(offset):
    x = normal(500)
    rate = 1 - scipy.special.expit(np.float32(offset))
    ours = ops.standout(KEY, x, slope=0.0, offset=offset)
    theirs = ops.dropout(KEY, x, rate, scaling="test")
    assert np.mean(np.asarray(ours) != np.asarray(theirs)) < 1e-3
    assert 0.05 < np.mean(np.asarray(ours) == 0) < 0.95


def test_after_a_relu_it_is_the_same_as_from_the_pre_activation():
    a = normal(1000)
    of_a = jnp.where(ops.standout(KEY, a, slope=2.0) != 0, jax.nn.relu(a), 0)
    np.testing.assert_array_equal(ops.standout(KEY, jax.nn.relu(a), slope=2.0), of_a)


def test_the_more_active_the_likelier_kept():
    y = many(slope=2.0)
    kept = (y != 0).mean(0)
    assert (np.diff(kept) > 0).all()


def test_the_gradient_is_that_of_the_mask_as_it_fell():
    y, pullback = jax.vjp(lambda x: ops.standout(KEY, x), X + 1)
    np.testing.assert_array_equal(pullback(ones(4))[0], y != 0)


def test_rate_scales_the_probability_of_dropping():
    y = many(rate=0.5)
    assert_mean(y == 0, 0.5 * (1 - scipy.special.expit(np.asarray(X) + 1)))
    np.testing.assert_array_equal(many(rate=0.0)[0], X + 1)
    with pytest.raises(ValueError, match="rate"):
        ops.standout(KEY, X, 1.5)


def test_slope_and_offset_may_differ_by_element():
    """Broadcast to x, never x to them."""
    slope, offset = jnp.asarray([50.0, -50.0, 0.0, 0.0]), jnp.asarray([[0.0, 0.0, 50.0, -50.0]])
    y = ops.standout(KEY, jnp.stack([X + 1] * 3), slope=slope, offset=offset)
    np.testing.assert_array_equal(y != 0, [[True, False, True, False]] * 3)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"slope": jnp.ones((3, 1))}, ValueError, "^slope of shape .*does not broadcast"),
        ({"offset": jnp.ones(3)}, ValueError, "^offset of shape .*does not broadcast"),
        ({"slope": float("nan")}, ValueError, "^slope must be finite"),
        ({"offset": "high"}, TypeError, "^offset must be a number"),
    ],
)
def test_wrong_numbers(options, error, match):
    with pytest.raises(error, match=match):
        dropjax.standout(KEY, X, **options)
    with pytest.raises(error, match=match):
        dropjax.expected.standout(X, **options)


def test_wrong_fields_and_dtypes():
    with pytest.raises(ValueError, match=r"^slope must be finite"):
        Standout(slope=float("nan"))
    with pytest.raises(TypeError, match=r"^offset must be a number"):
        Standout(offset="high")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^x must be an array of real floats, got complex64"):
        dropjax.standout(KEY, X.astype(jnp.complex64))


def test_the_scheme_is_the_function():
    scheme = parse("standout(rate=0.7,slope=2.0,offset=-0.5)")
    assert (scheme.slope, scheme.offset) == (2.0, -0.5)
    assert str(parse("standout")) == "standout(rate=1.0)"


def test_the_backward_pass_of_the_expectation_keeps_x_alone():
    x = np.linspace(0.0, 3.0, 1000, dtype=np.float32)
    assert bytes_kept(dropjax.expected.standout, x) <= x.nbytes + 32
