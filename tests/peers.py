"""What the tests of COMING_FROM.md share: its rows, draws by our code, peers if installed."""

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

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np

import dropjax.equinox
import dropjax.linen
import dropjax.nnx
from dropjax.ops.bernoulli import drop
from tests.conftest import ROOT
from tests.statistics import assert_mean

TEXT = (ROOT / "dropjax" / "COMING_FROM.md").read_text()
RATE = 0.3
KEEP = 1 - RATE
DRAWS = 1000
PEER_DRAWS = 100
KEYS = jax.random.split(jax.random.key(1), DRAWS)
VECTORS, SEQUENCES, IMAGES, VOLUMES = (4, 5), (3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 4, 3)
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


def run(row: Row, key: jax.Array, x: jax.Array, rate: float = RATE, **names: Any) -> jax.Array:
    """The first code of a row, applied to x, with what else is named in it."""
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
            **names,
        },
    )
    if isinstance(out, dropjax.linen.Drop):
        return out.apply({}, x, deterministic=False, rngs={"dropout": key})
    if isinstance(out, dropjax.nnx.Drop):
        return out(x)
    if isinstance(out, dropjax.equinox.Drop):
        return out(x, key=key)
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


def ours(row: Row, *xs: np.ndarray, **names: Any) -> list[np.ndarray]:
    return draws([functools.partial(run, row, **names)], list(xs))[0]


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


def of_torch(name: str, *arguments: Any, module: str = "torch.nn", **named: Any) -> Peer:
    def peer(x: np.ndarray, seed: int) -> np.ndarray:
        torch, layers = imported("torch"), imported(module)
        torch.manual_seed(seed)
        with lenient():
            layer = getattr(layers, name)(*(arguments or (RATE,)), **named)
            return layer(torch.from_numpy(x)).numpy()

    peer.package = module.split(".")[0]
    return peer


def of_keras(name: str, *arguments: Any, **named: Any) -> Peer:
    def peer(x: np.ndarray, seed: int) -> np.ndarray:
        keras = imported("keras")
        with lenient():
            layer = getattr(keras.layers, name)(*(arguments or (RATE,)), seed=seed, **named)
            return np.asarray(layer(x, training=True))

    peer.package = "keras"
    return peer


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
        assert_dropout(factors, RATE)
        self.assert_shared(factors)

    def assert_shared(self, masks: np.ndarray) -> None:
        """One decision along just those axes where the peer's mask is smaller than x."""
        assert masks.shape[1:] == self.shape
        axes = {i for i, (n, m) in enumerate(zip(self.shape, self.drawn, strict=True)) if n != m}
        assert shared(masks) == axes

    def check(self, factors: np.ndarray, ys: np.ndarray, x: np.ndarray) -> None:
        """A peer: the same moments, and our output from its masks."""
        self.assert_drawn(factors)
        for factor, y in zip(factors[:9], ys, strict=False):
            close(drop(jnp.asarray(self.mask(factor)), jnp.asarray(x), RATE), y)
