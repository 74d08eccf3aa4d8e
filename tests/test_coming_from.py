"""Every row of dropjax/COMING_FROM.md: the code given there does what the peer does.

What a peer computes from a mask is written out in NumPy, with the shape that it draws the mask in.
Flax, Haiku and Equinox are asked themselves; so are PyTorch, Keras and TensorFlow where they are
installed, which the tests do not need.
"""

import dataclasses
import functools
import math
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

import dropjax.linen
import dropjax.nnx
from dropjax import CLEAN, Kind, Site, models, sampled, schemes
from dropjax.nn.recurrent import lstm
from dropjax.ops.bernoulli import drop
from tests.peers import (
    DRAWS,
    KEEP,
    KEYS,
    PEER_DRAWS,
    RATE,
    TEXT,
    Dropped,
    Peer,
    Row,
    assert_dropout,
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

VECTORS, SEQUENCES, IMAGES, VOLUMES = (4, 5), (3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 4, 3)

# The rows. A case is called with its row.


def tensorflow(x: np.ndarray, seed: int) -> np.ndarray:
    tf = imported("tensorflow")
    tf.random.set_seed(seed)
    return tf.nn.dropout(x, RATE, noise_shape=[x.shape[0], 1, x.shape[2]]).numpy()


def tensorflow_1(x: np.ndarray, seed: int) -> np.ndarray:
    tf = imported("tensorflow")
    tf.random.set_seed(seed)
    with lenient():
        return tf.compat.v1.nn.dropout(x, keep_prob=KEEP).numpy()


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
class Alpha:
    """a (x m + limit (1 - m)) + b, with a and b as the paper has them.

    Args:
      shape: of x.
      drawn: of the peer's mask; broadcasts to x.
      peer: the real one, if it may be there.
    """

    shape: tuple[int, ...]
    drawn: tuple[int, ...]
    peer: Peer

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
        """The rate, and one decision along just those axes where the mask is smaller than x."""
        assert masks.shape[1:] == self.shape
        assert_mean(masks, KEEP)
        axes = {i for i, (n, m) in enumerate(zip(self.shape, self.drawn, strict=True)) if n != m}
        assert shared(masks) == axes

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
            theirs, y = (np.stack([self.peer(v, i) for i in range(DRAWS)]) for v in (ones, x))
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


def sides_of_torchvision(
    side: int, scale: tuple[float, float], ratio: tuple[float, float], number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths of rectangles by its rule: ten attempts, then none, which is 0."""
    rng = np.random.default_rng(0)
    area = rng.uniform(*scale, (10, number)) * side**2
    aspect = np.exp(rng.uniform(*np.log(ratio), (10, number)))
    height, width = np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))
    fits = (height < side) & (width < side)
    first = fits.argmax(0), np.arange(number)
    return tuple(np.where(fits.any(0), sides[first], 0).astype(int) for sides in (height, width))


def rectangles(filled: np.ndarray) -> tuple[np.ndarray, ...]:
    """Top, left, height and width of what is True in each image: one rectangle or nothing."""
    down, across = filled.any(2), filled.any(1)
    np.testing.assert_array_equal(filled, down[:, :, None] & across[:, None])
    return down.argmax(1), across.argmax(1), down.sum(1), across.sum(1)


def rectangle(row: Row) -> None:
    """`value` in a rectangle at any place, drawn by two rules that agree where all fit."""
    side, value = 8, 7.5
    x = normal(3, 2, side, side)

    def assert_rectangles(filled: np.ndarray, height: np.ndarray, width: np.ndarray) -> None:
        """All sides and places as often as they should be; of images (number, side, side)."""
        top, left, h, w = rectangles(filled)
        found, wanted = (8 * a + b for a, b in ((h, w), (height, width)))
        sizes, counts = np.unique(wanted, return_counts=True)
        assert np.isin(found, sizes).all()
        assert_mean(found[:, None] == sizes, counts / len(wanted))
        for place, size in ((top, h), (left, w)):
            chance = 1 / (side - size + 1)
            assert_mean((place == 0) - chance, 0)
            assert_mean((place == side - size) - chance, 0)

    def of_ours(scale, ratio, rate=RATE) -> np.ndarray:
        ones = np.ones_like(x)
        names = {"scale": scale, "ratio": ratio, "value": value, "rate": rate}
        of_ones, ys = ours(row, ones, x, **names)
        np.testing.assert_array_equal(ys, np.where(of_ones == value, value, x))
        assert shared(of_ones) == {2}
        return (of_ones[:, :, 0] == value).reshape(-1, side, side)

    def of_theirs(scale, ratio, image=x[0]) -> np.ndarray:
        peer = of_torch("RandomErasing", 1.0, scale, ratio, value, module="torchvision.transforms")
        return np.stack([peer(image, seed) for seed in range(DRAWS)]) == value

    fits, wide = ((0.1, 0.2), (0.5, 2.0)), ((0.5, 1.0), (0.3, 3.3))
    assert_mean(of_ours(*fits).any((1, 2)), RATE)
    assert_rectangles(of_ours(*fits, rate=1.0), *sides_of_torchvision(side, *fits, 100_000))
    # Where not all fit it prefers small ones, and may give up.
    height, width = sides_of_torchvision(side, *wide, 100_000)
    assert_mean(of_ours(*wide, rate=1.0).mean((1, 2)) > 0, 1)
    assert of_ours(*wide, rate=1.0).mean() > (height * width).mean() / side**2 + 0.05
    full = (1.0, 1.0), wide[1]
    assert of_ours(*full, rate=1.0).any((1, 2)).all()
    assert (sides_of_torchvision(side, *full, 1000)[0] == 0).all()
    # The noise is normal.
    of_zeros, _ = ours(row, np.zeros_like(x), x, scale=fits[0], ratio=fits[1], value="noise")
    assert_normal(of_zeros[of_zeros != 0], 0, 1)
    if installed("torchvision"):
        assert_rectangles(of_theirs(*fits)[:, 0], *sides_of_torchvision(side, *fits, 100_000))
        assert_rectangles(of_theirs(*wide)[:, 0], height, width)
        assert not of_theirs(*full).any()
        assert shared(of_theirs(*fits, image=x)) == {0, 1}


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
    mean = dropjax.expected.zoneout(jnp.asarray(x), RATE, previous=jnp.asarray(x + 1))
    close(mean, KEEP * x + RATE * (x + 1))


# Attention. N examples, heads, queries and keys: as many as IMAGES.


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attended(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, dropped: Callable[[np.ndarray], Any] = lambda w: w
) -> np.ndarray:
    """Attention of heads (..., T, F), with something done to its weights."""
    return np.asarray(dropped(softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])))) @ v


def attention_of_torch(row: Row) -> None:
    """Both of PyTorch's; values that are the identity show its weights as they are dropped."""
    case = Dropped(IMAGES, IMAGES)
    case(row)
    if not installed("torch"):
        return
    torch = imported("torch")

    def attend(q, k, v, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        tensors = (torch.from_numpy(a) for a in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(*tensors, dropout_p=RATE).numpy()

    q, k, v = normal(2, 3, 4, 6), 2 * normal(2, 3, 5, 6), normal(2, 3, 5, 7)
    identity = np.tile(np.eye(5, dtype=np.float32), (2, 3, 1, 1))
    theirs = np.stack([attend(q, k, identity, seed) for seed in range(PEER_DRAWS)])
    case.check((theirs != 0) / np.float32(KEEP), theirs, attended(q, k, identity))
    for seed in range(3):
        mask = jnp.asarray(theirs[seed] != 0)
        wanted = attended(q, k, v, lambda w, mask=mask: drop(mask, jnp.asarray(w), RATE))
        close(attend(q, k, v, seed), wanted)

    layer = torch.nn.MultiheadAttention(6, 3, dropout=RATE, batch_first=True)
    tensors = [torch.from_numpy(x) for x in (normal(2, 4, 6), normal(2, 5, 6), normal(2, 5, 6))]

    def weights(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        return layer(*tensors, average_attn_weights=False)[1].detach().numpy()

    theirs = np.stack([weights(seed) for seed in range(PEER_DRAWS)])
    layer.eval()
    case.check((theirs != 0) / np.float32(KEEP), theirs, weights(0))


def layer_of_heads(kernels: list[Any], x: np.ndarray, y: np.ndarray, dropped: Any) -> np.ndarray:
    """Attention of x to y with the kernels of query, key, value (features, heads, width), out."""
    *of_inputs, out = (np.asarray(kernel) for kernel in kernels)
    heads = (np.einsum("ntf,fhd->nhtd", a, w) for a, w in zip((x, y, y), of_inputs, strict=True))
    return np.einsum("nhtd,hdf->ntf", attended(*heads, dropped), out)


def attention_of_flax(row: Row, drawn: tuple[int, ...], **options: Any) -> None:
    """Whole layers, of which our second code has the mask for the same key."""
    for here in row.here:
        Dropped(IMAGES, drawn)(row._replace(here=(here,)))
    same = row._replace(here=row.here[1:])
    x, y = normal(2, 4, 6), normal(2, 5, 6)[..., ::-1]
    layer = flax.linen.MultiHeadDotProductAttention(3, dropout_rate=RATE, **options)
    params = layer.init(KEYS[0], x, y, deterministic=True)
    kernels = [params["params"][name]["kernel"] for name in ("query", "key", "value", "out")]
    nnx_layer = flax.nnx.MultiHeadAttention(
        3, 6, dropout_rate=RATE, rngs=flax.nnx.Rngs(0), decode=False, **options
    )
    nnx_kernels = [
        getattr(nnx_layer, name).kernel[...] for name in ("query", "key", "value", "out")
    ]
    for key in KEYS[:3]:
        dropped = lambda w, key=key: run(same, key, jnp.asarray(w))  # noqa: E731
        theirs = layer.apply(params, x, y, deterministic=False, dropout_rng=key)
        close(theirs, layer_of_heads(kernels, x, y, dropped))
        theirs = nnx_layer(x, y, deterministic=False, rngs=key)
        close(theirs, layer_of_heads(nnx_kernels, x, y, dropped))


def attention_of_keras(row: Row) -> None:
    """A whole layer; its mask is that of a `Dropout` with the same seed."""
    Dropped(IMAGES, IMAGES)(row)
    if not installed("keras"):
        return
    x, y = normal(2, 4, 6), normal(2, 5, 6)[..., ::-1]
    for seed in range(3):
        mask = jnp.asarray(of_keras("Dropout")(np.ones(IMAGES, np.float32), seed) != 0)
        with lenient():
            layer = imported("keras").layers.MultiHeadAttention(3, 2, dropout=RATE, seed=seed)
            theirs = np.asarray(layer(x, y, training=True))
        kernels = [w.value for w in layer.weights if w.name == "kernel"]
        dropped = lambda w, mask=mask: drop(mask, jnp.asarray(w), RATE)  # noqa: E731
        close(theirs, layer_of_heads(kernels, x, y, dropped))


# Recurrent networks. All of one example: x (steps, features).

STEPS, FEATURES, OUTPUTS = 4, 6, 10


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def products(x: np.ndarray, masks: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    """For each gate, x under that gate's mask times that gate's block of w."""
    blocks = np.split(w, len(masks), axis=1)
    return [(x * mask) @ block for mask, block in zip(masks, blocks, strict=True)]


def keras_lstm(x, w_x, w_h, b, x_masks, h_masks) -> np.ndarray:
    """Keras's LSTM, written out: gates i, f, c, o; masks already scaled. The last output."""
    h = c = np.zeros(len(w_h), np.float32)
    for x_t in x:
        parts = zip(
            products(x_t, x_masks, w_x), products(h, h_masks, w_h), np.split(b, 4), strict=True
        )
        i, f, g, o = (a + u + bias for a, u, bias in parts)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def keras_gru(x, w_x, w_h, b, x_masks, h_masks) -> np.ndarray:
    """Keras's GRU, written out: gates z, r, h; two biases; the reset gate after the product."""
    h = np.zeros(len(w_h), np.float32)
    for x_t in x:
        b_x, b_h = np.split(b[0], 3), np.split(b[1], 3)
        a = [p + q for p, q in zip(products(x_t, x_masks, w_x), b_x, strict=True)]
        u = [p + q for p, q in zip(products(h, h_masks, w_h), b_h, strict=True)]
        z, r = sigmoid(a[0] + u[0]), sigmoid(a[1] + u[1])
        h = z * h + (1 - z) * np.tanh(a[2] + r * u[2])
    return h


def keras_weights(cell: str, layer: dict[str, jax.Array]) -> list[np.ndarray]:
    """Our parameters as Keras wants them."""
    names = ["kernel", "recurrent_kernel", "bias"]
    w_x, w_h, b = (np.asarray(layer[name]) for name in names)
    if cell == "lstm":
        return [w_x, w_h, b]
    b = np.stack([b, np.asarray(layer["recurrent_bias"])])
    return [in_keras_order(cell, w, w.shape[-1] // 3) for w in (w_x, w_h, b)]


def in_keras_order(cell: str, w: np.ndarray, width: int) -> np.ndarray:
    """Blocks of the last axis: r, z, n becomes z, r, n, which Keras calls h."""
    if cell == "lstm":
        return w
    r, z, n = np.split(w, w.shape[-1] // width, axis=-1)
    return np.concatenate([z, r, n], axis=-1)


def untied(row: Row) -> None:
    """Whole models: ours under a scheme, and Keras's LSTM and GRU with our masks and weights."""
    for cell in ("lstm", "gru"):
        gates, written = {"lstm": (4, keras_lstm), "gru": (3, keras_gru)}[cell]
        text = row.here[0].replace("rnn(", f'rnn(cell="{cell}",width=8,')
        model, scheme = (
            eval(c, {"models": models, "schemes": schemes}) for c in (text, row.here[1])
        )
        x, key = normal(STEPS, FEATURES), jax.random.key(3)
        start = functools.partial(model.init, key, jnp.asarray(x), CLEAN)
        params = jax.tree.map(lambda w: jnp.asarray(0.4 * normal(*w.shape)), jax.eval_shape(start))

        def masks(key: jax.Array, x: jax.Array, scheme=scheme, gates=gates) -> list[jax.Array]:
            draw, axes = sampled(scheme, key), ("time", "gate", "feature")
            (x_noise,) = draw.noise(Site("input", Kind.INPUT, axes), (STEPS, gates, FEATURES))
            site = Site("recurrent", Kind.RECURRENT, axes)
            (h_noise,) = draw.scope("layer_0").noise(site, (STEPS, gates, 8))
            return [x_noise.keep(), h_noise.keep()]

        def logits(key: jax.Array, x: jax.Array, model=model, scheme=scheme, params=params):
            return model.apply(params, x, sampled(scheme, key))

        ((drawn,), (out,)) = draws([masks, logits], [x])
        scaled = []
        for mask, rate, size in zip(drawn, (0.2, 0.3), (FEATURES, 8), strict=True):
            assert mask.shape == (DRAWS, 1, gates, size)  # one for all steps
            assert_dropout(mask / (1 - rate), rate)
            assert_mean(mask[:, 0, 0] & mask[:, 0, 1], (1 - rate) ** 2)  # gates are independent
            mask = mask[:, 0] / np.float32(1 - rate)
            scaled.append(mask if cell == "lstm" else mask[:, [1, 0, 2]])
        layer, head = params["params"]["layer_0"], params["params"]["head"]
        weights = keras_weights(cell, layer)
        hs = [written(x, *weights, *(mask[i] for mask in scaled)) for i in range(9)]
        close(out[:9], hs @ np.asarray(head["kernel"]) + np.asarray(head["bias"]))
        if installed("keras"):
            kind, rates = cell.upper(), {"dropout": 0.2, "recurrent_dropout": 0.3}
            theirs = keras_layer(kind, weights, **rates)
            assert_own_masks(theirs, gates)
            for i in range(3):
                close(keras_run(theirs, x, *(list(mask[i]) for mask in scaled)), hs[i])
            first = keras_weights(cell, start()["params"]["layer_0"])
            fresh = keras_layer(kind, None, **rates)
            np.testing.assert_array_equal(of_layer(fresh)[2], first[2])  # unit_forget_bias
            ignoring = keras_layer(kind, weights, dropout=1.0, recurrent_dropout=1.0)
            with lenient():
                a, b = (np.asarray(ignoring(x[None], training=on)) for on in (True, False))
            np.testing.assert_array_equal(a, b)


def keras_layer(kind: str, weights: list[np.ndarray] | None, **rates: float) -> Any:
    keras = imported("keras")
    with lenient():
        layer = getattr(keras.layers, kind)(8, **rates)
        layer.build((1, STEPS, FEATURES))
        if weights is not None:
            layer.set_weights(weights)
    return layer


def of_layer(layer: Any) -> list[np.ndarray]:
    return [np.asarray(weight.value) for weight in layer.weights]


def keras_run(layer: Any, x: np.ndarray, *masks: Any) -> np.ndarray:
    """The last output of Keras's layer with masks of ours, of inputs and perhaps of states."""
    layer.cell.get_dropout_mask = lambda step: masks[0]
    layer.cell.get_recurrent_dropout_mask = lambda step: masks[-1]
    with lenient():
        return np.asarray(layer(x[None], training=True))[0]


def assert_own_masks(layer: Any, gates: int) -> None:
    """Keras draws a mask for each gate, of inputs and of states."""
    with lenient():
        ones = jnp.ones((9, 50))
        for masks, rate in (
            (layer.cell.get_dropout_mask(ones), 0.2),
            (layer.cell.get_recurrent_dropout_mask(ones), 0.3),
        ):
            masks = np.stack([np.asarray(mask) for mask in masks])
            assert len(masks) == gates and not shared(masks[None])
            assert_dropout(masks.reshape(-1), rate)
        layer.cell.reset_dropout_mask()
        layer.cell.reset_recurrent_dropout_mask()


def inputs_of_keras(row: Row) -> None:
    """Dropout of the inputs alone: one mask for all steps and gates."""
    Dropped((3, STEPS, FEATURES), (3, 1, FEATURES))(row)
    if not installed("keras"):
        return
    x = normal(3, STEPS, FEATURES)
    key = jax.random.key(5)
    dropped = np.asarray(run(row, key, jnp.asarray(x)))
    factors = np.asarray(run(row, key, jnp.ones_like(x)))[:, :1]
    for kind, gates in (("LSTM", 4), ("GRU", 3)):
        layer = keras_layer(kind, None, dropout=RATE)
        with lenient():
            mask = np.asarray(layer.cell.get_dropout_mask(jnp.ones((500, FEATURES))))
            layer.cell.reset_dropout_mask()
        assert_dropout(mask, RATE)  # one array: all gates share it
        weights = of_layer(layer)
        written = {"LSTM": keras_lstm, "GRU": keras_gru}[kind]
        plain = np.ones((gates, FEATURES)), np.ones((gates, 8))
        for i in range(3):
            y = keras_run(layer, x[i], factors[i])
            close(y, written(dropped[i], *weights, *plain))


def between_layers(row: Row) -> None:
    """PyTorch's LSTM drops what one layer hands to the next, each step on its own."""
    shape = (STEPS, 3, 8)
    Dropped(shape, shape)(row)
    if not installed("torch"):
        return
    torch = imported("torch")
    torch.manual_seed(0)
    net = torch.nn.LSTM(FEATURES, 8, 2, dropout=RATE)
    w = {name: jnp.asarray(value.detach().numpy()) for name, value in net.named_parameters()}
    x = normal(STEPS, 3, FEATURES)

    def layer(x: jax.Array, number: int) -> jax.Array:
        """Our step with PyTorch's weights, which have the same order of gates."""
        b = (w[f"bias_ih_l{number}"] + w[f"bias_hh_l{number}"])[None, None]
        from_input = x @ w[f"weight_ih_l{number}"].T + b
        state, outputs = (jnp.zeros((3, 8)), jnp.zeros((3, 8))), []
        for part in from_input:
            from_hidden = state[0] @ w[f"weight_hh_l{number}"].T
            state = lstm(part, from_hidden, state, lambda g: g, lambda c: c)
            outputs.append(state[0])
        return jnp.stack(outputs)

    def of_torch(seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The mask that a seed gives, and the network's output under that seed."""
        torch.manual_seed(seed)
        factors = torch.nn.functional.dropout(torch.ones(shape), RATE).numpy()
        torch.manual_seed(seed)
        with torch.no_grad():
            return factors, net(torch.from_numpy(x))[0].numpy()

    for seed in range(3):
        factors, y = of_torch(seed)
        hidden = drop(jnp.asarray(factors != 0), layer(jnp.asarray(x), 0), RATE)
        close(layer(hidden, 1), y)
    assert not shared(np.stack([of_torch(seed)[0] for seed in range(PEER_DRAWS)]))


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
    "haiku.dropout(key, rate, x, broadcast_dims=(1,))": Dropped(
        SEQUENCES, (3, 1, 5), jax_peer=haiku_, same_key=True
    ),
    "equinox.nn.Dropout(rate)(x, key=key)": Dropped(
        VECTORS, VECTORS, jax_peer=equinox_, same_key=True
    ),
    "LockedDropout()(x, rate)": Dropped(SEQUENCES, (1, 4, 5)),
    "RNNDropout(rate)": Dropped(SEQUENCES, (3, 1, 5)),
    "WeightDropout(lstm, rate)": Dropped(VECTORS, VECTORS),
    "EmbeddingDropout(embedding, rate)": Dropped(VECTORS, (4, 1)),
    "ZoneoutCell(cell, zoneout_states=rate)": zoned_out,
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
    layer = flax.linen.MultiHeadDotProductAttention(1, dropout_rate=1.0, deterministic=False)
    assert jnp.isnan(layer.init_with_output(key, x, dropout_rng=key)[0]).all()
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


def test_what_blocks_drop():
    """The percentages of timm's note."""
    assert round(100 * dropped_by_blocks((14, 14), 7, 0.1, cut=True).mean()) == 21
    assert round(100 * dropped_by_blocks((14, 14), 7, 0.1).mean()) == 9


def test_layers_evaluate():
    x = jnp.asarray(normal(4, 5))
    assert (dropjax.linen.Drop("bernoulli(rate=0.3)").apply({}, x, deterministic=True) == x).all()
    layer = dropjax.nnx.Drop("bernoulli(rate=0.3)", rngs=flax.nnx.Rngs(0))
    assert (layer(x) != x).any()
    layer.eval()
    assert (layer(x) == x).all()
    layer.train()
    assert (layer(x) != x).any()


def test_one_key_under_vmap():
    """What the introduction says of keys."""
    xs = jnp.ones((3, 40))
    one = jax.vmap(lambda x: dropjax.dropout(jax.random.key(0), x, RATE))(xs)
    assert shared(np.asarray(one)[None]) == {0}
    own = jax.vmap(lambda key, x: dropjax.dropout(key, x, RATE))(KEYS[:3], xs)
    assert not shared(np.asarray(own)[None])


def test_alpha_dropout_shares_axes_as_the_note_says():
    (row,) = (row for row in table() if row.there == "keras.layers.AlphaDropout(rate)")
    assert "`shared_axes`" in row.note
    drawn = Alpha(SEQUENCES, (3, 1, 5), of_keras("AlphaDropout", RATE, noise_shape=(3, 1, 5)))
    drawn(row._replace(here=("dropjax.alpha_dropout(key, x, rate, shared_axes=1)",)))
