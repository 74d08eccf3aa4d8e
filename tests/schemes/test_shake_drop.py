"""Facts of Yamada et al. 2019: a gate, one factor forward and another one backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from dropjax.schemes.shake_drop import ShakeDrop
from tests.compiled import compiled, expected, jit, ops
from tests.statistics import assert_mean

KEY = jax.random.key(11)
MANY = 40_000
MAP = ("height", "width", "feature")


@compiled
def shaken_and_slopes(x, rate, options):
    y, pullback = jax.vjp(lambda x: dropjax.shake_drop(KEY, x, rate, batch_axes=0, **options), x)
    return y, pullback(jnp.ones_like(y))[0]


def factors(rate, n=MANY, **options):
    """The forward and the backward factor of each of n examples."""
    options = {name: tuple(map(np.asarray, np.float32(of))) for name, of in options.items()}
    y, gradient = shaken_and_slopes(np.ones((n, 2), np.float32), np.float32(rate)[...], options)
    assert (y == y[:, :1]).all() and (gradient == gradient[:, :1]).all()
    return y[:, 0], gradient[:, 0]


def test_factors_of_what_is_kept_are_1_and_the_others_uniform_and_independent():
    """g + a - g a forward, g + b - g b backward, with a in [-1, 1] and b in [0, 1]."""
    forward, backward = factors(0.4)
    kept = forward == 1
    assert (backward[kept] == 1).all() and (backward[~kept] != 1).all()
    assert_mean(kept, 0.6)
    a, b = forward[~kept], backward[~kept]
    assert scipy.stats.kstest((a + 1) / 2, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(b, "uniform").pvalue > 1e-3
    assert_mean(a * (b - 0.5), 0)


@pytest.mark.parametrize("alpha", [(-1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (-2.0, 0.5)])
def test_the_mean_factor_is_the_one_at_test_time(alpha):
    """p_l + (1 - p_l) E[a], with p_l the probability of being kept."""
    forward, _ = factors(0.4, alpha=alpha)
    assert forward.min() >= alpha[0]
    wanted = 0.6 + 0.4 * (alpha[0] + alpha[1]) / 2
    assert_mean(forward, wanted)
    x = jnp.asarray([1.0, -3.0])
    np.testing.assert_allclose(expected.shake_drop(x, 0.4, alpha=alpha), wanted * x, 1e-6)


@pytest.mark.parametrize("a, b", [(0.0, 0.0), (1.0, 1.0), (0.25, 0.75)])
def test_ranges_of_one_number(a, b):
    kept = np.asarray(ops.keep_mask(KEY, 0.5, (500, 1)))[:, 0]
    forward, backward = factors(0.5, 500, alpha=(a, a), beta=(b, b))
    np.testing.assert_array_equal(forward, np.where(kept, 1, a))
    np.testing.assert_array_equal(backward, np.where(kept, 1, b))


def test_with_both_numbers_0_it_is_stochastic_depth_in_its_original_form():
    x = np.ones((500, 2), np.float32)
    np.testing.assert_array_equal(
        ops.shake_drop(KEY, x, 0.5, batch_axes=0, alpha=(0, 0), beta=(0, 0)),
        ops.drop_path(KEY, x, 0.5, batch_axes=0, scaling="test"),
    )


def test_forward_mode_and_vmap_have_the_backward_factor_of_each_example():
    rng = np.random.default_rng(2)
    x, t = (jnp.asarray(rng.normal(size=(30, 4)), jnp.float32) for _ in range(2))
    forward, backward = (f[:, None] for f in factors(0.7, 30))
    keys = jax.random.split(KEY, 30)

    def one(key, x):
        return dropjax.shake_drop(key, x, 0.7, batch_axes=())

    @compiled
    def all_ways(x, t, keys):
        shaken = jax.jvp(lambda x: dropjax.shake_drop(KEY, x, 0.7, batch_axes=0), (x,), (t,))
        mapped = jax.grad(lambda x: jax.vmap(one)(keys, x).sum())(x)
        slope = jax.grad(lambda x, key: one(key, x).sum())
        return *shaken, mapped, jax.lax.map(lambda at: slope(*at), (x, keys))

    y, tangent, mapped, loop = all_ways(x, t, keys)
    np.testing.assert_allclose(y, forward * x, rtol=1e-6)
    np.testing.assert_allclose(tangent, backward * t, rtol=1e-6)
    np.testing.assert_allclose(mapped, loop, rtol=1e-6)
    assert len(np.unique(mapped)) > 10


def test_at_rate_1_nothing_is_kept_as_it_is():
    forward, backward = factors(jnp.float32(1.0))
    assert (np.abs(forward) < 1).all() and (backward < 1).all()


# The scheme.


def test_the_scheme_has_the_rate_of_its_depth_and_its_numbers():
    scheme = parse("shake_drop(rate=0.8,alpha=(0.5,0.75),beta=(-1,-0.5))")
    site = Site("branch", Kind.BRANCH, MAP, 0.5)
    x = np.ones((2, 2, 1), np.float32)

    def one(i):
        return jax.value_and_grad(lambda x: sampled(scheme, Keys.of(KEY, i))(x, site).mean())(x)

    y, gradient = jit(jax.vmap(one))(np.arange(MANY))
    y, gradient = np.asarray(y), 4 * np.asarray(gradient)
    kept = y == 1
    assert_mean(kept, 0.6)
    assert ((y >= 0.5) & (y <= 0.75))[~kept].all()
    assert (gradient == gradient[:, :1, :1]).all() and (gradient[kept] == 1).all()
    assert ((gradient >= -1) & (gradient <= -0.5))[~kept].all()
    np.testing.assert_allclose(deterministic(scheme)(x, site), 0.6 + 0.4 * 0.625, rtol=1e-6)
    assert_mean(y, 0.85)


def test_the_numbers_are_leaves_and_part_of_the_text():
    scheme = ShakeDrop(alpha=(0, 1))
    assert scheme.alpha == (0.0, 1.0) and all(type(a) is float for a in scheme.alpha)
    assert jax.tree.leaves(scheme) == [0.5, 0.0, 1.0, 0.0, 1.0]
    assert str(scheme) == "shake_drop(rate=0.5,alpha=(0.0,1.0))" and parse(str(scheme)) == scheme
    assert str(parse("shake_drop(beta=(0,1))")) == "shake_drop(rate=0.5)"


@pytest.mark.parametrize(
    "limits, error, match",
    [
        ((1, -1), ValueError, "alpha must be two finite numbers in order, got .1, -1."),
        ((0, float("nan")), ValueError, "alpha must be two finite numbers"),
        ((0, float("inf")), ValueError, "alpha must be two finite numbers"),
        ((0, 0.5, 1), ValueError, "alpha must be .lowest, highest."),
        (0.5, ValueError, "alpha must be .lowest, highest., got 0.5"),
        (("a", "b"), TypeError, "alpha must be two numbers"),
    ],
)
def test_wrong_numbers(limits, error, match):
    with pytest.raises(error, match=match):
        dropjax.shake_drop(KEY, jnp.ones(3), 0.5, batch_axes=0, alpha=limits)
    with pytest.raises(error, match=match):
        dropjax.expected.shake_drop(jnp.ones(3), 0.5, alpha=limits)
    with pytest.raises(error, match=match):
        ShakeDrop(alpha=limits)
    with pytest.raises(error, match=match.replace("alpha", "beta")):
        ShakeDrop(beta=limits)


def test_traced_numbers_must_be_numbers_too():
    """An array would broadcast, and the result would have another shape than x."""

    @jax.jit
    def shaken(number):
        return dropjax.shake_drop(KEY, jnp.ones(3), 0.5, batch_axes=0, alpha=(number, number))

    assert shaken(0.5).shape == (3,)
    with pytest.raises(TypeError, match=r"^alpha must be two numbers"):
        shaken(jnp.ones((4, 1)))
