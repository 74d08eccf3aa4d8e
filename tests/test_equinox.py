"""Drop for Equinox, in a model as anyone writes it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.place import Place
from dropjax.equinox import Drop
from dropjax.schemes import parse
from tests.compiled import compiled

KEY = jax.random.key(19)
X = np.ones((8, 32), np.float32)


class Model(eqx.Module):
    """A model of someone else's, of one example."""

    linear: eqx.nn.Linear
    drop: Drop

    def __init__(self, key):
        self.linear = eqx.nn.Linear(32, 64, key=key)
        self.drop = Drop("bernoulli(rate=0.5)")

    def __call__(self, x, key=None):
        return self.drop(self.linear(x), key=key)


def test_a_key_in_the_call_is_that_of_the_place():
    raw_key = jax.random.PRNGKey(19)

    @compiled
    def each_way(x, key, raw_key):
        of_place = Place.of("bernoulli", "feature").sampled(key, x)
        return Drop("bernoulli")(x, key=key), of_place, Drop(parse("bernoulli"))(x, key=raw_key)

    y, of_place, raw = each_way(X, KEY, raw_key)
    assert set(np.unique(y)) == {0, 2} and len(np.unique(y, axis=0)) == 8
    np.testing.assert_array_equal(y, of_place)
    np.testing.assert_array_equal(raw, y)


def test_examples_have_noise_of_their_own_where_keys_are_mapped_too():
    model = Model(KEY)

    @compiled
    def apply(x):
        keys = jax.vmap(lambda i: dropjax.derive(KEY, i))(jnp.arange(4))
        return jax.vmap(model)(x, keys)

    y = apply(np.ones((4, 32), np.float32)) == 0
    assert y.any(axis=1).all() and len(np.unique(y, axis=0)) == 4


def test_inference_mode():
    model = Model(KEY)
    with pytest.raises(RuntimeError, match=r"no key: .*inference_mode"):
        model(X[0])
    evaluating = eqx.nn.inference_mode(model)
    np.testing.assert_array_equal(evaluating(X[0]), model.linear(X[0]))
    training = eqx.nn.inference_mode(evaluating, value=False)
    assert eqx.tree_equal(training, model)
    drop = Drop('bernoulli(rate=0.25,scaling="test")', inference=True)
    np.testing.assert_allclose(drop(X), 0.75, rtol=1e-6)
    np.testing.assert_allclose(drop(X, inference=True), 0.75, rtol=1e-6)
    with pytest.raises(RuntimeError, match="no key"):
        drop(X, inference=False)


def test_where_nothing_happens_no_key_is_asked_for():
    for scheme in ("none", "bernoulli(rate=0.0)"):
        np.testing.assert_array_equal(Drop(scheme)(X), X)
        with pytest.raises(TypeError, match="x must be an array of floats"):
            Drop(scheme)(np.ones(3, int))


def test_rates_are_leaves_that_can_be_changed():
    drop = Drop("bernoulli(rate=0.5)|gaussian(rate=0.1)")
    changed = eqx.tree_at(lambda drop: [s.rate for s in drop.scheme.schemes], drop, [0.0, 0.0])
    np.testing.assert_array_equal(changed(X), X)
    assert not jax.tree.leaves(eqx.filter(Model(KEY).drop, eqx.is_array))  # nothing to train


def test_channels_may_come_first():
    drop = Drop("spatial(rate=0.5)", ("feature", "height", "width"))
    y = np.asarray(eqx.filter_jit(drop)(jnp.ones((64, 2, 3)), key=KEY))
    assert (y == y[:, :1, :1]).all() and set(np.unique(y)) == {0, 2}


def test_a_scheme_that_cannot_act_here_is_refused_where_it_is_written():
    """What those are is tested of `Place`."""
    with pytest.raises(ValueError, match=r"zoneout.* needs .* call dropjax.zoneout"):
        Drop("zoneout")
