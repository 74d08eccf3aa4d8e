"""Every row of dropjax/COMING_FROM.md: the code given there does what the peer does.

What a peer computes from a mask is written out in NumPy, with the shape that it draws the mask in.
Flax, Haiku and Equinox are asked themselves; so are PyTorch, Keras and TensorFlow where they are
installed, which the tests do not need.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

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
from tests.conftest import ROOT
from tests.statistics import assert_mean

TEXT = (ROOT / "dropjax" / "COMING_FROM.md").read_text()
RATE = 0.3
KEEP = 1 - RATE
DRAWS = 1000
PEER_DRAWS = 100
KEYS = jax.random.split(jax.random.key(1), DRAWS)
Call = Callable[[jax.Array, jax.Array], jax.Array]


class Row(NamedTuple):
    """A row of the table: the peer's first code, all of our code, the note."""

    there: str
    here: tuple[str, ...]
    note: str


def code(cell: str) -> tuple[str, ...]:
    return tuple(part.replace("\\|", "|") for part in re.findall(r"`([^`]+)`", cell))


def table() -> list[Row]:
    lines = [line for line in TEXT.splitlines() if line.startswith("|")][2:]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [Row(code(there)[0], code(here), note) for there, here, note in cells]


def run(row: Row, key: jax.Array, x: jax.Array, rate: float = RATE) -> jax.Array:
    """The first code of a row, applied to x."""
    out = eval(
        row.here[0],
        {
            "dropjax": dropjax,
            "key": key,
            "x": x,
            "rate": rate,
            "keep_prob": 1 - rate,
            "table": x,
            "params": {"weight_ih_l0": x, "weight_hh_l0": x},
            "new": x,
            "old": x + 1,
            "rngs": flax.nnx.Rngs(dropout=key),
        },
    )
    if isinstance(out, dropjax.linen.Drop):
        return out.apply({}, x, deterministic=False, rngs={"dropout": key})
    if isinstance(out, dropjax.nnx.Drop):
        return out(x)
    if isinstance(out, dict):
        assert out["weight_ih_l0"] is x
        return out["weight_hh_l0"]
    return out


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def draws(functions: list[Call], xs: list[np.ndarray]) -> list[list[np.ndarray]]:
    """For each function, what it makes of each x under the same keys: one compilation for all."""
    f = jax.jit(jax.vmap(lambda key, xs: [[f(key, x) for x in xs] for f in functions], (0, None)))
    return jax.tree.map(np.asarray, f(KEYS, [jnp.asarray(x) for x in xs]))


def ours(row: Row, *xs: np.ndarray) -> list[np.ndarray]:
    return draws([functools.partial(run, row)], list(xs))[0]


def shared(masks: np.ndarray) -> set[int]:
    """The axes along which none of many masks ever changes."""
    axes = range(1, masks.ndim)
    return {axis - 1 for axis in axes if (masks == masks.take([0], axis)).all()}


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected), rtol=2e-5, atol=2e-6)


def assert_dropout(factors: np.ndarray, rate: float) -> None:
    """Factors 0 and 1 / (1 - rate), with the right rate, mean and variance."""
    keep = 1 - rate
    assert np.isclose(factors[factors != 0], 1 / keep, rtol=1e-6).all()
    rates = (factors == 0).mean(axis=tuple(range(1, factors.ndim)))
    assert_mean(rates, rate)
    assert_mean(factors, 1)
    assert_mean((factors - 1) ** 2, rate / keep)


# Peers that need not be there. Each function takes x and a seed.

Peer = Callable[[np.ndarray, int], np.ndarray]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Other people's code promotes and warns as it likes."""
    with (
        warnings.catch_warnings(),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore")
        yield


def imported(package: str) -> Any:
    with lenient():
        return importlib.import_module(package)


def of_torch(name: str) -> Peer:
    def peer(x: np.ndarray, seed: int) -> np.ndarray:
        torch = imported("torch")
        torch.manual_seed(seed)
        with lenient():
            return getattr(torch.nn, name)(RATE)(torch.from_numpy(x)).numpy()

    peer.package = "torch"
    return peer


def of_keras(name: str, *arguments: Any, **named: Any) -> Peer:
    def peer(x: np.ndarray, seed: int) -> np.ndarray:
        keras = imported("keras")
        with lenient():
            layer = getattr(keras.layers, name)(*(arguments or (RATE,)), seed=seed, **named)
            return np.asarray(layer(x, training=True))

    peer.package = "keras"
    return peer


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


# The rows. A case is called with its row.


@dataclasses.dataclass(frozen=True)
class Dropped:
    """x * mask / (1 - rate).

    Args:
      shape: of x.
      drawn: of the peer's mask; broadcasts to x.
      peer: the real one, if it may be there.
      jax_peer: (key, x, rate), the real one in JAX.
      same_key: a key gives both the same mask.
    """

    shape: tuple[int, ...]
    drawn: tuple[int, ...]
    peer: Peer | None = None
    jax_peer: Callable[[jax.Array, jax.Array, float], jax.Array] | None = None
    same_key: bool = False

    def __call__(self, row: Row) -> None:
        x = normal(*self.shape)
        ones = np.ones_like(x)
        sides = [functools.partial(run, row), *([self.jax_peer] if self.jax_peer else [])]
        rates = [RATE, 0.5] if self.same_key else [RATE]
        made = draws([functools.partial(f, rate=r) for r in rates for f in sides], [ones, x])
        factors, ys = made[0]
        self.assert_drawn(factors)
        close(ys, x * self.mask(factors) / KEEP)
        if self.jax_peer is not None:
            self.check(*made[1], x)
        if self.same_key:
            np.testing.assert_array_equal(self.mask(factors), self.mask(made[1][0]))
            close(ys, made[1][1])
            # Where scaling rounds nothing, all bits are equal.
            np.testing.assert_array_equal(made[2], made[3])
        elif self.jax_peer is not None:
            assert (factors != made[1][0]).any((1, 2, 3)).all()
        if self.peer is not None and installed(self.peer.package):
            theirs = np.stack([self.peer(ones, seed) for seed in range(PEER_DRAWS)])
            self.check(theirs, np.stack([self.peer(x, seed) for seed in range(9)]), x)

    def mask(self, factors: np.ndarray) -> np.ndarray:
        """Masks in the shape that the peer draws them in."""
        return factors[(..., *(slice(size) for size in self.drawn))] != 0

    def assert_drawn(self, factors: np.ndarray) -> None:
        """The moments, and one decision along just those axes where the mask is smaller than x."""
        assert factors.shape[1:] == self.shape
        assert_dropout(factors, RATE)
        axes = {i for i, (n, m) in enumerate(zip(self.shape, self.drawn, strict=True)) if n != m}
        assert shared(factors) == axes

    def check(self, factors: np.ndarray, ys: np.ndarray, x: np.ndarray) -> None:
        """A peer: the same moments, and our output from its masks."""
        self.assert_drawn(factors)
        for factor, y in zip(factors[:9], ys, strict=False):
            close(drop(jnp.asarray(self.mask(factor)), jnp.asarray(x), RATE), y)


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


def gaussian(row: Row) -> None:
    """x e, e of mean 1 and variance rate / (1 - rate)."""
    x = normal(4, 5)
    ones = np.ones_like(x)

    def assert_moments(noise: np.ndarray) -> None:
        variance = RATE / KEEP
        assert_mean(noise, 1)
        assert_mean((noise - 1) ** 2, variance)
        assert_mean((noise - 1) ** 4, 3 * variance**2)

    noise, ys = ours(row, ones, x)
    close(ys, x * noise)
    assert_moments(noise)
    assert not shared(noise)
    if installed("keras"):
        peer = of_keras("GaussianDropout")
        theirs = np.stack([peer(ones, seed) for seed in range(PEER_DRAWS)])
        assert_moments(theirs.reshape(-1))
        close(peer(x, 3), x * theirs[3])


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


def zoned_out(row: Row) -> None:
    """The old state, here x + 1, where a unit is zoned out."""
    x = normal(4, 5)
    of_ones, ys = ours(row, np.ones_like(x), x)
    mask = of_ones == 1
    assert_mean(mask, KEEP)
    np.testing.assert_array_equal(ys, np.where(mask, x, x + 1))
    mean = dropjax.expected.zoneout(jnp.asarray(x), RATE, previous=jnp.asarray(x + 1))
    close(mean, KEEP * x + RATE * (x + 1))


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


VECTORS, SEQUENCES, IMAGES, VOLUMES = (4, 5), (3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 4, 3)

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
    'torchvision.ops.StochasticDepth(rate, "row")': Dropped(IMAGES, (2, 1, 1, 1)),
    'torchvision.ops.StochasticDepth(rate, "batch")': Dropped(IMAGES, (1, 1, 1, 1)),
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
    "keras.layers.AlphaDropout(rate)": Alpha(VECTORS, VECTORS, of_keras("AlphaDropout")),
    "keras.layers.RandomErasing((rate, rate), (0.25, 0.25), 0.0)": erased,
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
