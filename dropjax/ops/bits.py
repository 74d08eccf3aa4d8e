"""Random words by counter: word i of a seed is a function of the seed and of i alone.

So a word is computed where it is used, in registers, inside whichever loop XLA makes of the code
around it. Nothing is stored, split or padded, and neither `vmap`, nor sharding, nor the order of
evaluation can change it.

The function is an unbalanced Feistel network on two 32-bit halves, (i + seed[0], seed[1]): each
round folds one half's high bits onto its low ones, and adds it, multiplied by an odd constant, to
the other. It is thus a permutation of 64 bits of which 32 are returned, as in Philox (Salmon,
Moraes, Dror, Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", section 3.2), with the low
product where Philox has the high one, which no CPU vector unit has. Its five rounds take 15
instructions on a GPU and, on a CPU, less time than the memory traffic of the array they are for; a
word of JAX's own threefry takes over 100.

Four rounds are the fewest that passed PractRand 0.95 to 4 GiB, even with neighbouring integers for
seeds (three failed within 2 GiB). There is one to spare, and five more make a seed of a key.
experiments/README.md lists the tests that the five pass; `scripts/mask_battery.py` tests the masks.
It is no cipher: masks may give away the key.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from dropjax.ops.checks import is_known

Array = jax.Array

# The five primes of xxHash32: odd, with about half of their bits set, and chosen by no one here.
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1], np.uint32)
_SHIFTS = np.array([16, 15, 16, 15, 16], np.uint32)
# The first bits of pi's fraction: no key of interest starts from zeros, which mix to zeros.
_START = np.array([0x243F6A88, 0x85A308D3], np.uint32)
_COUNTERS = 2**32


# Compiled for calls outside of `jax.jit`; inside, `inline` makes it part of the caller's program.
@functools.partial(jax.jit, inline=True)
def seed_of(key: Array) -> Array:
    """The seed below a key, of shape (2,) and dtype uint32: the key's own words, mixed.

    For a key of two words, a threefry key, no two keys have one seed.

    Args:
      key: one typed PRNG key.
    """
    # Nothing is drawn, but JAX's check for keys that are used twice counts it as a use.
    jax.random.bits(key, (0,), np.uint32)
    data = jax.random.key_data(key)
    a, b = _START
    for i in range(0, data.size, 2):
        a, b = _mixed(a ^ data[i], b ^ data[i + 1])
    # Without the barrier XLA would compute it again for each element.
    return jax.lax.optimization_barrier(jax.lax.concatenate([a[None], b[None]], 0))


def words(
    seed: Array,
    shape: Sequence[int],
    index: Sequence[ArrayLike] = (),
    *,
    sharding: NamedSharding | None = None,
) -> Array:
    """An array of `shape` of independent uniform words, or a part of it.

    Word i in row-major order is the same for all shapes of up to 2**32 elements.

    Args:
      seed: from `seed_of`.
      shape: of the whole array. With a symbolic size, as in `jax.export`, the words are those of
        the numbers that stand there when the function runs, for up to 2**32 elements.
      index: positions on the leading axes; what is returned is `array[index]`, and no more than
        that is computed.
      sharding: of the result, on a mesh with Explicit axes; there each device would otherwise
        compute the whole.

    Returns:
      uint32 of shape `shape[len(index):]`.

    Raises:
      ValueError: one axis is longer than 2**32.
    """
    shape, index = tuple(shape), tuple(index)
    if not all(_countable(size) for size in shape):
        raise ValueError(f"no axis may be longer than 2**32, got shape {shape}; reshape it")
    return _words(seed, shape, index, sharding)


@functools.partial(jax.jit, static_argnums=(1, 3), inline=True)
def _words(
    seed: Array,
    shape: tuple[int, ...],
    index: tuple[ArrayLike, ...],
    sharding: NamedSharding | None,
) -> Array:
    # Beyond 2**32 elements the leading axes count seeds, the others the words of each.
    split = len(shape)
    while split and _countable(math.prod(shape[split - 1 :])):
        split -= 1
    first, second = seed[0], seed[1]
    if split:
        high = _position(shape, index, range(split), sharding)
        first, second = _word(high, first, second), _word(high, second, first)
    return _word(_position(shape, index, range(split, len(shape)), sharding), first, second)


def _position(
    shape: tuple[int, ...],
    index: tuple[ArrayLike, ...],
    axes: range,
    sharding: NamedSharding | None,
) -> Array:
    """The row-major position of each element along these axes alone, modulo 2**32."""
    rest = shape[len(index) :]
    position = jax.lax.full(rest, np.uint32(0), sharding=sharding)
    stride = 1
    for axis in reversed(axes):
        if axis < len(index):
            along = jax.lax.convert_element_type(index[axis], np.uint32)
        else:
            dimension = axis - len(index)
            along = jax.lax.broadcasted_iota(np.uint32, rest, dimension, out_sharding=sharding)
        # A stride of 2**32 or more has an axis of size 1: no other would have been left to it.
        position = position + along * _modulo(stride)
        stride *= shape[axis]
    return position


def _countable(size: int) -> bool:
    """Whether so many words have counters of their own; taken for granted of a symbolic size."""
    return not is_known(size) or size <= _COUNTERS


def _modulo(size: int) -> ArrayLike:
    """A size modulo 2**32, as uint32; of a symbolic one, as it is when the function runs."""
    if is_known(size):
        return np.uint32(size % _COUNTERS)
    return jnp.asarray(size).astype(np.uint32)


def _word(counter: Array, first: Array, second: Array) -> Array:
    return _mixed(counter + first, second)[0]


def _mixed(a: Array, b: Array) -> tuple[Array, Array]:
    for factor, shift in zip(_FACTORS, _SHIFTS, strict=True):
        a = a ^ (a >> shift)
        a, b = b + a * factor, a
    return a, b


def sharding_like(x: Array, shape: Sequence[int]) -> NamedSharding | None:
    """How noise of `shape`, which broadcasts to `x`, is sharded; None if XLA is to decide.

    On a mesh with Explicit axes an array's sharding is part of its type, and XLA decides nothing.
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return None
    axes = tuple(sharding.spec) + (None,) * (x.ndim - len(sharding.spec))
    axes = axes[x.ndim - len(shape) :]
    spec = [None if size == 1 else axis for size, axis in zip(shape, axes, strict=True)]
    return NamedSharding(sharding.mesh, PartitionSpec(*spec))
