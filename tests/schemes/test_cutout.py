"""Facts of DeVries & Taylor 2017: a square whose centre is any pixel, in training only."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import jit, normal, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(15)
IMAGES = 10_000
SIZES = [2, 3, 7]
SHAPE = (5, 6)


def cut(x, rate=1.0, **options):
    """`cutout` of one key, compiled: it is many small operations."""
    return jit(lambda x: ops.cutout(KEY, x, rate, **options))(np.asarray(x, np.float32))


def hole(centre, size, shape):
    """The paper's square: `size` pixels from centre - size // 2 on, less what sticks out."""
    inside = np.zeros(shape, bool)
    slices = [slice(max(c - size // 2, 0), max(c - size // 2 + size, 0)) for c in centre]
    inside[tuple(slices)] = True
    return inside


def all_holes(size, shape):
    return np.stack([hole(c, size, shape) for c in itertools.product(*map(range, shape))])


@pytest.mark.parametrize("size", SIZES)
def test_holes_are_the_paper_s_each_centre_as_likely_as_another(size):
    holes = np.asarray(cut(ones(IMAGES, *SHAPE, 1), size=size))[..., 0] == 0
    possible = all_holes(size, SHAPE)
    code = 2 ** np.arange(30).reshape(SHAPE)  # a number for each set of pixels
    numbers, wanted = (holes * code).sum((1, 2)), (possible * code).sum((1, 2))
    assert set(numbers) == set(wanted)
    for number in set(wanted):
        assert_mean(numbers == number, (wanted == number).mean())
    assert_mean(holes.reshape(IMAGES, -1), possible.mean(0).ravel())
    assert_mean(holes.sum((1, 2)), possible.sum((1, 2)).mean())


@pytest.mark.parametrize("axes", [(1,), (1, 2), (1, 2, 3)])
def test_holes_in_one_two_or_three_axes_are_boxes(axes):
    y = np.asarray(cut(ones(2000, 3, 4, 5), size=2, spatial_axes=axes, channel_axis=None)) == 0
    shape = tuple(y.shape[axis] for axis in axes)
    images = np.moveaxis(y, axes, range(-len(axes), 0)).reshape(-1, *shape)
    found = {image.tobytes() for image in images}
    assert found == {image.tobytes() for image in all_holes(2, shape)}


def test_images_have_holes_of_their_own_and_channels_share_them():
    y = np.asarray(cut(ones(6, 2, 8, 8, 3), size=4))
    assert (y == y[..., :1]).all()
    assert len(np.unique(y[..., 0].reshape(12, -1), axis=0)) > 8
    first = np.asarray(cut(ones(8, 3, 8), size=4, spatial_axes=(0, 2), channel_axis=1))
    assert (first == first[:, :1]).all() and (first == 0).any()


def test_nothing_is_rescaled_and_gradients_are_0_inside_and_1_outside():
    x = np.array(normal(6, 6, 2))
    x[0, 0, 0] = np.inf
    y, pullback = jax.vjp(lambda x: cut_traced(x, 3), jnp.asarray(x))
    outside = np.asarray(cut(np.ones_like(x), size=3))
    assert (np.asarray(y) == np.where(outside == 1, x, 0)).all() and 0 < outside.mean() < 1
    np.testing.assert_array_equal(pullback(jnp.ones_like(x))[0], outside)


@partial(jit, static_argnums=1)
def cut_traced(x, size):
    return ops.cutout(KEY, x, size=size)


def test_the_rate_is_that_of_images_with_a_hole():
    y = np.asarray(cut(ones(IMAGES, 4, 4, 1), 0.3, size=2))
    assert_mean((y == 0).any((1, 2, 3)), 0.3)
    some = np.asarray(cut(ones(3, 4, 4, 1), jnp.eye(3)[1].reshape(3, 1, 1, 1), size=2))
    assert (some == 0).any((1, 2, 3)).tolist() == [False, True, False]


def test_a_large_square_can_cover_all():
    assert (np.asarray(cut(ones(4, 5, 3), size=12)) == 0).all()


def test_the_scheme_is_for_training_only():
    """Deterministic evaluation and Monte-Carlo both leave the images as they are."""
    scheme, x = parse("cutout|bernoulli"), ones(8, 8, 3)
    site = Site("input", Kind.INPUT, ("height", "width", "feature"))
    assert (sampled(scheme, KEY)(x, site) == 0).any()
    assert (deterministic(scheme)(x, site) == x).all()
    assert scheme.in_evaluation().links == parse("bernoulli").links
    assert parse("cutout").in_evaluation() == Chain()
    assert (sampled(scheme.in_evaluation(), KEY)(x, site) == x).all()


def test_the_scheme_makes_the_holes_of_the_function():
    scheme = parse("cutout(rate=1.0,size=3)")
    site = Site("input", Kind.INPUT, ("height", "width", "feature"))
    draws = jax.vmap(lambda i, s: sampled(s, Keys.of(KEY, i))(ones(*SHAPE, 2), site), (0, None))
    draws = jit(draws)
    y = np.asarray(draws(np.arange(5000), scheme))
    assert (y == y[..., :1]).all()
    possible = all_holes(3, SHAPE)
    found = {image.tobytes() for image in y[..., 0] == 0}
    assert found == {image.tobytes() for image in possible}
    assert_mean((y[..., 0] == 0).reshape(5000, -1), possible.mean(0).ravel())
    some = np.asarray(draws(np.arange(5000), parse("cutout(rate=0.3,size=3)")))
    assert_mean((some == 0).any((1, 2, 3)), 0.3)


X = jnp.ones((4, 4, 3))


@pytest.mark.parametrize(
    "arguments, options, error, match",
    [
        ((KEY, X), {"size": 0}, ValueError, "^size must be a whole number.*got 0"),
        ((KEY, X), {"size": 2.5}, ValueError, "^size must be a whole number"),
        ((KEY, X), {"channel_axis": 1}, ValueError, "channel_axis=1 is among spatial_axes"),
        ((KEY, X), {"spatial_axes": ()}, ValueError, "spatial_axes"),
    ],
)
def test_errors(arguments, options, error, match):
    with pytest.raises(error, match=match):
        dropjax.cutout(*arguments, **{"size": 2} | options)


def test_a_scheme_checks_its_size():
    with pytest.raises(ValueError, match=r"^size must be a whole number"):
        parse("cutout(size=0)")
