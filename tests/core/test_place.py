"""A scheme at one place: who gets which noise, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dropjax.core.draw import deterministic
from dropjax.core.place import Place
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.statistics import assert_mean
from tests.throwaway import LearnedRate

KEY = jax.random.key(16)


def sampled(scheme, axes, x, key=KEY):
    place = Place.of(scheme, axes)
    return np.asarray(jax.jit(place.sampled)(key, np.asarray(x, np.float32)))


def test_members_of_a_batch_have_noise_of_their_own():
    y = sampled("bernoulli", "feature", np.ones((64, 32)))
    assert len(np.unique(y, axis=0)) == 64
    assert_mean(y.ravel() == 0, 0.5)
    assert abs(np.corrcoef(y) - np.eye(64)).max() < 0.8


def test_noise_of_member_i_depends_on_the_key_and_i_alone():
    few, many = (sampled("bernoulli", "feature", np.ones((n, 32))) for n in (3, 8))
    np.testing.assert_array_equal(few, many[:3])
    square = sampled("bernoulli", "feature", np.ones((2, 4, 32)))
    np.testing.assert_array_equal(square.reshape(8, 32), many)
    np.testing.assert_array_equal(sampled("bernoulli", "feature", np.ones(32)), many[0])
    assert (sampled("bernoulli", "feature", np.ones((3, 32)), jax.random.key(0)) != few).any()


def test_names_are_those_of_the_last_axes_and_all_before_are_the_batch():
    x = np.ones((3, 5, 64))
    shared = sampled("variational", ("time", "feature"), x)
    assert (shared == shared[:, :1]).all() and (shared[0] != shared[1]).any()
    tokens = sampled("word(rate=0.5)", ("time", "feature"), x)
    assert (tokens == tokens[..., :1]).all() and (tokens != tokens[:, :1]).any()
    maps = sampled("spatial(rate=0.5)", ("height", "width", "feature"), np.ones((2, 3, 4, 64)))
    assert (maps == maps[:, :1, :1]).all() and (maps[0] != maps[1]).any()
    branch = sampled("stochastic_depth(rate=0.5)", "feature", np.ones((64, 4)))
    assert (branch == branch[:, :1]).all() and set(np.unique(branch)) == {0, 2}
    holes = sampled(
        "cutout(rate=1.0,size=1)", ("height", "width", "feature"), np.ones((4, 4, 4, 2))
    )
    assert (holes.sum((1, 2, 3)) == 30).all() and (holes[:1] != holes).any()


def test_depth_is_that_of_the_place():
    x, site = np.ones((20_000, 1), np.float32), Site("drop", Kind.BRANCH, ("feature",), 0.5)
    scheme = parse('stochastic_depth(rate=0.5,scaling="test")')
    place = Place.of(scheme, "feature", 0.5)
    assert_mean(np.asarray(jax.jit(place.sampled)(KEY, x))[:, 0] == 0, 0.25)
    np.testing.assert_allclose(place.expected(x), 0.75, rtol=1e-6)
    np.testing.assert_allclose(deterministic(scheme)(x[0], site), 0.75, rtol=1e-6)
    np.testing.assert_allclose(Place.of(scheme, "feature").expected(x), 0.5, rtol=1e-6)


def test_links_of_a_chain_draw_masks_of_their_own():
    y = sampled("bernoulli(rate=0.5)|bernoulli(rate=0.5)", "feature", np.ones((100, 100)))
    assert set(np.unique(y)) == {0, 4}
    assert_mean(y.ravel() == 0, 0.75)


def test_text_and_object_are_the_same():
    assert Place.of("gaussian(rate=0.2)", "feature") == Place.of(
        parse("gaussian(rate=0.2)"), ("feature",)
    )


@pytest.mark.parametrize(
    "scheme", ["none", "bernoulli(rate=0.0)", "bernoulli(rate=0.0)|gaussian(rate=0.0)"]
)
def test_no_dropout_is_the_identity(scheme):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(Place.of(scheme, "feature").expected(x), x)
    np.testing.assert_array_equal(sampled(scheme, "feature", x), x)


@pytest.mark.parametrize(
    "scheme, axes, match",
    [
        (
            "zoneout",
            "feature",
            r"^zoneout\(rate=0.1\) needs the previous state; .*dropjax.zoneout\(",
        ),
        ("weight_drop", "feature", r"^weight_drop.* needs weights; call dropjax.weight_drop\("),
        ("dropconnect", "feature", r"^dropconnect.* needs weights; call dropjax.dropconnect\("),
        ("embedding", "feature", r"^embedding.* needs the table; .*dropjax.embedding_dropout\("),
        ('bernoulli(at="x")', "feature", "at would do nothing here"),
        ('gaussian|bernoulli(at="x")', "feature", "^bernoulli.*at would do nothing here"),
        ("variational", "feature", "^variational.*axes=.*no site it acts on has a time axis"),
        ("spatial", ("feature",), "no site it acts on has a spatial axis"),
        ("cutout", ("time", "feature"), "its input has no height and width"),
        ("bernoulli", ("batch", "feature"), "axes must be .* names out of time, depth"),
        ("spatial", ("height", "width", "channels"), "axes must be .* names out of time, depth"),
        ("spatial", ("height", "width"), 'no axis "feature"'),
        ("bernoulli", (), "axes must be"),
        ("bernoulli", ("feature", "feature"), "axes must be different names"),
        ("bernoulli", (0, 1), "axes must be different names"),
        (LearnedRate(), "feature", "learns values of its own.*dropjax.train"),
        ("bernuli", "feature", "did you mean bernoulli"),
        ("bernoulli(rate=2)", "feature", r"rate .*\[0, 1\]"),
    ],
)
def test_what_is_refused(scheme, axes, match):
    with pytest.raises(ValueError, match=match):
        Place.of(scheme, axes)


@pytest.mark.parametrize("scheme", [0.5, None, jnp.ones(3)])
def test_what_is_no_scheme_is_refused(scheme):
    with pytest.raises(TypeError, match="scheme must be a scheme or its text"):
        Place.of(scheme, "feature")


def test_a_value_with_too_few_axes_is_refused():
    place = Place.of("variational", ("time", "feature"))
    for call in (place.expected, lambda x: place.sampled(KEY, x)):
        with pytest.raises(ValueError, match=r"x has 1 axes, but 2 are named; its shape: \(4,\)"):
            call(jnp.ones(4))


def test_a_batch_that_is_sharded_on_an_explicit_mesh():
    """There an array's sharding is part of its type, and `jax.vmap` compares them."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    place, x = Place.of("bernoulli", "feature"), np.ones((3, 32), np.float32)
    with jax.set_mesh(mesh):
        y = jax.jit(place.sampled)(
            KEY, jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        )
    np.testing.assert_array_equal(y, sampled("bernoulli", "feature", x))
