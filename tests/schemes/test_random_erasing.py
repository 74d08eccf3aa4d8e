"""Facts of Zhong et al. 2020: a rectangle of random area and shape, wherever it fits."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import compiled, jit, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(31)
INPUT = Site("input", Kind.INPUT, ("height", "width", "feature"))


def erased(shape, rate=1.0, area=(0.02, 0.33), aspect=(0.3, 1 / 0.3), **axes):
    """Where `random_erasing` filled images of ones. Numbers are arguments of one program."""
    rate = np.asarray(rate, np.float32)
    area, aspect = (tuple(map(np.asarray, np.float32(limits))) for limits in (area, aspect))
    options = {"area": area, "aspect": aspect} | axes
    return ops.random_erasing(KEY, ones(*shape), rate, **options) == 0


def rectangles(images):
    """Top, left, height and width of what is True in each image, which must be one rectangle."""
    down, across = images.any(2), images.any(1)
    np.testing.assert_array_equal(images, down[:, :, None] & across[:, None])
    tops, heights = down.argmax(1), down.sum(1)
    lefts, widths = across.argmax(1), across.sum(1)
    for line, first, size in ((down, tops, heights), (across, lefts, widths)):
        place = np.arange(line.shape[1])[None] - first[:, None]
        np.testing.assert_array_equal(line, (place >= 0) & (place < size[:, None]))
    return tops, lefts, heights, widths


def drawn_until_it_fits(height, width, area, aspect, number):
    """Sides by a loop: an area, then an aspect ratio, again and again until both sides fit."""
    rng, sides = np.random.default_rng(0), []
    for _ in range(number):
        pixels = rng.uniform(*area) * height * width
        while True:
            ratio = math.exp(rng.uniform(*np.log(aspect)))
            h, w = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
            if h <= height and w <= width:
                break
        sides.append((round(h), round(w)))
    return np.array(sides).T


@pytest.mark.parametrize("area, aspect", [((0.02, 0.33), (0.3, 1 / 0.3)), ((0.4, 0.9), (0.2, 3))])
def test_rectangles_are_as_those_that_are_drawn_until_they_fit(area, aspect):
    shape = (60, 80)
    images = erased((4000, *shape, 1), area=area, aspect=aspect)[..., 0]
    tops, lefts, heights, widths = rectangles(images)
    wanted = drawn_until_it_fits(*shape, area, aspect, 4000)
    for ours, theirs in zip((heights, widths), wanted, strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert scipy.stats.ks_2samp(heights / widths, wanted[0] / wanted[1]).pvalue > 1e-3
    share = heights * widths / math.prod(shape)
    assert scipy.stats.kstest(share, "uniform", (area[0], area[1] - area[0])).pvalue > 1e-3
    # Any place where it fits is as likely as another.
    for first, size, length in ((tops, heights, shape[0]), (lefts, widths, shape[1])):
        assert_mean(first - (length - size) / 2, 0)
        assert_mean((first == 0) - 1 / (length - size + 1), 0)
        assert_mean((first == length - size) - 1 / (length - size + 1), 0)


def test_every_place_is_as_likely_and_none_sticks_out():
    images = erased((20_000, 4, 5, 1), area=(0.2, 0.2), aspect=(1.0, 1.0))[..., 0]
    tops, lefts, heights, widths = rectangles(images)
    assert (heights == 2).all() and (widths == 2).all()
    for top, left in np.ndindex(3, 4):
        assert_mean((tops == top) & (lefts == left), 1 / 12)


def test_tall_is_as_likely_as_wide():
    _, _, heights, widths = rectangles(erased((4000, 64, 64, 1))[..., 0])
    assert_mean(np.sign(heights - widths), 0)
    ratios = np.log(heights[widths > 12] / widths[widths > 12])
    assert ratios.min() < -0.9 and ratios.max() > 0.5


def test_an_area_that_fits_at_no_ratio_in_range_is_kept_at_the_nearest_that_does():
    _, _, heights, widths = rectangles(erased((50, 2, 40, 1), area=(0.3, 0.3))[..., 0])
    assert set(heights) == {2} and set(widths) == {12}
    _, _, heights, widths = rectangles(erased((50, 40, 2, 1), area=(0.3, 0.3))[..., 0])
    assert set(heights) == {12} and set(widths) == {2}
    assert erased((50, 2, 40, 1), area=(1.0, 1.0)).all()
    assert (erased((50, 2, 40, 1), area=(0.001, 0.001)).sum((1, 2)) == 1).all()


def test_the_rate_is_that_of_images_with_a_rectangle():
    for rate in (0.3, 0.5):
        assert_mean(erased((20_000, 4, 5, 1), rate).any((1, 2, 3)), rate)
    some = erased((3, 5, 5, 1), np.eye(3)[1].reshape(3, 1, 1, 1))
    assert some.any((1, 2, 3)).tolist() == [False, True, False]


def test_images_have_rectangles_of_their_own_and_channels_share_them():
    y = erased((6, 2, 8, 8, 3))
    assert (y == y[..., :1]).all()
    assert len(np.unique(y[..., 0].reshape(12, -1), axis=0)) > 8
    first = erased((20, 3, 9), area=(0.2, 0.2), spatial_axes=(0, 2), channel_axis=1)
    assert (first == first[:, :1]).all() and first.any()


def test_the_order_of_the_axes_says_which_is_the_height():
    options = {"area": (0.2, 0.2), "aspect": (3.0, 3.0)}
    tall = rectangles(erased((20, 30, 30, 1), **options)[..., 0])
    wide = rectangles(erased((20, 30, 30, 1), spatial_axes=(2, 1), **options)[..., 0])
    assert (tall[2] > 2 * tall[3]).all() and (wide[3] > 2 * wide[2]).all()


def test_fills():
    x = np.random.default_rng(0).uniform(5, 6, (400, 8, 8, 3)).astype(np.float32)
    each = np.array([0.1, 0.2, 0.3], np.float32)

    @compiled
    def filled(x, each):
        return [dropjax.random_erasing(KEY, x, 1.0, fill=fill) for fill in (0.0, each, "noise")]

    zeros, colours, noisy = filled(x, each)
    inside = zeros == 0
    np.testing.assert_array_equal(zeros, np.where(inside, 0, x))
    np.testing.assert_array_equal(colours, np.where(inside, each, x))
    np.testing.assert_array_equal(noisy[~inside], x[~inside])
    assert scipy.stats.kstest(noisy[inside], "norm").pvalue > 1e-3
    assert len(np.unique(noisy[inside])) > 0.99 * inside.sum()


def test_gradients_are_0_inside_and_1_outside():
    x = np.ones((3, 6, 6, 2), np.float32)
    x[0, 0, 0, 0] = np.inf

    @compiled
    def slopes_and_identity(x):
        def of(fill):
            f = partial(dropjax.random_erasing, fill=fill)
            _, pullback = jax.vjp(lambda x: f(KEY, x, 1.0), x)
            return pullback(jnp.ones_like(x))[0], jax.jit(f)(KEY, x, 0.0)  # a traced rate

        return [of(fill) for fill in (0.0, "noise")]

    for slopes, identity in slopes_and_identity(x):
        np.testing.assert_array_equal(slopes, ~erased(x.shape))
        np.testing.assert_array_equal(identity, x)


def test_no_images_or_empty_ones():
    for shape in ((0, 4, 4, 1), (2, 0, 4, 1)):
        assert ops.random_erasing(KEY, np.ones(shape, np.float32)).shape == shape


# The scheme.


def test_the_scheme_is_the_function_and_for_training_only():
    cases = [
        ("random_erasing(rate=1.0)", {}),
        (
            'random_erasing(rate=1.0,fill="noise",area=(0.3,0.4))',
            {"fill": "noise", "area": (0.3, 0.4)},
        ),
        (
            "random_erasing(rate=1.0,aspect=(3.0,3.0),value=0.5)",
            {"fill": 0.5, "aspect": (3.0, 3.0)},
        ),
    ]

    @compiled
    def by_scheme_and_function(x):
        key = Keys.of(KEY).within("input").example
        schemes = [sampled(parse(text), KEY)(x, INPUT) for text, _ in cases]
        return schemes, [dropjax.random_erasing(key, x, 1.0, **options) for _, options in cases]

    x = np.random.default_rng(0).uniform(1, 2, (6, 7, 3)).astype(np.float32)
    for (text, _), ours, y in zip(cases, *by_scheme_and_function(x), strict=True):
        np.testing.assert_array_equal(ours, y)
        assert (y != x).any()
        assert (deterministic(parse(text))(x, INPUT) == x).all()
        assert parse(text).in_evaluation() == Chain()


def test_its_areas_are_numbers_that_may_be_traced():
    x, traces = np.ones((8, 8, 1), np.float32), []

    @jit
    def run(scheme):
        traces.append(None)
        return sampled(scheme, KEY)(x, INPUT)

    for area in ((0.1, 0.1), (0.5, 0.5)):
        scheme = parse(f"random_erasing(rate=1.0,area={area},aspect=(1.0,1.0))")
        assert abs((run(scheme) == 0).mean() - area[0]) < 0.1
    assert len(traces) == 1


X = jnp.ones((4, 4, 3))


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"area": (0.0, 0.3)}, ValueError, "^area must be .* at most 1; got"),
        ({"area": (0.1, 1.3)}, ValueError, "^area must be"),
        ({"area": (0.4, 0.3)}, ValueError, "^area must be"),
        ({"area": 0.3}, ValueError, "^area must be the least and the largest"),
        ({"aspect": (0.0, 2.0)}, ValueError, "^aspect must be .* positive; got"),
        ({"aspect": (1.0, math.inf)}, ValueError, "^aspect must be"),
        ({"fill": "pixel"}, ValueError, '^fill must be a number, an array or "noise"'),
        ({"fill": jnp.ones(2)}, ValueError, "^fill of shape .2,. does not broadcast"),
        ({"fill": 1j}, TypeError, "fill must be real"),
        ({"spatial_axes": 0}, ValueError, "must name height and width"),
        ({"channel_axis": 1}, ValueError, "channel_axis=1 is among spatial_axes"),
    ],
)
def test_errors(options, error, match):
    with pytest.raises(error, match=match):
        dropjax.random_erasing(KEY, X, **options)


@pytest.mark.parametrize(
    "text, match",
    [
        ("random_erasing(area=(0.5,0.1))", "^area must be"),
        ("random_erasing(aspect=(-1,1))", "^aspect must be"),
        ("random_erasing(value=1e999)", "^value must be finite"),
        ('random_erasing(fill="noise",value=1.0)', '^value=1.0 does nothing under fill="noise"'),
    ],
)
def test_a_scheme_checks_its_numbers(text, match):
    with pytest.raises(ValueError, match=match):
        parse(text)
