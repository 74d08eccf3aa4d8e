"""A scheme at one place: who gets which noise, and what is refused."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dropjax.core.draw import deterministic
from dropjax.core.keys import Keys
from dropjax.core.place import Place
from dropjax.core.site import KINDS, Kind, Site
from dropjax.ops.lazy import is_lazy
from dropjax.schemes import parse
from tests.cases import FIRST_VARIANTS
from tests.compiled import compiled
from tests.statistics import assert_mean
from tests.throwaway import LearnedRate

KEY = jax.random.key(16)
KEYS = Keys.of(KEY)


@compiled
def sampled(scheme, axes, x, key=KEY):
    """One program for all tests of a scheme, axes and a shape."""
    return Place.of(scheme, axes).sampled(key, x)


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

    @compiled
    def found(x):
        elsewhere = Place.of(scheme, "feature")
        means = place.expected(x), deterministic(scheme)(x[0], site), elsewhere.expected(x)
        return place.sampled(KEY, x), means

    y, (mean, at_site, elsewhere) = found(x)
    assert_mean(y[:, 0] == 0, 0.25)
    np.testing.assert_allclose(mean, 0.75, rtol=1e-6)
    np.testing.assert_allclose(at_site, 0.75, rtol=1e-6)
    np.testing.assert_allclose(elsewhere, 0.5, rtol=1e-6)


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
        ("masksembles", ("head", "query", "key"), 'no axis "feature"'),
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


def test_it_is_idle_where_every_rate_is_0_and_only_there():
    for scheme in ("none", "bernoulli(rate=0.0)|gaussian(rate=0.0)", "gaussian_noise(std=0.0)"):
        assert Place.of(scheme, "feature").idle
    for scheme in ("bernoulli(rate=0.0)|gaussian(rate=0.1)", "masksembles", "bernoulli(rate=1.0)"):
        assert not Place.of(scheme, "feature").idle
    deep = "stochastic_depth(rate=0.5)"
    assert Place.of(deep, "feature", 0.0).idle and not Place.of(deep, "feature", 0.5).idle


@pytest.mark.parametrize("dims", [0, "time", (-1, 0)])
def test_one_decision_is_shared_along_axes_by_number_or_name(dims):
    place = Place.of("bernoulli", ("time", "feature"), 1.0, dims)
    y = compiled(place.sampled)(KEY, np.ones((5, 6, 64), np.float32))
    axes = [("time", "feature").index(d) + 1 if isinstance(d, str) else d % 3 for d in place.shared]
    for axis in range(3):
        assert (y == y.take([0], axis)).all() == (axis in axes)


MEANT = [("time", "feature"), ("height", "width", "feature"), ("head", "query", "key")]
MEANT += [("head", "time", "feature")]
BARE = {kind for kind in KINDS if not KINDS[kind].needs}
PLACED = [s for s in FIRST_VARIANTS if (s.acts_on | s.can_act_on) & BARE and not s.learns]


@pytest.mark.parametrize("scheme", PLACED, ids=str)
def test_any_scheme_shares_along_any_axis_of_an_example(scheme):
    """Its noise then has size 1 there, and the value its own shape; or it says why it cannot."""
    for axes in MEANT:
        with contextlib.suppress(ValueError):
            Place.of(scheme, axes)
            break
    sizes = (9, 8, 7)[: len(axes)]
    x = jax.ShapeDtypeStruct((3, *sizes), jnp.float32)
    for axis in {0, len(axes) - 1}:
        place = Place.of(scheme, axes, 1.0, axes[axis])
        if scheme.resizes and axis == 0:
            with pytest.raises(
                ValueError, match=f"cannot share a decision along it: .*-{len(axes)}"
            ):
                jax.eval_shape(place.sampled, KEY, x)
            continue
        y = jax.eval_shape(place.sampled, KEY, x)
        assert y.shape[2:] == x.shape[2:] and (scheme.resizes or y.shape == x.shape)
        own = tuple(1 if i == axis else size for i, size in enumerate(sizes))
        ((link, site),) = place.links
        noise = jax.eval_shape(lambda link=link, site=site, own=own: link.sample(KEYS, site, own))
        for leaf in jax.tree.leaves(noise, is_leaf=is_lazy):
            assert scheme.resizes or np.broadcast_shapes(leaf.shape, own) == own


def test_axes_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="broadcast_dims names the axis 'time'; there are feature"):
        Place.of("bernoulli", "feature", 1.0, "time")
    for dims in (2, -3, (0, 0), (1, "feature")):
        with pytest.raises(ValueError, match=r"^broadcast_dims names"):
            Place.of("bernoulli", "feature", 1.0, dims).sampled(KEY, jnp.ones((2, 3)))


def test_another_rate_of_the_one_link_that_has_one():
    place = Place.of("gaussian_noise(std=0.1)|bernoulli(rate=0.5)", "feature")
    other = place.with_rate(0.25)
    assert (place.rate, other.rate) == (0.5, 0.25)
    assert other == Place.of("gaussian_noise(std=0.1)|bernoulli(rate=0.25)", "feature")
    with pytest.raises(ValueError, match=r"rate .*\[0, 1\]"):
        place.with_rate(1.5)
    for scheme in ("none", "bernoulli|gaussian"):
        with pytest.raises(AttributeError, match="no one rate to speak of"):
            Place.of(scheme, "feature").with_rate(0.1)


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
