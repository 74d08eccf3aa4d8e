"""Facts of Durasov et al. 2021: the algebra of the masks, and the ensemble that they make."""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax import evaluate
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import draw_at, jit, normal
from tests.statistics import assert_mean

KEY = jax.random.key(0)
FEATURES, NUMBERS, SCALES = (3, 10, 11, 64, 1000), (1, 2, 4, 15), (1, 1.1, 1.5, 2.0, 3.7, 6.0)


def overlap(masks):
    """Mean intersection over union of pairs of masks."""
    pairs = itertools.combinations(masks, 2)
    return np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("n", NUMBERS)
def test_shapes_equal_counts_and_every_feature_in_use(features, n):
    for scale, seed in itertools.product(SCALES, range(3)):
        masks = dropjax.masksembles_masks(jax.random.key(seed), features, n, scale)
        assert masks.shape == (n, features) and masks.dtype == bool
        counts = masks.sum(axis=1)
        assert (counts == counts[0]).all() and masks.any(axis=0).all()
        # m of int(m s) positions, of which m s (1 - (1 - 1 / s)**n) are used.
        wanted = features / (scale * (1 - (1 - 1 / scale) ** n))
        assert abs(counts[0] - wanted) <= 0.5 or counts[0] == -(-features // n)


def test_one_mask_or_scale_1_is_the_plain_network():
    for scale in SCALES:
        assert dropjax.masksembles_masks(KEY, 33, 1, scale).all()
    for n in NUMBERS:
        assert dropjax.masksembles_masks(KEY, 33, n, 1.0).all()


def test_masks_overlap_less_at_larger_scales_and_about_as_much_as_the_paper_s():
    """Of m ones among m s positions two masks share m / s: 1 / (2 s - 1) of either's."""
    found = []
    for scale in SCALES:
        keys = [jax.random.key(seed) for seed in range(10)]
        masks = [dropjax.masksembles_masks(key, 400, 4, scale) for key in keys]
        found.append(np.mean([overlap(m) for m in masks]))
        assert found[-1] == pytest.approx(1 / (2 * scale - 1), abs=0.01)
    assert found == sorted(found, reverse=True) and len(set(found)) == len(found)


def test_with_many_masks_features_are_used_as_often_as_each_other_on_average():
    """Moving ones to make the count of features exact prefers none of them."""
    times = sum(
        dropjax.masksembles_masks(jax.random.key(seed), 12, 3, 2.0).sum(axis=0)
        for seed in range(1000)
    )
    ones = dropjax.masksembles_masks(KEY, 12, 3, 2.0).sum()
    wanted = 1000 * ones / 12
    assert (np.abs(times - wanted) < 5 * np.sqrt(wanted)).all()


def test_the_key_decides_and_typed_and_raw_keys_agree():
    first = dropjax.masksembles_masks(KEY, 40, 4, 2.0)
    np.testing.assert_array_equal(first, dropjax.masksembles_masks(KEY, 40, 4, 2))
    raw = dropjax.masksembles_masks(jax.random.PRNGKey(0), 40, 4, 2.0)
    np.testing.assert_array_equal(first, raw)
    assert (first != dropjax.masksembles_masks(jax.random.key(1), 40, 4, 2.0)).any()


def test_these_masks_never_change():
    """They are part of a trained network."""
    found = dropjax.masksembles_masks(jax.random.key(7), 10, 3, 2.0)
    assert ["".join("01"[bit] for bit in mask.astype(int)) for mask in found] == GOLDEN


GOLDEN = ["0111010011", "0001111110", "1010101101"]


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ((0, 16, 4, 2.0), TypeError, "^key must be a PRNG key"),
        ((KEY, 0, 4, 2.0), ValueError, "features must be a whole number, at least 1; got 0"),
        ((KEY, 16.0, 4, 2.0), ValueError, "features must be a whole number"),
        ((KEY, 16, 0, 2.0), ValueError, "n must be a whole number, at least 1; got 0"),
        ((KEY, 16, 4, 0.9), ValueError, r"scale must be a number in \[1, 6\], got 0.9"),
        ((KEY, 16, 4, 6.1), ValueError, r"scale must be a number in \[1, 6\], got 6.1"),
        ((KEY, 16, 4, float("nan")), ValueError, "scale must be a number"),
        ((KEY, 16, 4, True), ValueError, "scale must be a number"),
    ],
)
def test_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        dropjax.masksembles_masks(*arguments)


def test_a_traced_key_is_refused():
    with pytest.raises(TypeError, match=r"outside of jax\.jit"):
        jax.jit(lambda key: dropjax.masksembles_masks(key, 16, 4, 2.0))(KEY)


# The scheme.

SITE = Site("hidden", Kind.HIDDEN, ("time", "feature"))
X = normal(5, 12, seed=3)


def masks_of(scheme, site=SITE):
    """Its masks, as its Monte-Carlo samples show them."""

    def one(sample):
        return sampled(scheme, Keys.of(KEY, 7, sample))(jnp.ones((1, 12)), site)

    return np.asarray(jit(jax.vmap(one))(np.arange(1, scheme.n + 1)))[:, 0]


def test_the_masks_are_the_function_s_for_the_site_s_name_the_first_first():
    key = np.asarray([0, zlib.crc32(b"hidden")], np.uint32)
    wanted = dropjax.masksembles_masks(key, 12, 4, 2.0)
    np.testing.assert_array_equal(masks_of(parse("masksembles")), wanted)


def test_samples_go_through_the_masks_and_all_examples_see_the_same():
    scheme = parse("masksembles(n=3)")
    masks = masks_of(scheme)
    assert len({m.tobytes() for m in masks}) == 3 and (masks.sum(1) == masks[0].sum()).all()
    for sample, row in [(1, 0), (2, 5), (3, 9), (4, 0), (8, 1)]:
        y = draw_at(scheme, Keys.of(jax.random.key(sample), row, sample), X, SITE)
        np.testing.assert_array_equal(y, X * masks[(sample - 1) % 3][None])


def test_as_many_samples_as_masks_are_their_exact_mean():
    scheme = parse("masksembles")

    def network(_, x, keys):
        return jnp.tanh(sampled(scheme, keys)(x, SITE)).sum(0)

    mean, _ = evaluate.monte_carlo(network, (), X[None], KEY, samples=8, of_keys=True)
    wanted = np.mean([np.tanh(X * m[None]).sum(0) for m in masks_of(scheme)], axis=0)
    np.testing.assert_allclose(mean[0], wanted, rtol=1e-5, atol=1e-5)


def test_in_training_each_example_draws_one_of_the_masks():
    scheme = parse("masksembles")
    masks = masks_of(scheme)

    def one(row):
        return sampled(scheme, Keys.of(KEY, row))(jnp.ones((1, 12)), SITE)[0]

    seen = np.asarray(jit(jax.vmap(one))(np.arange(4000)))
    which = (seen[:, None] == masks).all(-1)
    assert (which.sum(1) == 1).all()
    assert_mean(which, 1 / 4)


def test_masks_belong_to_the_site_and_to_masks_seed_not_to_the_run():
    scheme, other = parse("masksembles"), Site("other", Kind.HIDDEN, ("time", "feature"))
    assert (masks_of(scheme) != masks_of(scheme, other)).any()
    assert (masks_of(scheme) != masks_of(parse("masksembles(masks_seed=1)"))).any()


def test_one_mask_alone_is_refused():
    for text in ("masksembles(n=1)", "masksembles(scale=1.0)"):
        assert "nothing would happen" in (parse(text).refuses([SITE]) or "")
    with pytest.raises(ValueError, match=r"scale must be a number in \[1, 6\]"):
        parse("masksembles(scale=7.0)")
