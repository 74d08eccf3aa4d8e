"""Facts of Ghiasi, Lin & Le 2018: whole blocks are dropped, at the rate that was asked for."""

import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import record, table
from dropjax.core.site import Kind, Site
from dropjax.models.cnn import CNN
from dropjax.ops.block_masks import seed_chance
from dropjax.schemes import dropblock, parse
from tests.compiled import compiled, draw_at, expected, jit, normal, ones, ops
from tests.ops.reference import words_of
from tests.ops.test_covering import along_one, some_kept
from tests.ops.test_mask import bytes_kept
from tests.statistics import assert_mean

KEY = jax.random.key(21)
MAP = Site("map", Kind.FEATURE_MAP, ("height", "width", "feature"))

# Size of a square map and of a block, rate; then gamma of the paper, what it drops, exact gamma.
TABLE = [
    (14, 7, 0.10, 0.00625, 0.0929, 0.00676),
    (14, 7, 0.25, 0.01562, 0.2095, 0.01940),
    (14, 7, 0.50, 0.03125, 0.3582, 0.05264),
    (28, 7, 0.10, 0.00331, 0.0939, 0.00353),
    (7, 5, 0.10, 0.02178, 0.0947, 0.02308),
    (7, 7, 0.10, 0.10000, 0.1000, 0.10000),
    (32, 3, 0.10, 0.01264, 0.0954, 0.01328),
]


def dropped(x, *args, **options):
    """`dropblock` of one key, compiled, and where it is 0."""
    x = np.asarray(x, np.float32)
    return np.asarray(jit(lambda x: ops.dropblock(KEY, x, *args, **options))(x)) == 0


def starts(sizes, blocks):
    """The first positions of all blocks that fit."""
    return itertools.product(*(range(n - b + 1) for n, b in zip(sizes, blocks, strict=True)))


def union(chosen, sizes, blocks):
    """The positions that lie in one of these blocks, each given by its first position."""
    inside = np.zeros(sizes, bool)
    for start in chosen:
        inside[tuple(slice(s, s + b) for s, b in zip(start, blocks, strict=True))] = True
    return inside


def blocks_over(sizes, blocks):
    """How many blocks lie over each position, counted one by one."""
    return sum(union([start], sizes, blocks).astype(int) for start in starts(sizes, blocks))


def realised(gamma, sizes, blocks):
    return 1 - np.mean((1 - np.float64(gamma)) ** blocks_over(sizes, blocks))


def solved(rate, spans, gamma="exact"):
    """By a program without arguments, as one of a fixed rate is: it compiles fastest."""
    return np.asarray(jit(lambda: seed_chance(jnp.float32(rate), spans, gamma))())


# The rate.


@pytest.mark.parametrize("size, block, rate, first_order, less, exact", TABLE)
def test_seeds_are_as_many_as_the_rate_needs(size, block, rate, first_order, less, exact):
    """And the paper's formula drops less: both against counting the blocks over each position."""
    spans, of = ((size, block),) * 2, ((size, size), (block, block))
    ours, theirs = solved(rate, spans), solved(rate, spans, "paper")
    np.testing.assert_allclose([ours, theirs], [exact, first_order], atol=6e-6)
    assert abs(realised(ours, *of) - rate) < 1e-6
    assert abs(realised(theirs, *of) - less) < 6e-5


@pytest.mark.parametrize("size, block, rate, less", [TABLE[2][:3] + TABLE[2][4:5], (7, 5, 0.1, 0)])
def test_what_is_dropped_is_what_was_asked_for(size, block, rate, less):
    """Far less than with blocks that stick out, of which there would be more near the border."""
    shares = dropped(ones(250, size, size, 16), rate, block).mean((1, 2)).ravel()
    assert_mean(shares, rate)
    if less:
        shares = dropped(ones(250, size, size, 16), rate, block, gamma="paper").mean((1, 2))
        assert_mean(shares.ravel(), less)


@pytest.mark.parametrize("spans", [((14, 7), (10, 4)), ((9, 4), (20, 20), (6, 1)), ((5000, 1000),)])
def test_gamma_is_exact_at_any_rate(spans):
    over = np.asarray(1)
    for size, block in spans:  # by addition of blocks, one axis after another
        over = np.multiply.outer(over, blocks_over((size,), (block,)))
    rates = np.array([0, 1e-6, 0.01, 0.5, 0.9, 0.99, 0.9999, 1 - 2**-23, 1], np.float32)
    gammas = np.float64(seed_chance(rates, spans, "exact"))
    assert gammas[0] == 0 and gammas[-1] == 1
    with np.errstate(divide="ignore"):
        kept = np.array([np.mean(np.exp(over * np.log1p(-gamma))) for gamma in gammas])
        lost = np.array([-np.mean(np.expm1(over * np.log1p(-gamma))) for gamma in gammas])
    # Relative to the rate and to what is kept. Near 1 a gamma of 24 bits can do no better.
    np.testing.assert_allclose(lost, rates, rtol=3e-6, atol=0)
    coarse = np.divide(2**-24, 1 - gammas, where=gammas < 1, out=np.zeros(len(gammas)))
    allowed = (1e-4 + 2 * coarse) * (1 - np.float64(rates))
    assert (np.abs(kept - (1 - np.float64(rates))) <= allowed).all()


def test_a_traced_rate_and_rates_by_example_and_channel():
    x = ones(3000, 6, 5, 3)
    rate = np.array([0.0, 0.4, 1.0], np.float32).reshape(1, 1, 3)
    y = np.asarray(jax.jit(lambda x, rate: ops.dropblock(KEY, x, rate, 3))(x, rate))
    assert (y[..., 0] == 1).all() and (y[..., 2] == 0).all()
    assert_mean((y[..., 1] == 0).mean((1, 2)), 0.4)
    alone = np.asarray(jax.jit(lambda x: ops.dropblock(KEY, x, 0.4, 3))(x))
    np.testing.assert_array_equal(y[..., 1], alone[..., 1])


# The blocks.

CASES = {
    # shape, spatial axes, block, its sizes along the axes
    "1-D": ((2, 11, 2), -2, 4, (4,)),
    "2-D, odd": ((2, 7, 9, 2), (-3, -2), 3, (3, 3)),
    "2-D, even": ((1, 8, 6, 2), (1, 2), 4, (4, 4)),
    "2-D, channels first": ((1, 2, 5, 6), (-2, -1), 2, (2, 2)),
    "larger than the map": ((6, 3, 5, 2), (1, 2), 7, (3, 5)),
    "larger than one side": ((3, 3, 9, 2), (1, 2), 4, (3, 4)),
    "sizes by axis": ((2, 7, 9, 2), (1, 2), (2, 5), (2, 5)),
    "sizes by axis, the other order": ((2, 7, 9, 2), (2, 1), (5, 2), (2, 5)),
    "3-D": ((1, 4, 5, 6, 2), (1, 2, 3), (2, 3, 1), (2, 3, 1)),
}


def by_hand(shape, axes, blocks, gamma, normalize, keep):
    """The factor by loops over masks, seeds and positions, from the words of the key."""
    seeds = [n - dict(zip(axes, blocks, strict=True)).get(a, 1) + 1 for a, n in enumerate(shape)]
    drawn = words_of(KEY, tuple(seeds)) / 2.0**32 < np.float32(gamma)
    drawn = np.moveaxis(drawn, axes, range(-len(axes), 0))
    factor = np.moveaxis(np.zeros(shape), axes, range(-len(axes), 0))
    sizes = factor.shape[-len(axes) :]
    # Where there are many, all but one in 10**6 masks leave something.
    few = len(list(starts(sizes, blocks))) <= 20
    some = some_kept(float(gamma), sizes, blocks) if few else 1
    for mask in np.ndindex(factor.shape[: -len(axes)]):
        inside = union(np.argwhere(drawn[mask]), sizes, blocks)
        of_map = inside.size / max((~inside).sum(), 1) / some
        scale = {"example": of_map, "none": 1, "expected": 1 / keep}
        factor[mask] = np.where(inside, 0, scale[normalize])
    return np.moveaxis(factor, range(-len(axes), 0), axes)


@pytest.mark.parametrize(
    "name, normalize",
    [*((name, "example") for name in CASES), ("sizes by axis", "expected"), ("3-D", "none")],
)
def test_it_is_the_paper_s_algorithm(name, normalize):
    shape, spatial, block, blocks = CASES[name]
    axes = sorted(a % len(shape) for a in np.atleast_1d(spatial))
    sizes = tuple(shape[axis] for axis in axes)
    gamma = solved(0.4, tuple(zip(sizes, blocks, strict=True)))
    wanted = by_hand(shape, axes, blocks, gamma, normalize, 1 - realised(gamma, sizes, blocks))
    assert 0 < (wanted == 0).mean() < 1
    x = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    options = {"spatial_axes": spatial, "normalize": normalize}

    @compiled
    def dropped(x):
        y, pullback = jax.vjp(lambda x: dropjax.dropblock(KEY, x, 0.4, block, **options), x)
        return y, pullback(jnp.ones_like(x))[0]

    y, slopes = dropped(x)
    np.testing.assert_allclose(y, x * wanted, rtol=2e-6)
    np.testing.assert_allclose(slopes, wanted, rtol=2e-6)


@pytest.mark.parametrize("block", [3, 5])
def test_the_mask_of_torchvision_for_the_same_seeds(block):
    """Theirs is padded, then pooled; it fits for odd sizes only. They scale over the batch."""
    n, height, width = 3, 9, 7
    inner = (n, height - block + 1, width - block + 1)
    gamma = 0.3 * height * width / (block**2 * math.prod(inner[1:]))
    seeds = words_of(KEY, inner) / 2.0**32 < np.float32(gamma)
    padding = block // 2
    padded = np.pad(seeds, [(0, 0), (padding,) * 2, (padding,) * 2])
    pooled = scipy.ndimage.maximum_filter(padded, (1, block, block), mode="constant")
    x = np.random.default_rng(7).uniform(1, 2, (n, height, width, 1)).astype(np.float32)
    options = {"block_size": block, "gamma": "paper", "normalize": "none"}
    ours = jit(lambda x: ops.dropblock(KEY, x, 0.3, **options))(x)
    np.testing.assert_array_equal(ours, x * ~pooled[..., None])
    assert pooled.any((1, 2)).any() and not pooled.all()


@pytest.mark.parametrize("block", [3, 4])
def test_blocks_are_whole(block):
    """What is dropped is a union of whole blocks, on even sizes too; none is cut by the border."""
    images = dropped(ones(40, 9, 11, 1), 0.3, block)[..., 0]
    one_block = {inside.sum() for inside in images}
    assert block * block in one_block
    for inside in images:
        corners = [
            (i, j)
            for i, j in starts((9, 11), (block, block))
            if inside[i : i + block, j : j + block].all()
        ]
        np.testing.assert_array_equal(union(corners, (9, 11), (block, block)), inside)


def test_a_block_of_one_position_is_dropout_and_one_of_the_map_is_spatial_dropout():

    @compiled
    def found_and_wanted(x):
        blocks = [dropjax.dropblock(KEY, x, 0.3, size, normalize="expected") for size in (1, 9)]
        return blocks, [dropjax.dropout(KEY, x, 0.3), dropjax.spatial_dropout(KEY, x, 0.3)]

    x = np.random.default_rng(1).uniform(1, 2, (3, 4, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(*map(np.stack, found_and_wanted(x)), rtol=1e-5)


def test_examples_and_channels_have_masks_of_their_own_unless_shared():
    y = dropped(ones(4, 8, 8, 3), 0.4, 3)
    maps = np.moveaxis(y, -1, 1).reshape(12, -1)
    assert len(np.unique(maps, axis=0)) > 9
    y = dropped(ones(4, 8, 8, 3), 0.4, 3, shared_axes=-1)
    assert (y == y[..., :1]).all()
    assert len(np.unique(y[..., 0].reshape(4, -1), axis=0)) == 4
    y = dropped(ones(4, 8, 8, 3), 0.4, 3, shared_axes=0)
    assert (y == y[:1]).all() and not (y == y[..., :1]).all()


def test_the_same_mask_under_any_layout():
    """Rows of a scan over time come from the same mask: `tests/test_contract.py` has the rest."""
    site = Site("sequence", Kind.EMBED, ("time", "feature"))
    draw = sampled(parse('dropblock(rate=0.4,block_size=3,at="seq")'), KEY)

    @compiled
    def by_row_and_at_once(x):
        noise = draw.noise(site, x.shape)
        rows = jax.lax.map(lambda t: draw.apply(draw.at(noise, t), x[0], site), jnp.arange(12))
        return rows, draw(x, site)

    np.testing.assert_array_equal(*by_row_and_at_once(ones(12, 4)))


# The mean.


def test_what_is_kept_is_scaled_example_by_example():
    """Not over the batch: then an example would depend on which others it is drawn with."""
    x = np.random.default_rng(2).uniform(1, 2, (6, 8, 8, 2)).astype(np.float32)
    f = jit(lambda x: ops.dropblock(KEY, x, 0.4, 3))
    np.testing.assert_array_equal(f(x)[:2], f(x[:2]))
    means = np.asarray(f(np.ones_like(x))).mean((1, 2))
    np.testing.assert_allclose(means, 1, rtol=1e-6)
    batch = np.asarray(f(np.ones_like(x)))
    assert len(np.unique(batch[batch > 0])) > 6


def test_the_mean_is_larger_near_the_border():
    """Figures of a 14 x 14 map, blocks of 7, half of it dropped; found by simulation elsewhere."""
    y = jit(lambda x: ops.dropblock(KEY, x, 0.5, 7))(ones(400, 14, 14, 100))
    y = np.moveaxis(np.asarray(y), -1, 1).reshape(-1, 14, 14)
    for corner in (y[:, 0, 0], y[:, -1, 0], y[:, 0, -1], y[:, -1, -1]):
        assert abs(corner.mean() - 2.13) < 0.05
    assert abs(y[:, 6:8, 6:8].mean() - 0.0885) < 0.01
    all_dropped = (y == 0).all((1, 2))  # a mean over the map of 1, but for maps of zeros
    assert abs(y.mean() - (1 - all_dropped.mean())) < 1e-5


SMALL = [(7, 7, 7), (10, 8, 7), (5, 6, 2)]


@pytest.mark.parametrize("height, width, block", SMALL)
def test_the_mean_over_a_map_is_1_where_it_may_be_dropped_whole(height, width, block):
    """At rates up to where hardly anything is kept, which are given by channel, and traced."""
    rates = np.array([0.0, 2**-26, 0.1, 0.5, 0.9, 0.97], np.float32)
    f = jit(lambda x, rate: ops.dropblock(KEY, x, rate, block).mean((-3, -2)))
    means = f(jnp.ones((20_000, height, width, len(rates))), rates.reshape(1, 1, -1))
    assert (np.asarray(means)[:, -2:] == 0).any(0).all()
    assert_mean(means, 1.0)


@pytest.mark.parametrize(
    "spans", [((15, 6), (15, 6)), ((12, 3), (12, 3)), ((5, 2),) * 3, ((1500, 500),)]
)
def test_a_map_whose_mean_is_not_exact_is_hardly_ever_dropped_whole(spans):
    """What `dropblock` says of them: a bound, from the corners and the edges of a map alone."""
    limits = {0.5: 1e-5, 0.8: 5e-5, 0.9: 2e-3}
    for gamma, limit in zip(solved([*limits], spans).tolist(), limits.values(), strict=True):
        edges = 2 ** (len(spans) - 1)  # along each axis; the corners belong to several
        bound = gamma**2 ** len(spans)
        for size, block in spans:
            bound *= (along_one(size, block, gamma) / gamma**2) ** edges
        assert bound < limit


def all_factors(sizes, blocks, gamma, scale):
    """The mean factor by enumeration of all seeds."""
    places, mean = list(starts(sizes, blocks)), np.zeros(sizes)
    for bits in itertools.product([False, True], repeat=len(places)):
        inside = union(itertools.compress(places, bits), sizes, blocks)
        chance = math.prod(gamma if bit else 1 - gamma for bit in bits)
        mean += chance * np.where(inside, 0, scale(inside))
    return mean


@pytest.mark.parametrize("gamma", ["exact", "paper"])
def test_the_mean_at_each_position_is_that_over_all_seeds(gamma):
    sizes, blocks, rate = (4, 5), (3, 2), 0.4
    seed = float(solved(rate, tuple(zip(sizes, blocks, strict=True)), gamma))
    x = np.random.default_rng(3).uniform(1, 2, (2, *sizes, 3)).astype(np.float32)
    options = {"block_size": blocks, "gamma": gamma}
    unscaled = all_factors(sizes, blocks, seed, lambda _: 1.0)
    ours = expected.dropblock(x, rate, **options, normalize="none")
    np.testing.assert_allclose(ours, x * unscaled[..., None], rtol=1e-5)
    ours = expected.dropblock(x, rate, **options, normalize="expected")
    np.testing.assert_allclose(ours, x * (unscaled / unscaled.mean())[..., None], rtol=1e-5)
    if gamma == "exact":
        assert abs(unscaled.mean() - (1 - rate)) < 1e-6
    some = some_kept(seed, sizes, blocks)
    scaled = all_factors(sizes, blocks, seed, lambda m: m.size / max((~m).sum(), 1) / some)
    np.testing.assert_allclose(scaled.mean(), 1)
    draws = jit(lambda x: ops.dropblock(KEY, x, rate, **options))(ones(20_000, *sizes, 1))
    assert_mean(draws[..., 0], scaled)
    assert scaled.max() > 1.1 and scaled.min() < 0.9


def test_the_mean_of_what_is_scaled_by_its_own_number_is_refused_but_of_whole_maps():
    x = jnp.arange(32.0).reshape(4, 4, 2) + 1
    for rate in (0.1, jnp.float32(0.1), jnp.array([0.1, 0.9])):
        assert (dropjax.expected.dropblock(x, rate, 4) == x).all()
    assert (dropjax.expected.dropblock(x, 1.0) == 0).all()
    with pytest.raises(ValueError, match="has no closed form where a block is smaller than"):
        dropjax.expected.dropblock(x, 0.1, (4, 3))


# The ends of the range, and of the dtype.


def test_the_scheme_evaluates_with_0_where_nothing_can_be_kept():
    blocks, kinds = (1, 3, 9, (9, 1), (9, 3)), (("exact", "paper"), ("example", "expected"))
    of_each = list(itertools.product(blocks, *kinds))

    @compiled
    def evaluated(x, rate):
        schemes = [dropblock.DropBlock(1.0, b, gamma=g, normalize=n) for b, g, n in of_each]
        schemes = [dataclasses.replace(scheme, rate=rate) for scheme in schemes]
        gammas = [scheme.sample(Keys.of(KEY), MAP, x.shape).gamma for scheme in schemes]
        return [deterministic(scheme)(x, MAP) for scheme in schemes], gammas

    x = ones(5, 6, 2)
    for rate in (1.0, ones()):  # fixed in the program, and its argument
        for (block, gamma, _), y, chance in zip(of_each, *evaluated(x, rate), strict=True):
            kept = gamma == "paper" and block in (3, (9, 3))  # the paper's gamma is below 1 there
            assert (y == kept).all() and (chance < 1).all() == kept
    assert (np.stack(evaluated(x, np.full((), 0.99, np.float32))[0]) == 1).all()


def test_a_map_of_which_nothing_is_kept_is_zeros_with_zero_gradients():
    # A map of which the shares of positions do not sum to 1 when each is rounded.
    x = normal(7, 10, 2)
    x[0, 0, 0] = np.inf

    @compiled
    def outputs_and_slopes(x, rate):
        """By each way to normalize."""
        found = []
        for normalize in ("example", "expected", "none"):
            f = partial(dropjax.dropblock, KEY, block_size=3, normalize=normalize)
            y, pullback = jax.vjp(lambda x, f=f: f(x, rate), x)
            found.append((y, pullback(jnp.ones_like(x))[0]))
        return [jnp.stack(of_all) for of_all in zip(*found, strict=True)]

    for rate in (1.0, ones()):  # fixed in the program, and its argument
        y, slopes = outputs_and_slopes(x, rate)
        assert (y == 0).all()
        assert (slopes == 0).all()
    at_0, _ = outputs_and_slopes(x, np.zeros((), np.float32))
    np.testing.assert_array_equal(at_0, np.stack([x] * 3))
    _, at_most = outputs_and_slopes(np.ones_like(x), np.full((), 0.9, np.float32))
    assert np.isfinite(at_most).all()
    for normalize in ("expected", "none"):
        assert (expected.dropblock(ones(4, 4, 1), 1.0, 3, normalize=normalize) == 0).all()


def test_an_empty_batch():
    assert ops.dropblock(KEY, ones(0, 4, 4, 1), 0.5, 2).shape == (0, 4, 4, 1)
    assert ops.dropblock(KEY, ones(2, 0, 4, 1), 0.5, 2).shape == (2, 0, 4, 1)


def test_no_gradient_goes_to_the_rate_and_nothing_is_kept_for_each_element():
    x = ones(9, 9, 8)
    assert jit(jax.grad(lambda rate: ops.dropblock(KEY, x, rate, 3).sum()))(0.3) == 0
    for normalize in ("example", "expected"):
        f = partial(dropjax.dropblock, block_size=3, normalize=normalize)
        assert bytes_kept(lambda x, f=f: f(KEY, x, 0.3), x) <= 64


def test_half_precision_rounds_the_product_not_the_scale():
    x = 1 + np.random.default_rng(5).integers(0, 128, (9, 9, 20)).astype(np.float32) / 128
    exact = ops.dropblock(KEY, x, 0.3, 3)
    for dtype in ("bfloat16", "float16"):
        y = ops.dropblock(KEY, x.astype(dtype), 0.3, 3)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, exact.astype(dtype))


def test_complex_numbers_are_multiplied_by_the_same_factor():

    @compiled
    def draw_and_mean(x, z):
        mean = partial(dropjax.expected.dropblock, rate=0.3, block_size=3, normalize="expected")
        return [(f(x), f(z)) for f in (lambda x: dropjax.dropblock(KEY, x, 0.3, 3), mean)]

    x = ones(7, 7, 2)
    for real, imaginary in draw_and_mean(x, 1j * x):
        np.testing.assert_array_equal(imaginary, 1j * real)


def test_a_mesh_with_explicit_axes():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    x = ones(2, 6, 6, 2)
    with jax.set_mesh(mesh):
        for spec in (PartitionSpec("data"), PartitionSpec(None, "data")):
            placed = jax.device_put(x, NamedSharding(mesh, spec))
            y = jit(lambda x: ops.dropblock(KEY, x, 0.3, 3))(placed)
            np.testing.assert_array_equal(y, ops.dropblock(KEY, x, 0.3, 3))


# The scheme.


def test_the_scheme_is_the_function():
    x = jnp.asarray(np.random.default_rng(6).uniform(1, 2, (8, 9, 3)).astype(np.float32))
    key = Keys.of(KEY).within("map").example
    options = {"normalize": "expected", "gamma": "paper"}
    text = 'dropblock(rate=0.3,block_size=(3,4),normalize="expected",gamma="paper"{})'
    for more, shared in (("", ()), (",per_channel=False", -1)):
        y = draw_at(parse(text.format(more)), KEY, x, MAP)
        wanted = ops.dropblock(key, x, 0.3, (3, 4), shared_axes=shared, **options)
        np.testing.assert_array_equal(y, wanted)


def test_the_launch_says_where_it_is_spatial_dropout():
    sites = record(lambda draw: CNN(2, (3, 3), dense=()).init(KEY, ones(8, 8, 2), draw))
    for text, where in (
        ("dropblock(block_size=3)", "stage_1/map"),
        ("dropblock(block_size=4)", "stage_0/map, stage_1/map"),
        ("dropblock(block_size=(3,9))", "stage_1/map"),
        ("dropblock(block_size=1)", None),
    ):
        last = table(parse(text), sites).splitlines()[-1]
        assert ("it is spatial dropout there" in last) == (where is not None)
        if where:
            assert last.startswith(f"{parse(text)} at {where}: a block is as large as the map")


X = jnp.ones((4, 4, 3))


@pytest.mark.parametrize(
    "arguments, options, error, match",
    [
        ((KEY, X, 0.5, 0), {}, ValueError, "^block_size must be a whole number.*got 0"),
        ((KEY, X, 0.5, 2.5), {}, ValueError, "^block_size must be a whole number"),
        ((KEY, X, 0.5, True), {}, ValueError, "^block_size must be a whole number"),
        ((KEY, X, 0.5, (2, 2, 2)), {}, ValueError, "of which there are 2; got \\(2, 2, 2\\)"),
        ((KEY, X, 0.5), {"spatial_axes": ()}, ValueError, "one, two or three axes"),
        ((KEY, X, 0.5), {"shared_axes": 1}, ValueError, "shared_axes=1 and spatial_axes="),
        ((KEY, X, 0.5), {"gamma": "first"}, ValueError, "^gamma must be one of exact, paper"),
        ((KEY, X, 0.5), {"normalize": "batch"}, ValueError, "^normalize must be one of example"),
    ],
)
def test_errors(arguments, options, error, match):
    with pytest.raises(error, match=match):
        dropjax.dropblock(*arguments, **options)
    if error is ValueError and "shared_axes" not in options:
        with pytest.raises(error, match=match):
            dropjax.expected.dropblock(*arguments[1:], **{"normalize": "none"} | options)


def test_a_scheme_checks_its_block_size():
    with pytest.raises(ValueError, match=r"^block_size must be a whole number"):
        parse("dropblock(block_size=0)")
    with pytest.raises(ValueError, match=r"^block_size must be a whole number"):
        parse("dropblock(block_size=())")
