"""Drop for Flax linen, in a model as anyone writes it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.core.place import Place
from dropjax.linen import Drop
from dropjax.schemes import parse
from tests.compiled import compiled

KEY = jax.random.key(17)
X = np.ones((8, 32), np.float32)


@compiled
def applied(module, x, key, **options):
    return module.apply({}, x, rngs={"dropout": key}, **options)


def drop(module, x=X, key=KEY, **options):
    """One program for all tests of a module and a shape."""
    return applied(module, x, key, **options)


class Model(nn.Module):
    """A model of someone else's."""

    @nn.compact
    def __call__(self, x, train):
        x = Drop("bernoulli(rate=0.5)")(nn.Dense(16)(x), deterministic=not train)
        return Drop("gaussian(rate=0.5)")(x, deterministic=not train)


def test_deterministic_is_the_expectation_and_needs_no_key():
    x = jnp.arange(6.0).reshape(2, 3)
    scheme = 'bernoulli(rate=0.25,scaling="test")'
    for y in (
        Drop(scheme, deterministic=True).apply({}, x),
        Drop(scheme).apply({}, x, deterministic=True),
    ):
        np.testing.assert_allclose(y, 0.75 * x, rtol=1e-6)


def test_without_deterministic_or_a_key_it_says_so():
    with pytest.raises(ValueError, match="deterministic"):
        drop(Drop("bernoulli"))
    with pytest.raises(Exception, match='PRNG for "dropout"'):
        Drop("bernoulli", deterministic=False).apply({}, X)
    with pytest.raises(ValueError, match="deterministic"):
        drop(Drop("bernoulli", deterministic=True), deterministic=False)


def test_the_prng_may_have_another_name():
    module = Drop("bernoulli", deterministic=False, rng_collection="noise")
    y = compiled(lambda x: module.apply({}, x, rngs={"noise": KEY}))(X)
    np.testing.assert_array_equal(y, drop(Drop("bernoulli", deterministic=False)))


def test_a_model_with_it_can_be_summarised():
    """Flax then asserts that no method of a module is called while it is made."""
    table = nn.tabulate(Model(), KEY, depth=1)(X, train=False)
    assert "Drop_0" in table and "Drop_1" in table


def test_a_key_in_the_call_is_that_of_the_place():
    module = Drop("bernoulli", deterministic=False)

    @compiled
    def each_way(key):
        by_object = Drop(parse("bernoulli")).apply({}, X, deterministic=False, rng=key)
        of_place = Place.of("bernoulli", "feature").sampled(key, X)
        return module.apply({}, X, rng=key), by_object, of_place

    y, by_object, of_place = each_way(KEY)
    assert (y == 0).any() and (y != drop(module)).any()  # linen makes another key of its PRNG
    np.testing.assert_array_equal(y, of_place)
    np.testing.assert_array_equal(by_object, of_place)


def test_axes_are_shared_as_in_flax():
    """By number, of the whole value, or by name."""
    axes, x = ("time", "feature"), np.ones((4, 5, 64), np.float32)
    for dims in (0, "time"):
        y = np.asarray(drop(Drop("bernoulli", axes, False, broadcast_dims=(dims,)), x))
        shared = [axis for axis in range(3) if (y == y.take([0], axis)).all()]
        assert shared == [1 if dims == "time" else dims]
    with pytest.raises(ValueError, match="broadcast_dims names the axis 'time'"):
        Drop("bernoulli", broadcast_dims="time")


def test_where_nothing_happens_no_prng_is_asked_for():
    for scheme in ("bernoulli(rate=0.0)", "none", "bernoulli(rate=0.0)|gaussian(rate=0.0)"):
        y = Drop(scheme, deterministic=False).apply({}, X)
        np.testing.assert_array_equal(y, X)
        with pytest.raises(ValueError, match="deterministic"):  # as Flax's
            Drop(scheme).apply({}, X)
        with pytest.raises(TypeError, match="x must be an array of floats"):
            Drop(scheme, deterministic=False).apply({}, np.ones(3, int))


def test_two_places_of_a_model_draw_noise_of_their_own():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return [Drop("bernoulli", deterministic=False)(x) for _ in range(2)]

    first, second = drop(Two())
    assert (first != second).any()


def test_in_a_model_under_jit_and_grad():
    model = Model()
    init = compiled(lambda: model.init({"params": KEY, "dropout": KEY}, X, train=True))
    variables = init()
    assert set(variables) == {"params"} and set(variables["params"]) == {"Dense_0"}

    def loss(params, key):
        return model.apply({"params": params}, X, train=True, rngs={"dropout": key}).sum()

    @compiled
    def values_and_slopes(params, key):
        clean = model.apply({"params": params}, X, train=False)
        dense = nn.Dense(16).apply({"params": params["Dense_0"]}, X)
        return *jax.value_and_grad(loss)(params, key), clean, dense

    with jax.numpy_rank_promotion("allow"):
        found = [values_and_slopes(variables["params"], jax.random.key(i)) for i in (0, 0, 1)]
    values = [value for value, *_ in found]
    assert values[0] == values[1] != values[2]
    _, slopes, clean, dense = found[0]
    gradient = slopes["Dense_0"]["bias"]
    assert np.isfinite(gradient).all() and (gradient != 0).any()
    np.testing.assert_allclose(clean, dense, rtol=1e-5)


def test_axes_are_those_of_an_example():
    module = Drop("variational(rate=0.5)", axes=("time", "feature"), deterministic=False)
    y = drop(module, np.ones((3, 5, 32), np.float32))
    assert (y == y[:, :1]).all() and (y[0] != y[1]).any()
    assert Drop("spatial", axes=["height", "width", "feature"])


def test_depth_scales_rates_that_grow_with_it():
    scheme = 'stochastic_depth(rate=0.5,scaling="test")'
    y = Drop(scheme, depth=0.5, deterministic=True).apply({}, X)
    np.testing.assert_allclose(y, 0.75, rtol=1e-6)


def test_a_scheme_that_cannot_act_here_is_refused_where_it_is_written():
    """What those are is tested of `Place`."""
    with pytest.raises(ValueError, match=r"zoneout.* needs .* call dropjax.zoneout"):
        Drop("zoneout")
    with pytest.raises(ValueError, match="no site it acts on has a time axis"):
        Drop("variational")
