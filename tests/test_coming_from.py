"""Every row of dropjax/COMING_FROM.md: the code given there does what the peer does.

What a peer computes from a mask is written out in NumPy, with the shape that it draws the mask in.
Flax, Haiku and Equinox are asked themselves; so are PyTorch, torchvision, timm, Keras and
TensorFlow where they are installed, which the tests do not need.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import equinox
import flax.linen
import flax.nnx
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax.equinox
import dropjax.linen
import dropjax.nnx
from dropjax import Kind, Site, schemes
from tests.peer_layers import (
    attention_fn_of_flax,
    attention_of_flax,
    attention_of_keras,
    attention_of_torch,
    between_layers,
    inputs_of_keras,
    untied,
)
from tests.peers import (
    DRAWS,
    IMAGES,
    KEEP,
    KEYS,
    PEER_DRAWS,
    RATE,
    SEQUENCES,
    TEXT,
    VECTORS,
    VOLUMES,
    Dropped,
    Peer,
    Row,
    close,
    draws,
    imported,
    installed,
    lenient,
    normal,
    of_keras,
    of_torch,
    ours,
    run,
    shared,
    table,
)
from tests.statistics import assert_mean

# The rows. A case is called with its row.


def tensorflow(x: np.ndarray, seed: int, version: int = 2) -> np.ndarray:
    tf = imported("tensorflow")
    tf.random.set_seed(seed)
    if version == 1:
        with lenient():
            return tf.compat.v1.nn.dropout(x, keep_prob=KEEP).numpy()
    return tf.nn.dropout(x, RATE, noise_shape=[x.shape[0], 1, x.shape[2]]).numpy()


tensorflow_1 = functools.partial(tensorflow, version=1)
tensorflow.package = tensorflow_1.package = "tensorflow"


def linen(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    return flax.linen.Dropout(rate).apply({}, x, deterministic=False, rngs={"dropout": key})


def linen_shared(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    layer = flax.linen.Dropout(rate, broadcast_dims=(1,), deterministic=False)
    return layer.apply({}, x, rng=key)


def nnx(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    return flax.nnx.Dropout(rate, rngs=flax.nnx.Rngs(dropout=key))(x)


def nnx_shared(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    return flax.nnx.Dropout(rate, broadcast_dims=(1,))(x, rngs=key)


def haiku_(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    with lenient():  # it multiplies booleans and floats
        return haiku.dropout(key, rate, x, broadcast_dims=(1,))


def equinox_(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    return equinox.nn.Dropout(rate)(x, key=key)


@dataclasses.dataclass(frozen=True)
class Alpha(Dropped):
    """a (x m + limit (1 - m)) + b, with a and b as the paper has them."""

    def __call__(self, row: Row) -> None:
        x = normal(*self.shape)
        ones = np.ones_like(x)
        units, ys = ours(row, ones, x)
        close(ys, self.formula(x, self.mask(units)))
        self.assert_drawn(self.mask(units))
        of_examples = jax.jit(jax.vmap(functools.partial(run, row)))
        ys = np.asarray(of_examples(KEYS, jnp.asarray(normal(DRAWS, *x.shape))))
        assert_mean(ys, 0)
        assert_mean(ys**2, 1)
        if installed(self.peer.package):
            theirs = np.stack([self.peer(ones, seed) for seed in range(PEER_DRAWS)])
            self.assert_drawn(self.mask(theirs))
            scheme = schemes.parse(f"alpha(rate={RATE})")
            site = Site("here", Kind.HIDDEN, ("unit", "feature"))
            for seed in range(9):
                mask = jnp.asarray(self.mask(theirs[seed]))
                close(scheme.apply(mask, jnp.asarray(x), site, None), self.peer(x, seed))

    def mask(self, of_ones: np.ndarray) -> np.ndarray:
        return of_ones > 0

    def assert_drawn(self, masks: np.ndarray) -> None:
        assert_mean(masks, KEEP)
        self.assert_shared(masks)

    def formula(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        limit = -1.0507009873554805 * 1.6732632423543772
        a = (KEEP * (1 + RATE * limit**2)) ** -0.5
        return a * np.where(mask, x, limit) - a * limit * RATE


def assert_normal(samples: np.ndarray, mean: float, variance: float) -> None:
    samples = samples.reshape(-1) - mean
    for power, moment in ((1, 0), (2, variance), (3, 0), (4, 3 * variance**2)):
        assert_mean(samples**power, moment)


def gaussian(row: Row) -> None:
    """x e, e of mean 1 and variance rate / (1 - rate)."""
    x = normal(4, 5)
    ones = np.ones_like(x)
    noise, ys = ours(row, ones, x)
    close(ys, x * noise)
    assert_normal(noise, 1, RATE / KEEP)
    assert not shared(noise)
    if installed("keras"):
        peer = of_keras("GaussianDropout")
        theirs = np.stack([peer(ones, seed) for seed in range(PEER_DRAWS)])
        assert_normal(theirs, 1, RATE / KEEP)
        close(peer(x, 3), x * theirs[3])


def noisy(row: Row) -> None:
    """x + e, e of mean 0 and variance std**2, whatever x."""
    std, x = 0.4, normal(4, 5)
    zeros = np.zeros_like(x)
    noise, ys = ours(row, zeros, x, std=std)
    close(ys, x + noise)
    assert_normal(noise, 0, std**2)
    assert not shared(noise)
    if installed("keras"):
        peer = of_keras("GaussianNoise", std)
        theirs = np.stack([peer(zeros, seed) for seed in range(PEER_DRAWS)])
        assert_normal(theirs, 0, std**2)
        assert not shared(theirs)
        close(peer(x, 3), x + theirs[3])
        with pytest.raises(ValueError, match="stddev"):
            of_keras("GaussianNoise", 1.1)(x, 0)


def erased(row: Row) -> None:
    """0 in a box of an image, which no channel escapes."""
    size, side = 4, 8
    x = normal(3, side, side, 2)
    ones = np.ones_like(x)
    factors, ys = ours(row, ones, x)
    np.testing.assert_array_equal(ys, np.where(factors == 0, 0, x))
    assert shared(factors) == {3}
    holes = factors[..., 0] == 0
    assert_mean(holes.any((2, 3)), RATE)

    def boxes(holes: np.ndarray) -> set[tuple[int, int]]:
        """Heights and widths of the holes, each of which is a full box."""
        found = set()
        for hole in holes.reshape(-1, side, side):
            rows, columns = hole.any(1), hole.any(0)
            assert (hole == rows[:, None] & columns).all()
            found.add((int(rows.sum()), int(columns.sum())))
        return found - {(0, 0)}

    partial = range(size // 2, size + 1)
    assert boxes(holes) == {(h, w) for h in partial for w in partial}
    if installed("keras"):
        named = {"scale": (size**2 / side**2,) * 2, "fill_value": 0.0, "value_range": (-9, 9)}
        many = np.ones((2000, side, side, 2), np.float32)
        theirs = of_keras("RandomErasing", (RATE, RATE), **named)(many, 5)[..., 0] == 0
        assert_mean(theirs.any((1, 2)), RATE)
        assert boxes(theirs) == {(size, size)}
        y, hole = (of_keras("RandomErasing", (1.0, 1.0), **named)(v, 5) for v in (x, ones))
        np.testing.assert_array_equal(y, np.where(hole == 0, 0, x))
        half = of_keras("RandomErasing", RATE, **named)(many, 5)[..., 0] == 0
        assert_mean(half.any((1, 2)), RATE / 2)


def windows(masks: np.ndarray, block: int, rank: int) -> np.ndarray:
    """The windows in the last `rank` axes, as many last axes more."""
    axes = tuple(range(-rank, 0))
    return np.lib.stride_tricks.sliding_window_view(masks, (block,) * rank, axes)


def blocks_over(seeds: np.ndarray, block: int, rank: int, margin: int) -> np.ndarray:
    """The number of blocks over each position, by what seeds are in reach of it."""
    edge = [(0, 0)] * (seeds.ndim - rank) + [(margin, margin)] * rank
    return windows(np.pad(seeds, edge), block, rank).sum(tuple(range(-rank, 0)))


def dropped_by_blocks(
    sizes: tuple[int, ...], block: int, rate: float, *, cut: bool = False
) -> np.ndarray:
    """How often each position of a map is dropped, with seeds at the paper's rate.

    Seeds are wherever a whole block fits, or, if blocks may be cut, at all positions.
    """
    inner = [size - block + 1 for size in sizes]
    gamma = rate * math.prod(sizes) / (block ** len(sizes) * math.prod(inner))
    seeds, margin = np.ones(sizes if cut else inner, int), block // 2 if cut else block - 1
    return 1 - (1 - gamma) ** blocks_over(seeds, block, len(sizes), margin)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """x * mask * positions / kept, in blocks of 3; the peer counts over the whole batch.

    Args:
      shape: of x, (N, C, ...).
      peer: the real one, if it may be there.
      shared: axes along which one mask is shared.
      cut: whether the border may cut the peer's blocks.
    """

    shape: tuple[int, ...]
    peer: Peer
    shared: frozenset[int] = frozenset()
    cut: bool = False

    def __call__(self, row: Row) -> None:
        x = normal(*self.shape)
        ones, rank, each = np.ones_like(x), x.ndim - 2, tuple(range(1, x.ndim + 1))
        factors, ys = ours(row, ones, x)
        dropped = dropped_by_blocks(x.shape[2:], 3, RATE)
        self.assert_drawn(factors == 0, dropped)
        holes = factors[:200] == 0
        whole = windows(holes, 3, rank).all(tuple(range(-rank, 0)))
        np.testing.assert_array_equal(blocks_over(whole, 3, rank, 2) > 0, holes)
        # Our scale is that of the peer's in the mean over batches.
        kept = 1 - dropped.mean()
        close(ys, x * (factors != 0) / kept)
        assert_mean((factors != 0).mean(each), kept)
        # As the note says: both sides drop less than was asked for; of one map they are equal.
        assert dropped.mean() < 0.95 * RATE
        (asked,) = ours(changed(row, ', gamma="paper"', ""), ones)
        assert_mean((asked == 0).mean(each), RATE)
        one = x[:1, :1]
        own = changed(row, '"expected"', '"example"')
        for factor, y in zip(*ours(own, np.ones_like(one), one), strict=True):
            close(y, self.written(one, factor != 0))
        if installed(self.peer.package):
            theirs, y = (np.stack([self.peer(v, i) for i in range(300)]) for v in (ones, x))
            self.assert_drawn(theirs == 0, dropped_by_blocks(x.shape[2:], 3, RATE, cut=self.cut))
            close(y, [self.written(x, factor != 0) for factor in theirs])

    def assert_drawn(self, holes: np.ndarray, dropped: np.ndarray) -> None:
        assert_mean(holes, np.broadcast_to(dropped, self.shape))
        assert shared(holes) == self.shared

    def written(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return x * mask * np.float32(mask.size / (mask.sum() + 1e-6))


def changed(row: Row, old: str, new: str) -> Row:
    assert old in row.here[0]
    return row._replace(here=(row.here[0].replace(old, new),))


SIDE = 8
FITS, WIDE, FULL = ((0.1, 0.2), (0.4, 1.2)), ((0.5, 1.0), (0.3, 3.3)), ((1.0, 1.0), (0.3, 3.3))
"""Shares of the area and ratios at which a rectangle fits always, sometimes, never."""


def sides_of_torchvision(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Many heights and widths by its rule: of ten attempts the first that fits, or 0."""
    rng, number = np.random.default_rng(0), 100_000
    area = rng.uniform(*scale, (10, number)) * SIDE**2
    aspect = np.exp(rng.uniform(*np.log(ratio), (10, number)))
    height, width = np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))
    fits = (height < SIDE) & (width < SIDE)
    first = fits.argmax(0), np.arange(number)
    return tuple(np.where(fits.any(0), sides[first], 0).astype(int) for sides in (height, width))


def assert_rectangles(filled: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> None:
    """Images with a rectangle at most, of sides as often as given, anywhere as often."""
    down, across = filled.any(2), filled.any(1)
    np.testing.assert_array_equal(filled, down[:, :, None] & across[:, None])
    height, width = down.sum(1), across.sum(1)
    sizes, counts = np.unique(9 * heights + widths, return_counts=True)
    assert np.isin(9 * height + width, sizes).all()
    assert_mean((9 * height + width)[:, None] == sizes, counts / len(heights))
    for line, size in ((down, height), (across, width)):
        for first in (line[:, 0], line[:, -1]):
            assert_mean(first & (size > 0), np.where(size > 0, 1 / (SIDE - size + 1), 0).mean())


def rectangle(row: Row) -> None:
    """A value, or noise, in a rectangle, drawn by two rules that agree where all fit."""
    x, each = normal(3, 2, SIDE, SIDE), np.array([2, 3], np.float32)[:, None, None]
    functions = [
        functools.partial(run, row, rate=rate, scale=scale, ratio=ratio, value=value)
        for rate, value, (scale, ratio) in (
            (RATE, 7.5, FITS),
            (1.0, 7.5, FITS),
            (1.0, 7.5, WIDE),
            (1.0, 7.5, FULL),
            (1.0, "noise", FITS),
            (1.0, each, FITS),
        )
    ]
    *made, (noisy_zeros, _), (by_channel, _) = draws(functions, [np.zeros_like(x), x])
    for of_zeros, ys in made:
        np.testing.assert_array_equal(ys, np.where(of_zeros == 0, x, np.float32(7.5)))
    some, fits, wide, full = (of_zeros != 0 for of_zeros, _ in made)
    assert shared(some) == shared(fits) == shared(wide) == {1}
    assert_mean(some.any((2, 3, 4)), RATE)
    assert_rectangles(fits[:, 0, 0], *sides_of_torchvision(*FITS))
    # Where not all fit, its are smaller, and where none does there are none.
    height, width = sides_of_torchvision(*WIDE)
    assert wide.any((2, 3, 4)).all()
    assert wide.mean() > (height * width).mean() / SIDE**2 + 0.05
    assert full.any((2, 3, 4)).all() and not sides_of_torchvision(*FULL)[0].any()
    noise = noisy_zeros[noisy_zeros != 0]
    assert_normal(noise, 0, 1)
    assert len(np.unique(noise)) > 0.99 * noise.size  # each of its own
    np.testing.assert_array_equal(by_channel, np.where(by_channel == 0, 0, each))
    if not installed("torchvision"):
        return

    def theirs(image: np.ndarray, shape: Any, value: Any = 7.5, number: int = DRAWS) -> np.ndarray:
        peer = of_torch("RandomErasing", 1.0, *shape, value, module="torchvision.transforms")
        return np.stack([peer(image, seed) for seed in range(number)])

    zeros = np.zeros_like(x)
    assert_rectangles(theirs(zeros[0], FITS)[:, 0] != 0, *sides_of_torchvision(*FITS))
    assert_rectangles(theirs(zeros[0], WIDE)[:, 0] != 0, height, width)
    np.testing.assert_array_equal(theirs(x, FULL, number=9), np.stack([x] * 9))
    assert shared(theirs(zeros, FITS, number=99)) == {0, 1}
    noise = theirs(zeros[0], FITS, "random", 99)
    assert_normal(noise[noise != 0], 0, 1)
    filled = theirs(zeros[0], FITS, (2.0, 3.0), 9)
    np.testing.assert_array_equal(filled, np.where(filled == 0, 0, each))


def patches(row: Row) -> None:
    """Some of the tokens after the first, in any order, unscaled."""
    shape, prefix = (3, 10, 2), 1
    x = normal(*shape)
    numbers = np.broadcast_to(np.arange(10.0, dtype=np.float32)[:, None], shape)

    def assert_kept(of_numbers: np.ndarray, ys: np.ndarray) -> None:
        """By what becomes of tokens that are their own positions."""
        positions = of_numbers[..., 0].astype(int)
        assert positions.shape[1:] == (3, prefix + max(1, int(9 * (1 - RATE))))
        assert (positions[..., 0] == 0).all() and not shared(positions[..., 1:])
        for position in range(1, 10):
            assert_mean(positions[..., 1:] == position, 1 / 9)
            assert_mean((positions == position).any(-1), 6 / 9)
        for p, y in zip(positions, ys, strict=False):
            np.testing.assert_array_equal(y, np.take_along_axis(x, p[..., None], 1))

    assert_kept(*ours(row, numbers, x))
    tokens, positions = (
        run(changed(row, "[0]", i), KEYS[0], jnp.asarray(x)) for i in ("[0]", "[1]")
    )
    np.testing.assert_array_equal(tokens, jnp.take_along_axis(x, positions[..., None], 1))
    longer = np.concatenate([numbers, numbers + 10, numbers[:, :2] + 20], 1)
    both = changed(row, "ordered=False", "prefix=2, ordered=False")
    (kept,) = (y[..., 0] for y in ours(both, longer, rate=0.9))
    assert kept.shape[1:] == (3, 2 + 2) and (kept[..., :2] == (0, 1)).all()
    assert max(1, int(20 * (1 - 0.9))) == 1
    assert run(row, KEYS[0], jnp.asarray(x), 1.0).shape == (3, 1 + 1, 2)
    if installed("timm"):
        peer = of_torch("PatchDropout", module="timm.layers")
        assert_kept(*(np.stack([peer(v, seed) for seed in range(DRAWS)]) for v in (numbers, x)))
        few = of_torch("PatchDropout", 0.9, num_prefix_tokens=2, module="timm.layers")(longer, 0)
        assert few.shape == (3, 2 + 1, 2) and (few[:, :2, 0] == (0, 1)).all()
        with pytest.raises(AssertionError):
            of_torch("PatchDropout", 1.0, module="timm.layers")(x, 0)


def zoned_out(row: Row) -> None:
    """The old state, here x + 1, where a unit is zoned out."""
    x = normal(4, 5)
    of_ones, ys = ours(row, np.ones_like(x), x)
    mask = of_ones == 1
    assert_mean(mask, KEEP)
    np.testing.assert_array_equal(ys, np.where(mask, x, x + 1))


def at_once(row: Row, axes: set[int]) -> None:
    """A layer whose mask is tested elsewhere: one draw, shared along these axes."""
    y = np.asarray(jax.jit(functools.partial(run, row))(KEYS[0], jnp.ones((9, 8, 64))))
    assert np.isclose(y[y != 0], 1 / KEEP, rtol=1e-6).all() and shared(y[None]) == axes
    assert abs((y == 0).mean() - RATE) < 0.1


CASES: dict[str, Callable[[Row], None]] = {
    "torch.nn.Dropout(rate)": Dropped(VECTORS, VECTORS, of_torch("Dropout")),
    "torch.nn.Dropout1d(rate)": Dropped(SEQUENCES, (3, 4, 1), of_torch("Dropout1d")),
    "torch.nn.Dropout2d(rate)": Dropped(IMAGES, (2, 3, 1, 1), of_torch("Dropout2d")),
    "torch.nn.Dropout3d(rate)": Dropped(VOLUMES, (2, 3, 1, 1, 1), of_torch("Dropout3d")),
    "torch.nn.AlphaDropout(rate)": Alpha(VECTORS, VECTORS, of_torch("AlphaDropout")),
    "torch.nn.FeatureAlphaDropout(rate)": Alpha(
        IMAGES, (2, 3, 1, 1), of_torch("FeatureAlphaDropout")
    ),
    "torch.nn.LSTM(inputs, width, 2, dropout=rate)": between_layers,
    "torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)": attention_of_torch,
    'torchvision.ops.StochasticDepth(rate, "row")': Dropped(
        IMAGES, (2, 1, 1, 1), of_torch("StochasticDepth", RATE, "row", module="torchvision.ops")
    ),
    'torchvision.ops.StochasticDepth(rate, "batch")': Dropped(
        IMAGES, (1, 1, 1, 1), of_torch("StochasticDepth", RATE, "batch", module="torchvision.ops")
    ),
    "torchvision.ops.drop_block2d(x, rate, 3)": Blocks(
        (2, 3, 7, 9), of_torch("DropBlock2d", RATE, 3, module="torchvision.ops")
    ),
    "torchvision.ops.drop_block3d(x, rate, 3)": Blocks(
        (2, 3, 4, 5, 6), of_torch("DropBlock3d", RATE, 3, module="torchvision.ops")
    ),
    "DropBlock2d(rate, 3)": Blocks(
        (2, 3, 7, 9),
        of_torch("DropBlock2d", RATE, 3, module="timm.layers"),
        shared=frozenset({1}),
        cut=True,
    ),
    "torchvision.transforms.RandomErasing(rate, scale, ratio, value)": rectangle,
    "PatchDropout(rate)": patches,
    "keras.layers.Dropout(rate)": Dropped(VECTORS, VECTORS, of_keras("Dropout")),
    "keras.layers.Dropout(rate, noise_shape=(None, 1, None))": Dropped(
        SEQUENCES, (3, 1, 5), of_keras("Dropout", noise_shape=(None, 1, None))
    ),
    "keras.layers.SpatialDropout1D(rate)": Dropped(
        SEQUENCES, (3, 1, 5), of_keras("SpatialDropout1D")
    ),
    "keras.layers.SpatialDropout2D(rate)": Dropped(
        IMAGES, (2, 1, 1, 5), of_keras("SpatialDropout2D")
    ),
    "keras.layers.SpatialDropout3D(rate)": Dropped(
        VOLUMES, (2, 1, 1, 1, 3), of_keras("SpatialDropout3D")
    ),
    "keras.layers.GaussianDropout(rate)": gaussian,
    "keras.layers.GaussianNoise(std)": noisy,
    "keras.layers.AlphaDropout(rate)": Alpha(VECTORS, VECTORS, of_keras("AlphaDropout")),
    "keras.layers.RandomErasing((rate, rate), (0.25, 0.25), 0.0)": erased,
    "keras.layers.MultiHeadAttention(heads, width, dropout=rate)": attention_of_keras,
    "keras.layers.LSTM(units, dropout=rate)": inputs_of_keras,
    "keras.layers.LSTM(units, dropout=0.2, recurrent_dropout=0.3)": untied,
    "tf.nn.dropout(x, rate, noise_shape=[3, 1, 5])": Dropped(SEQUENCES, (3, 1, 5), tensorflow),
    "tf.compat.v1.nn.dropout(x, keep_prob)": Dropped(VECTORS, VECTORS, tensorflow_1),
    "tf.nn.RNNCellDropoutWrapper(cell, input_keep_prob=keep_prob)": Dropped(SEQUENCES, SEQUENCES),
    "tf.nn.RNNCellDropoutWrapper(cell, input_keep_prob=keep_prob, variational_recurrent=True)": (
        Dropped(SEQUENCES, (3, 1, 5))
    ),
    "flax.linen.Dropout(rate, broadcast_dims=(1,))": functools.partial(at_once, axes={1}),
    "flax.linen.Dropout(rate)": Dropped(SEQUENCES, SEQUENCES, jax_peer=linen),
    "flax.linen.Dropout(rate, broadcast_dims=(1,))(x, rng=key)": Dropped(
        SEQUENCES, (3, 1, 5), jax_peer=linen_shared, same_key=True
    ),
    "flax.nnx.Dropout(rate, rngs=rngs)": Dropped(SEQUENCES, SEQUENCES, jax_peer=nnx),
    "flax.nnx.Dropout(rate, broadcast_dims=(1,))(x, rngs=key)": Dropped(
        SEQUENCES, (3, 1, 5), jax_peer=nnx_shared, same_key=True
    ),
    "flax.linen.MultiHeadDotProductAttention(heads, dropout_rate=rate)": functools.partial(
        attention_of_flax, drawn=(1, 1, 4, 5)
    ),
    "flax.linen.MultiHeadDotProductAttention(heads, dropout_rate=rate, broadcast_dropout=False)": (
        functools.partial(attention_of_flax, drawn=IMAGES, broadcast_dropout=False)
    ),
    "flax.linen.MultiHeadDotProductAttention(heads, dropout_rate=rate, attention_fn=attend)": (
        attention_fn_of_flax
    ),
    "haiku.dropout(key, rate, x, broadcast_dims=(1,))": Dropped(
        SEQUENCES, (3, 1, 5), jax_peer=haiku_, same_key=True
    ),
    "equinox.nn.Dropout(rate)(x, key=key)": Dropped(
        VECTORS, VECTORS, jax_peer=equinox_, same_key=True
    ),
    "equinox.nn.Dropout(rate)": functools.partial(at_once, axes=set()),
    "LockedDropout()(x, rate)": Dropped(SEQUENCES, (1, 4, 5)),
    "RNNDropout(rate)": Dropped(SEQUENCES, (3, 1, 5)),
    "WeightDropout(lstm, rate)": Dropped(VECTORS, VECTORS),
    'WeightDrop(lstm, ["weight_hh_l0"], rate, variational=True)': Dropped(VECTORS, (4, 1)),
    "EmbeddingDropout(embedding, rate)": Dropped(VECTORS, (4, 1)),
    "ZoneoutCell(cell, zoneout_states=rate)": zoned_out,
    "ZoneoutCell(cell, zoneout_outputs=rate)": zoned_out,
}


@pytest.mark.parametrize("row", table(), ids=lambda row: row.there)
def test_row(row):
    CASES[row.there](row)


def test_every_case_has_a_row():
    rows = [row.there for row in table()]
    assert sorted(rows) == sorted(CASES)


def test_lines_outside_of_the_table_are_short():
    assert all(len(line) <= 100 for line in TEXT.splitlines() if not line.startswith("|"))


def test_names_of_ours_exist():
    for name in re.findall(r"`((?:dropjax|jax)\.[\w.]+)`", TEXT):
        assert eval(name, {"dropjax": dropjax, "jax": jax}) is not None


def test_rate_1():
    """What the notes say of rate 1, there and here."""
    x, key = jnp.ones((4, 5)), jax.random.key(0)
    for f in (dropjax.gaussian_dropout, dropjax.alpha_dropout):
        assert (f(key, x, 1.0) == 0).all()
    slope = jax.grad(lambda x, f: f(key, x, 1.0).sum())
    assert (slope(x, dropjax.dropout) == 0).all()
    assert jnp.isnan(slope(x, equinox_)).all()
    assert (dropjax.attention_dropout(key, x, 1.0) == 0).all()
    head = jnp.ones((1, 4, 1, 2))
    attend = functools.partial(flax.linen.dot_product_attention, dropout_rng=key, dropout_rate=1.0)
    assert jnp.isnan(attend(head, head, head)).all()
    with pytest.raises(ValueError, match="rate must be in"):
        haiku.dropout(key, 1.0, x)
    if installed("keras"):
        keras = imported("keras")
        for name in ("GaussianDropout", "AlphaDropout"):
            with lenient(), pytest.raises(ZeroDivisionError):
                getattr(keras.layers, name)(1.0)(np.ones(5, np.float32), training=True)
    if installed("tensorflow"):
        with pytest.raises(ValueError, match="rate"):
            imported("tensorflow").nn.dropout(np.ones(5, np.float32), 1.0)
    if installed("torch"):
        torch = imported("torch")
        assert (torch.nn.AlphaDropout(1.0)(torch.ones(5)) == 0).all()


def test_examples_without_a_batch():
    """PyTorch's and our channels where x has an axis less than the table says."""
    for name, shape, axes, theirs in (
        ("Dropout1d", (4, 5), {1}, {1}),
        ("Dropout2d", (3, 4, 5), {1, 2}, {2}),
        ("Dropout3d", (3, 2, 4, 3), {1, 2, 3}, {1, 2, 3}),
    ):
        (row,) = (row for row in table() if name in row.there)
        x = np.ones(shape, np.float32)
        assert shared(ours(row, x)[0]) == axes
        if installed("torch"):
            assert shared(np.stack([of_torch(name)(x, seed) for seed in range(50)])) == theirs


def test_what_the_notes_say_of_blocks():
    assert round(100 * dropped_by_blocks((14, 14), 7, 0.1, cut=True).mean()) == 21
    assert round(100 * dropped_by_blocks((14, 14), 7, 0.1).mean()) == 9
    if installed("torchvision"):
        with pytest.raises((ValueError, RuntimeError)):
            of_torch("DropBlock2d", RATE, 2, module="torchvision.ops")(normal(2, 3, 6, 7), 0)


def test_alpha_dropout_shares_axes_as_the_note_says():
    (row,) = (row for row in table() if row.there == "keras.layers.AlphaDropout(rate)")
    assert "`shared_axes`" in row.note
    drawn = Alpha(SEQUENCES, (3, 1, 5), of_keras("AlphaDropout", RATE, noise_shape=(3, 1, 5)))
    drawn(row._replace(here=("dropjax.alpha_dropout(key, x, rate, shared_axes=1)",)))
