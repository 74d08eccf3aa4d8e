"""The ops against peer libraries, against loops, and against masks written down."""

import equinox as eqx
import flax.linen as linen
import flax.nnx as nnx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from tests.compiled import compiled
from tests.ops.reference import words_of

RATES = [0.1, 0.25, 0.5, 0.95]
SHAPES = [(), (150, 20), (2, 3, 4, 5)]

PEERS = {
    "haiku": lambda key, x, rate: hk.dropout(key, rate, x),
    "equinox": lambda key, x, rate: eqx.nn.Dropout(rate)(x, key=key),
    "nnx": lambda key, x, rate: nnx.Dropout(rate, deterministic=False)(x, rngs=key),
    "linen": lambda key, x, rate: linen.Dropout(rate, deterministic=False).apply({}, x, rng=key),
}


def values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values of which none is 0, so that a zero is a drop."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape), np.float32)


def mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> np.ndarray:
    """The mask, from the words of the key."""
    return words_of(key, shape) / 2.0**32 >= np.float32(rate)


def assert_close(actual: jax.Array, expected: np.ndarray, rate: float) -> None:
    """The very same zeros; the rest equal to 2 units in the last place.

    And to what rounding the rate to float32 does to 1 / (1 - rate), if that is more.
    """
    actual = np.asarray(actual)
    np.testing.assert_array_equal(actual == 0, expected == 0)
    tolerance = 2 * 2**-23 + 2**-25 / (1 - rate)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=0)


@pytest.fixture(scope="module")
def drawn():
    """What each peer and we make of arrays of each shape at each rate: one program."""

    @compiled
    def of_all(keys, xs):
        found = {"ours": lambda key, x, rate: dropjax.dropout(key, x, rate, bits=32), **PEERS}
        found["mask"] = lambda key, x, rate: dropjax.keep_mask(key, rate, x.shape, bits=32)
        return {
            (name, rate): [f(key, x, rate) for key, x in zip(keys, xs, strict=True)]
            for name, f in found.items()
            for rate in RATES
        }

    with jax.numpy_dtype_promotion("standard"):
        return of_all([*map(jax.random.key, range(len(SHAPES)))], [*map(values, SHAPES)])


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("rate", RATES)
def test_the_mask_of_32_bits_is_that_of_the_peers(peer, rate, drawn):
    of_each = zip(drawn["ours", rate], drawn[peer, rate], drawn["mask", rate], strict=True)
    for ours, theirs, keep in of_each:
        assert_close(ours, theirs, rate)
        np.testing.assert_array_equal(ours != 0, keep)


@pytest.mark.parametrize("peer", ["haiku", "nnx", "linen"])
def test_shared_axes_are_the_broadcast_dims_of_the_peers(peer):
    key, x = jax.random.key(3), values((4, 5, 6))

    def theirs(x, axes):
        if peer == "haiku":
            return hk.dropout(key, 0.5, x, broadcast_dims=axes)
        if peer == "nnx":
            return nnx.Dropout(0.5, broadcast_dims=axes, deterministic=False)(x, rngs=key)
        return linen.Dropout(0.5, axes, deterministic=False).apply({}, x, rng=key)

    @compiled
    def by_axes(x):
        each = [(0,), (1,), (0, 2)]
        ours = [dropjax.dropout(key, x, 0.5, shared_axes=axes, bits=32) for axes in each]
        return ours, [theirs(x, axes) for axes in each]

    with jax.numpy_dtype_promotion("standard"):
        for actual, wanted in zip(*by_axes(x), strict=True):
            assert_close(actual, wanted, 0.5)


def test_every_bit_of_the_peers_at_awkward_rates():
    """At these rates 1 - rate rounds otherwise in float32 than in Python."""

    rates = (0.05, 0.15, 0.35, 0.9, 1 / 3, 1e-6)

    @compiled
    def of_all(key, x):
        ours = [dropjax.keep_mask(key, rate, x.shape, bits=32) for rate in rates]
        peers = (PEERS[name] for name in ("haiku", "equinox", "nnx"))
        return ours, [[peer(key, x, rate) != 0 for rate in rates] for peer in peers]

    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = of_all(jax.random.key(8), np.ones(2**20, np.float32))
    for masks in theirs:
        np.testing.assert_array_equal(ours, masks)


def test_a_traced_rate_and_x64_mode_as_the_peers_take_them():
    key, x = jax.random.key(8), jnp.ones(1000)

    def both(rate):
        return hk.dropout(key, rate, x) != 0, dropjax.keep_mask(key, rate, x.shape, bits=32)

    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_array_equal(*jax.jit(both)(0.3))
        with jax.enable_x64(True):
            np.testing.assert_array_equal(*jax.jit(lambda: both(0.3))())


@pytest.mark.parametrize("rate", RATES)
def test_each_function_is_what_its_mask_says(rate):
    key, x, previous = jax.random.key(1), values((3, 6, 4)), values((3, 6, 4), seed=1)
    keep, scaled = mask(key, rate, x.shape), x / (1 - rate)
    for op in (dropjax.dropout, dropjax.dropconnect):
        assert_close(op(key, x, rate), np.where(keep, scaled, 0), rate)
        assert_close(op(key, x, rate, scaling="test"), np.where(keep, x, 0), rate)
    zoned = dropjax.zoneout(key, x, rate, previous=previous)
    np.testing.assert_array_equal(zoned, np.where(keep, x, previous))
    for time_axis, shape in ((-2, (3, 1, 4)), (0, (1, 6, 4)), (1, (3, 1, 4))):
        y = dropjax.variational_dropout(key, x, rate, time_axis=time_axis)
        assert_close(y, np.where(mask(key, rate, shape), scaled, 0), rate)


# Any change of these masks raises dropjax.STREAM, and writes these constants anew.
GOLDEN_STREAM = 2
GOLDEN = [
    (0, (8, 8), 0.5, "2a1ace0802276c22"),
    (1, (64,), 0.1, "ffdff7f7ffffbffe"),
    (2, (4, 3, 5), 0.25, "e6f93d7d9dc7f7f0"),
    (2147483648, (64,), 0.3, "dff33beffd3a7fdf"),
]


@pytest.mark.parametrize("seed, shape, rate, bits", GOLDEN)
def test_golden_masks(seed, shape, rate, bits):
    assert dropjax.STREAM == GOLDEN_STREAM
    key = jax.random.key(seed, impl="threefry2x32")
    kept = np.asarray(dropjax.dropout(key, np.ones(shape, np.float32), rate)) != 0
    assert np.packbits(kept).tobytes().hex() == bits


def test_golden_derived_key():
    assert dropjax.STREAM == GOLDEN_STREAM
    key = dropjax.derive(jax.random.key(0, impl="threefry2x32"), "noise", 3)
    assert jax.random.key_data(key).tolist() == [3612574431, 1129814164]


def test_variables_of_nnx_are_taken_for_what_they_hold():
    layer = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    key = jax.random.key(1)
    np.testing.assert_array_equal(
        dropjax.dropconnect(key, layer.kernel, 0.5),
        dropjax.dropconnect(key, layer.kernel[...], 0.5),
    )
