"""Drop for Flax nnx, in a model as anyone writes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dropjax.core.place import Place
from dropjax.nnx import Drop
from dropjax.schemes import parse
from tests.compiled import compiled

KEY = jax.random.key(18)
X = np.ones((8, 32), np.float32)


class Model(nnx.Module):
    """A model of someone else's."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(32, 16, rngs=rngs)
        self.drop = Drop("bernoulli(rate=0.5)", rngs=rngs)

    def __call__(self, x):
        return self.drop(self.linear(x))


@pytest.fixture(autouse=True)
def flax_s_own_code():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_keys_come_from_rngs_a_stream_or_a_key():
    drop, by_object = Drop("bernoulli"), Drop(parse("bernoulli"))
    stream = nnx.Rngs(dropout=3)
    expected = np.asarray(drop(X, rngs=nnx.Rngs(dropout=3).dropout()))
    np.testing.assert_array_equal(drop(X, rngs=stream), expected)
    np.testing.assert_array_equal(drop(X, rngs=nnx.Rngs(dropout=3).dropout), expected)
    assert (np.asarray(drop(X, rngs=stream)) != expected).any()  # the stream has moved on
    of_place = Place.of("bernoulli", "feature").sampled(KEY, X)
    for module, key in ((drop, KEY), (drop, jax.random.PRNGKey(18)), (by_object, KEY)):
        np.testing.assert_array_equal(module(X, rngs=key), of_place)
    other = Drop("bernoulli", rng_collection="noise")
    np.testing.assert_array_equal(other(X, rngs=nnx.Rngs(noise=3)), expected)


def test_a_stream_of_its_own_moves_on_and_leaves_that_of_others_alone():
    rngs = nnx.Rngs(0, dropout=1)
    one, two = Drop("bernoulli", rngs=rngs), Drop("bernoulli", rngs=rngs)
    a, b, c = (np.asarray(drop(X)) for drop in (one, one, two))
    assert (a != b).any() and (a != c).any() and (b != c).any()
    rngs = nnx.Rngs(0, dropout=1)
    one, two = Drop("bernoulli", rngs=rngs), Drop("bernoulli", rngs=rngs)
    for drop, wanted in [(two, c), (one, a), (one, b)]:  # whichever is called first
        np.testing.assert_array_equal(drop(X), wanted)
    assert Drop("bernoulli", rngs=nnx.Rngs(0))(X).shape == X.shape  # the default stream


def test_without_a_key_it_says_so():
    with pytest.raises(ValueError, match="no rngs"):
        Drop("bernoulli")(X)


def test_where_nothing_happens_no_key_is_asked_for():
    for scheme in ("bernoulli(rate=0.0)", "none"):
        np.testing.assert_array_equal(Drop(scheme)(X), X)
        with pytest.raises(TypeError, match="x must be an array of floats"):
            Drop(scheme)(np.ones(3, int))


def test_someone_has_to_say_whether_it_evaluates():
    for scheme in ("bernoulli", "none"):
        drop = Drop(scheme, deterministic=None, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match="deterministic is None: say whether to evaluate"):
            drop(X)
        np.testing.assert_array_equal(drop(X, deterministic=True), X)
        drop.eval()
        np.testing.assert_array_equal(drop(X), X)
        drop.train()
        assert ((drop(X) == 0).any()) == (scheme == "bernoulli")


def test_a_model_that_is_made_can_change_its_rate():
    model = Model(nnx.Rngs(0))
    run = nnx.jit(lambda model: model.drop(jnp.ones(2000)))
    model.set_attributes(Drop, rate=0.25, deterministic=False)
    assert model.drop.rate == 0.25
    assert abs((np.asarray(run(model)) == 0).mean() - 0.25) < 0.05
    graph, state = nnx.split(model)
    assert nnx.merge(graph, state).drop.rate == 0.25
    model.set_attributes(Drop, rate=0.0)
    np.testing.assert_array_equal(run(model), 1)  # no program of the old rate
    with pytest.raises(ValueError, match=r"rate .*\[0, 1\]; got 1.5"):
        model.set_attributes(Drop, rate=1.5)
    assert model.drop.rate == 0


@pytest.mark.parametrize("scheme", ["none", "bernoulli|gaussian", "gaussian_noise"])
def test_a_layer_without_a_rate_of_its_own_has_none_to_set(scheme):
    class Other(nnx.Module):
        def __init__(self):
            self.drop = Drop(scheme)

    with pytest.raises(ValueError, match=r"instance of the following attributes: \['rate'\]"):
        Other().set_attributes(rate=0.1)
    Other().set_attributes(rate=0.1, raise_if_not_found=False)
    with pytest.raises(AttributeError, match="no one rate to speak of"):
        Drop(scheme).rate = 0.1


def test_axes_are_shared_as_in_flax():
    drop = Drop("bernoulli", ("time", "feature"), broadcast_dims=(0, "time"))
    y = compiled(lambda: drop(jnp.ones((4, 5, 64)), rngs=KEY))()
    assert (y == y[:1, :1]).all() and (y == 0).any() and (y != 0).any()


def test_train_and_eval():
    model = Model(nnx.Rngs(0))
    assert (model(X) == 0).any()
    model.eval()
    np.testing.assert_array_equal(model(X), model.linear(X))
    model.train()
    assert (model(X) == 0).any()
    evaluating = nnx.view(model, deterministic=True)
    np.testing.assert_array_equal(evaluating(X), model.linear(X))
    assert (model(X) == 0).any()  # a view leaves the model as it was


def test_a_view_may_set_what_other_layers_have():
    class Both(nnx.Module):
        def __init__(self, rngs):
            self.norm, self.drop = nnx.BatchNorm(4, rngs=rngs), Drop("bernoulli", rngs=rngs)

    view = nnx.view(Both(nnx.Rngs(0)), deterministic=True, use_running_average=True)
    assert view.drop.deterministic and view.norm.use_running_average
    assert "deterministic" in nnx.view_info(Both(nnx.Rngs(0)))


def test_deterministic_is_the_expectation_and_a_call_overrides_it():
    drop = Drop('bernoulli(rate=0.25,scaling="test")', deterministic=True)
    np.testing.assert_allclose(drop(X), 0.75, rtol=1e-6)
    assert set(np.unique(drop(X, deterministic=False, rngs=KEY))) == {0, 1}
    drop.train()
    np.testing.assert_allclose(drop(X, deterministic=True), 0.75, rtol=1e-6)


def test_under_jit_the_stream_moves_on():
    model = Model(nnx.Rngs(0))
    run = nnx.jit(lambda model, x: model(x))
    first, second = run(model, X), run(model, X)
    assert (np.asarray(first) != np.asarray(second)).any()


def test_gradients():
    model = Model(nnx.Rngs(0))
    gradient = nnx.jit(nnx.grad(lambda model: model(X).sum()))(model)["linear"]["bias"]
    slopes = np.asarray(gradient[...])
    assert set(np.unique(slopes % 2)) == {0} and (slopes != 0).any()


def test_split_and_merge():
    """The scheme is no variable; only the stream is."""
    graph, state = nnx.split(Model(nnx.Rngs(0)))
    merged = nnx.merge(graph, state, copy=True)
    assert merged.drop.place == Drop("bernoulli(rate=0.5)").place
    assert len(jax.tree.leaves(nnx.state(merged, nnx.Param))) == 2
    pure = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    np.testing.assert_allclose(pure(state, X), merged(X), rtol=1e-6)
    assert nnx.split(Model(nnx.Rngs(0)))[0] == graph  # so jit does not compile twice


def test_axes_and_depth():
    drop = Drop("variational(rate=0.5)", ("time", "feature"))
    y = compiled(lambda: drop(jnp.ones((3, 5, 32)), rngs=KEY))()
    assert (y == y[:, :1]).all() and (y[0] != y[1]).any()
    drop = Drop('stochastic_depth(rate=0.5,scaling="test")', depth=0.5, deterministic=True)
    np.testing.assert_allclose(drop(X), 0.75, rtol=1e-6)


def test_a_scheme_that_cannot_act_here_is_refused_where_it_is_written():
    """What those are is tested of `Place`."""
    with pytest.raises(ValueError, match=r"zoneout.* needs .* call dropjax.zoneout"):
        Drop("zoneout")
    with pytest.raises(ValueError, match="no site it acts on has a time axis"):
        Drop("variational")


def test_a_key_instead_of_rngs_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match=r"rngs must be an nnx.Rngs or one of its streams"):
        Drop("bernoulli", rngs=jax.random.key(0))
    drop = Drop("bernoulli", rngs=nnx.Rngs(0).dropout)
    assert drop(X).shape == X.shape
