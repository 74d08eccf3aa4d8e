"""Statistical tests of dropout masks and of the random words behind them.

  python -m scripts.mask_battery
  python -m scripts.mask_battery --generator=threefry --seed=3 --scale=4

The generators are dropjax's own, JAX's threefry, and some that are bad on purpose, each of which
must be caught: a battery that passes everything shows nothing. They are described where
`GENERATORS` is defined.

Masks are tested for their rate, the spread of drop counts over rows, columns and blocks, runs and
pair correlations along both axes, and correlation with the masks of neighbouring keys, steps,
examples and sites, under keys derived as in training. Words are tested bit by bit and pair by pair,
for collisions, birthday spacings, serial pairs and triples, gaps and ranks, in several orders: the
counters of one key, strided, a few of each of many keys, and one element over many keys. Every test
is two-sided: too regular is as bad as too irregular.

Prints the table of tests with the smallest p-value of each. The verdict is Bonferroni's over every
p-value printed or not: with N of them, a test fails if one of its is below 1e-4 / N, so that a
perfect generator fails in at most 1 of 10,000 runs. A p-value of 1e-5 is therefore no failure: look
at it again with another --seed. Exit status 1 if a test fails. The same seed gives the same table.

For batteries of others, --write prints words as raw bytes without end instead:

  python -m scripts.mask_battery --write='one key' | RNG_test stdin32 -tlmax 32GB   # PractRand

Takes 2 minutes on an idle core, 7 on a busy one, and 2 GiB.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("mask_battery", "nothing was changed")

import contextlib
import dataclasses
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.extend.random import threefry_2x32
from scipy import stats

from dropjax.core.keys import Keys
from dropjax.core.text import aligned
from dropjax.ops import bits
from dropjax.ops.bernoulli import keep_mask
from dropjax.ops.keys import derive, name_number

Array = jax.Array
Shape = tuple[int, ...]
PValues = dict[str, float]
"""What a test finds: the p-value of each of its statistics, by what it looked at."""

ALPHA = 1e-4
"""The chance that a perfect generator fails anything at all."""

DEFAULT_SIZE = 2**25


# Generators.


@dataclasses.dataclass(frozen=True)
class Generator:
    """What is tested. All three can be mapped over keys, and may be traced.

    Args:
      at: (key, counters) -> the words of a key at these places, uint32.
      words: (key, shape) -> the words of a key as an array of `shape`.
      mask: (key, rate, shape) -> booleans, True for what is kept. The rate is a float32 array.
    """

    at: Callable[[Array, Array], Array]
    words: Callable[[Array, Shape], Array]
    mask: Callable[[Array, Array, Shape], Array]


def _counters(shape: Shape) -> Array:
    return jax.lax.iota(np.uint32, int(np.prod(shape))).reshape(shape)


def _by_counter(at: Callable[[Array, Array], Array]) -> Generator:
    """The generator whose word i is `at(key, i)`, and whose masks compare words with the rate."""

    def words(key: Array, shape: Shape) -> Array:
        return at(key, _counters(shape))

    def mask(key: Array, rate: Array, shape: Shape) -> Array:
        return words(key, shape) >= (rate * jnp.float32(2**32)).astype(np.uint32)

    return Generator(at, words, mask)


def _dropjax_words(key: Array, shape: Shape) -> Array:
    return bits.words(bits.seed_of(key), shape)


def _dropjax_at(key: Array, counters: Array) -> Array:
    # By index into an array of all counters, of which no more than these is computed.
    seed, side = bits.seed_of(key), np.uint32(2**16)

    def word(counter: Array) -> Array:
        return bits.words(seed, (2**16, 2**16), (counter // side, counter % side))

    return jax.vmap(word)(counters.ravel()).reshape(counters.shape)


def _threefry_words(key: Array, shape: Shape) -> Array:
    return jax.random.bits(key, shape, np.uint32)


def _threefry_at(key: Array, counters: Array) -> Array:
    flat = counters.ravel()
    both = threefry_2x32(jax.random.key_data(key), jnp.concatenate([jnp.zeros_like(flat), flat]))
    return (both[: flat.size] ^ both[flat.size :]).reshape(counters.shape)


def _threefry_mask(key: Array, rate: Array, shape: Shape) -> Array:
    return jax.random.bernoulli(key, 1 - rate, shape)


def _permutation_at(key: Array, counters: Array) -> Array:
    x = counters + bits.seed_of(key)[0]
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0xD35A2D97)
    return x ^ (x >> np.uint32(15))


def _lcg_at(key: Array, counters: Array) -> Array:
    return counters * np.uint32(1664525) + bits.seed_of(key)[0]


def _shifted_at(key: Array, counters: Array) -> Array:
    number = jax.random.key_data(key)[1]
    return _dropjax_at(jax.random.key(0), counters + number)


def _few_rounds_at(rounds: int) -> Callable[[Array, Array], Array]:
    """dropjax's hash, written out again so that its rounds can be counted."""
    factors, shifts = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F), (16, 15, 16, 15)

    def at(key: Array, counters: Array) -> Array:
        seed = bits.seed_of(key)
        a, b = counters + seed[0], jnp.broadcast_to(seed[1], counters.shape)
        for factor, shift in list(zip(factors, shifts, strict=True))[:rounds]:
            a = a ^ (a >> np.uint32(shift))
            a, b = b + a * np.uint32(factor), a
        return a

    return at


def _shared_tie_mask(key: Array, rate: Array, shape: Shape) -> Array:
    byte = _dropjax_words(key, shape) & np.uint32(255)
    threshold = rate * 256
    whole = threshold.astype(np.uint32)
    tie = _dropjax_words(derive(key, "tie"), (*shape[:-1], 1))
    lost = tie < ((threshold - jnp.floor(threshold)) * jnp.float32(2**32)).astype(np.uint32)
    return ~((byte < whole) | ((byte == whole) & lost))


def _byte_mask(key: Array, rate: Array, shape: Shape) -> Array:
    byte = _dropjax_words(key, shape) & np.uint32(255)
    return byte >= jnp.round(rate * 256).astype(np.uint32)


GENERATORS: dict[str, Generator] = {
    "dropjax": Generator(_dropjax_at, _dropjax_words, keep_mask),
    "threefry": Generator(_threefry_at, _threefry_words, _threefry_mask),
    # From here on bad. A keyed 32-bit permutation of the counter: no word of a key comes twice.
    "permutation": _by_counter(_permutation_at),
    # A linear congruence.
    "lcg": _by_counter(_lcg_at),
    # Masks from a byte an element. Where the byte alone does not decide, the whole row decides as
    # one.
    "shared_tie": Generator(_dropjax_at, _dropjax_words, _shared_tie_mask),
    # Masks from a byte an element, and no more: the rate is rounded to 1/256.
    "byte": Generator(_dropjax_at, _dropjax_words, _byte_mask),
    # The key is added to the counter: neighbouring keys draw shifted copies.
    "shifted": _by_counter(_shifted_at),
    # dropjax's hash with fewer than its five rounds.
    "two_rounds": _by_counter(_few_rounds_at(2)),
    "three_rounds": _by_counter(_few_rounds_at(3)),
}


# Keys, words and masks to look at.

_SITES = np.uint32(1024)
# Keys are made by so many, by one compiled program for any number of them.
_BLOCK = 2**15


@functools.partial(jax.jit, static_argnames="kind")
def _keys(kind: str, seed: Array, first: Array) -> Array:
    # Other seeds take other integers: seed 0 takes 0, 1, 2, ...
    numbers = jax.lax.iota(np.uint32, _BLOCK) + first + seed * np.uint32(1_000_003)
    if kind == "keys":
        return jax.random.key_data(jax.vmap(jax.random.key)(numbers))
    noise = derive(jax.random.key(seed), "noise")
    if kind == "sites":
        # A name stands for its number, and only numbers can be mapped over.
        names = np.array([name_number(f"layer_{i}/hidden") for i in range(int(_SITES))])
        step = derive(noise, 5)

        def at_site(i: Array) -> Array:
            # Example after example, if there are more keys than sites.
            return derive(Keys.of(step, i // _SITES).example, jnp.asarray(names)[i % _SITES])

        return jax.random.key_data(jax.vmap(at_site)(numbers))

    def training(step: Array, row: Array) -> Array:
        return Keys.of(derive(noise, step), row).within("layer_0/hidden").example

    fixed = jnp.full_like(numbers, 5)
    places = (numbers, fixed) if kind == "steps" else (fixed, numbers)
    return jax.random.key_data(jax.vmap(training)(*places))


def keys_of(kind: str, seed: int, count: int) -> np.ndarray:
    """Keys that neighbour each other in the way `kind` says.

    Args:
      kind: "keys" for `jax.random.key` of consecutive integers; "steps", "examples" or "sites" for
        the keys that training derives for these, in order.
      seed: of the run, or the first integer up to a factor.
      count: of keys.

    Returns:
      The keys' data, of shape (count, 2).
    """
    starts = range(0, count, _BLOCK)
    blocks = [np.asarray(_keys(kind, jnp.uint32(seed), jnp.uint32(start))) for start in starts]
    return np.concatenate(blocks)[:count]


KINDS = ("keys", "steps", "examples", "sites")


@functools.partial(jax.jit, static_argnames=("generator", "shape"))
def _words(generator: Generator, keys: Array, shape: Shape) -> Array:
    return jax.vmap(lambda key: generator.words(key, shape))(jax.random.wrap_key_data(keys))


@functools.partial(jax.jit, static_argnames=("generator", "shape"))
def _dropped(generator: Generator, keys: Array, rate: Array, shape: Shape) -> Array:
    typed = jax.random.wrap_key_data(keys)
    return ~jax.vmap(lambda key: generator.mask(key, rate, shape))(typed)


@functools.partial(jax.jit, static_argnames="generator")
def _words_at(generator: Generator, keys: Array, counters: Array) -> Array:
    return jax.vmap(generator.at)(jax.random.wrap_key_data(keys), counters)


def dropped(generator: Generator, keys: np.ndarray, rate: float, shape: Shape) -> np.ndarray:
    """What the masks of `keys` drop: booleans, of shape (keys, *shape)."""
    return np.asarray(_dropped(generator, jnp.asarray(keys), jnp.float32(rate), shape))


def _words_of(generator: Generator, keys: np.ndarray, shape: Shape) -> np.ndarray:
    return np.asarray(_words(generator, jnp.asarray(keys), shape))


def _at(generator: Generator, keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Words at these counters: of one key, or one of each."""
    counters = counters.reshape(len(keys), -1)
    return np.asarray(_words_at(generator, jnp.asarray(keys), jnp.asarray(counters))).reshape(-1)


STREAMS = {
    "one key": "the counters of one key",
    "strided": "one key, column after column of an array 1024 wide",
    "wide": "one key, column after column of an array of 2**16 x 2**16",
    "1024 a key": "neighbouring keys, 1024 words of each",
    "16 an example": "neighbouring examples, 16 words of each",
} | {f"over {kind}": f"one element over neighbouring {kind}, 4 elements in turn" for kind in KINDS}


@functools.lru_cache(maxsize=1)
def stream(generator: Generator, name: str, size: int, seed: int) -> np.ndarray:
    """Words as one sequence.

    Args:
      generator: draws them.
      name: one of `STREAMS`.
      size: how many, a multiple of 1024.
      seed: varies what is drawn.

    Returns:
      uint32 of shape (size,).
    """
    if name in ("one key", "strided"):
        words = _words_of(generator, keys_of("keys", seed, 1), (size // 1024, 1024))[0]
        return np.ascontiguousarray(words.T if name == "strided" else words).reshape(-1)
    if name == "wide":
        place = np.arange(size, dtype=np.uint32)
        return _at(generator, keys_of("keys", seed, 1), (place << 16) | (place >> 16))
    if name in ("1024 a key", "16 an example"):
        each = int(name.split()[0])
        kind = "keys" if each == 1024 else "examples"
        return _words_of(generator, keys_of(kind, seed, size // each), (each,)).reshape(-1)
    kind = name.removeprefix("over ")
    words = _words_of(generator, keys_of(kind, seed, size // 4), (4,))
    return np.ascontiguousarray(words.T).reshape(-1)


# P-values.


def two_sided(below: np.ndarray | float, above: np.ndarray | float) -> np.ndarray:
    """The two-sided p-value, from the chances of no more and of no less than was found."""
    return np.minimum(1, 2 * np.minimum(below, above))


def _normal(z: np.ndarray | float, skew: float = 0) -> np.ndarray:
    """Of a standardised sum: Pearson's type 3, which is normal but for the third moment.

    Far out in the tails, where the verdict is made, a small skewness multiplies p-values.
    """
    law = stats.pearson3(skew)
    return two_sided(law.cdf(z), law.sf(z))


def _binomial(count: np.ndarray | int, trials: int, chance: float) -> np.ndarray:
    law = stats.binom(trials, chance)
    return two_sided(law.cdf(count), law.sf(np.asarray(count) - 1))


def _poisson(count: int, mean: float) -> float:
    law = stats.poisson(mean)
    return float(two_sided(law.cdf(count), law.sf(count - 1)))


def _chi_squared(observed: np.ndarray, chances: np.ndarray | float) -> float:
    """Of counts of independent outcomes whose chances are known."""
    chances = np.broadcast_to(chances, observed.shape)
    chances = chances / chances.sum()
    statistic = stats.chisquare(observed, observed.sum() * chances).statistic
    return _chi(float(statistic), observed.size - 1)


def _chi(statistic: float, freedom: int) -> float:
    law = stats.chi2(freedom)
    return float(two_sided(law.cdf(statistic), law.sf(statistic)))


def _geometric(lengths: np.ndarray, chance: float) -> float:
    """Of lengths of at least 1 that go on, each time, with probability 1 - chance."""
    law = stats.geom(chance)
    # About 32 classes of equal chance; the last is split on as long as 20 are expected beyond.
    tails = int(np.log2(max(lengths.size, 1) / 20))
    levels = np.concatenate([np.arange(1, 32) / 32, 1 - 2.0 ** -np.arange(6, max(tails, 6))])
    edges = np.unique(law.ppf(levels[(1 - levels) * lengths.size >= 20]))
    edges = edges[law.sf(edges) * lengths.size >= 20]
    if not edges.size:
        return 1.0
    chances = np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    # Class k is what lies in (edges[k - 1], edges[k]].
    classes = np.searchsorted(edges, lengths)
    return _chi_squared(np.bincount(classes, minlength=edges.size + 1), chances)


# Tests of masks. Their arrays of booleans say what is dropped.


def _realised(rate: float) -> float:
    return float(np.float32(rate))


def _spread(counts: np.ndarray, trials: int, rate: float) -> float:
    """Whether counts vary as binomial ones do: the sum of their squared standard scores.

    Not quite chi-squared where few are dropped, so its first three moments are computed.
    """
    mean, variance = trials * rate, trials * rate * (1 - rate)
    reach = 40 * variance**0.5 + 40
    possible = np.arange(max(0, int(mean - reach)), min(trials, int(mean + reach)) + 1)
    weights = stats.binom.pmf(possible, trials, rate)
    squares = (possible - mean) ** 2 / variance
    centre = (weights * squares).sum()
    second, third = ((weights * (squares - centre) ** power).sum() for power in (2, 3))
    total = ((counts - mean) ** 2 / variance).sum() - counts.size * centre
    skew = third / second**1.5 / counts.size**0.5
    return float(_normal(total / (counts.size * second) ** 0.5, skew))


RATES = (1e-4, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999)


def rates(generator: Generator, size: int, seed: int) -> PValues:
    """The number of drops, and how it varies between rows, columns and blocks.

    Args:
      generator: draws the masks.
      size: elements of each.
      seed: varies them.

    Returns:
      A p-value for each rate and statistic. A rate of 1e-6 is tested for the total alone, of at
      most 64 masks and 2**28 elements.
    """
    found, shape = {}, (size // 1024, 1024)
    for number, rate in enumerate(RATES):
        # A key for each, as the same words would make one test of all.
        key = keys_of("keys", seed + 1000 * (number + 1), 1)
        lost, exact = dropped(generator, key, rate, shape)[0], _realised(rate)
        rows, columns = lost.sum(axis=1), lost.sum(axis=0)
        found[f"{rate} total"] = float(_binomial(int(rows.sum()), size, exact))
        found[f"{rate} rows"] = _spread(rows, 1024, exact)
        found[f"{rate} columns"] = _spread(columns, shape[0], exact)
        blocks = lost.reshape(-1, 64, 16, 64).sum(axis=(1, 3)).ravel()
        found[f"{rate} blocks"] = _spread(blocks, 64 * 64, exact)
    # Beyond 2**28 elements it would show that JAX's own masks realise rates to within 2**-23.
    total, masks = 0, max(1, min(64, 2**28 // size))
    for number in range(masks):
        key = keys_of("keys", seed + 1000 * (number + 100), 1)
        total += int(np.count_nonzero(dropped(generator, key, 1e-6, shape)))
    found["1e-06 total"] = _poisson(total, masks * size * _realised(1e-6))
    return found


def run_lengths(sequence: np.ndarray, rate: float) -> PValues:
    """The runs test: how many runs a sequence of drops has, and how long they are.

    Args:
      sequence: booleans, True with probability `rate`.
      rate: that probability.
    """
    rate, trials = _realised(rate), sequence.size - 1
    changes = np.flatnonzero(sequence[1:] != sequence[:-1])
    change = 2 * rate * (1 - rate)
    # Whether there is a change here and whether there is one next to it share an element.
    covariance = change / 2 - change**2
    variance = trials * change * (1 - change) + 2 * (trials - 1) * covariance
    lengths, kinds = np.diff(changes), sequence[changes[:-1] + 1]
    return {
        "number": float(_normal((changes.size - trials * change) / variance**0.5)),
        "dropped": _geometric(lengths[kinds], 1 - rate),
        "kept": _geometric(lengths[~kinds], rate),
    }


def correlation(x: np.ndarray, y: np.ndarray, rate: float) -> float:
    """Whether drops at `x` and at `y` are independent.

    Args:
      x: booleans, True with probability `rate`.
      y: the same, in the same number; each is the other of at most one pair.
      rate: that probability.
    """
    rate = _realised(rate)
    variance = rate * (1 - rate)
    drops = np.count_nonzero(x) + np.count_nonzero(y)
    # The sum of (x - rate) * (y - rate), in whole numbers as far as it goes.
    total = np.count_nonzero(x & y) - rate * drops + rate**2 * x.size
    skew = (1 - 2 * rate) ** 2 / variance / x.size**0.5
    return float(_normal(total / (variance * x.size**0.5), skew))


_SOME_RATES = (0.5, 0.1, 0.01)
LAGS = (1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 128, 256, 512, 1000, 1024)


def _square(generator: Generator, rate: float, size: int, seed: int) -> np.ndarray:
    width = 1 << (size.bit_length() - 1) // 2
    key = keys_of("keys", seed + 1000 * (200 + _SOME_RATES.index(rate)), 1)
    return dropped(generator, key, rate, (size // width, width))[0]


def runs(generator: Generator, size: int, seed: int) -> PValues:
    """Runs along the rows and along the columns of a mask."""
    found = {}
    for rate in _SOME_RATES:
        lost = _square(generator, rate, size, seed)
        for axis, sequence in enumerate((lost.T.reshape(-1), lost.reshape(-1))):
            for name, p in run_lengths(sequence, rate).items():
                found[f"{rate} axis {axis} {name}"] = p
    return found


def pairs(generator: Generator, size: int, seed: int) -> PValues:
    """Pair correlations along both axes of a mask, at the lags that fit twice."""
    found = {}
    for rate in _SOME_RATES:
        lost = _square(generator, rate, size, seed)
        for axis, array in enumerate((lost, np.ascontiguousarray(lost.T))):
            for lag in LAGS:
                if lag <= len(array) // 2:
                    p = correlation(array[lag:], array[:-lag], rate)
                    found[f"{rate} axis {axis} lag {lag}"] = p
    return found


SHIFTS = (0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 64, 128, 256)


def neighbours(generator: Generator, size: int, seed: int, kind: str) -> PValues:
    """Correlation between the masks of neighbouring keys, also when shifted against each other.

    Args:
      generator: draws the masks, of 1024 elements.
      size: elements in all.
      seed: varies them.
      kind: of the keys; see `keys_of`.
    """
    found, keys = {}, keys_of(kind, seed, size // 1024)
    for rate in _SOME_RATES:
        lost = dropped(generator, keys, rate, (1024,))
        for shift in SHIFTS:
            left, right = lost[:, : 1024 - shift], lost[:, shift:]
            found[f"{rate} shift {shift}"] = correlation(left[1:], right[:-1], rate)
            if shift:
                found[f"{rate} shift {-shift}"] = correlation(right[1:], left[:-1], rate)
        found[f"{rate} counts"] = _spread(lost.sum(axis=1), 1024, _realised(rate))
    return found


def transposed(generator: Generator, size: int, seed: int, kind: str) -> PValues:
    """One element of the masks of neighbouring keys, as a sequence: its runs and correlations.

    Args:
      generator: draws the masks, of 64 elements.
      size: elements in all.
      seed: varies them.
      kind: of the keys; see `keys_of`.
    """
    found, keys = {}, keys_of(kind, seed, size // 64)
    for rate in _SOME_RATES:
        lost = dropped(generator, keys, rate, (64,))
        for name, p in run_lengths(lost.T.reshape(-1), rate).items():
            found[f"{rate} runs {name}"] = p
        for lag in LAGS:
            if lag <= len(lost) // 2:
                found[f"{rate} lag {lag}"] = correlation(lost[lag:], lost[:-lag], rate)
        found[f"{rate} counts"] = _spread(lost.sum(axis=0), len(lost), _realised(rate))
    return found


# Tests of words.


def _bits(words: np.ndarray) -> np.ndarray:
    """The bits of words, lowest first, of shape (words, 32)."""
    octets = words.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)
    return np.unpackbits(octets, axis=1, bitorder="little")


def bit_pairs(words: np.ndarray) -> PValues:
    """Each bit of a word, each pair of bits, and each bit with each of the next word.

    Args:
      words: uint32 of shape (count,).

    Returns:
      A p-value for each of 32 bits, 496 pairs and 1024 pairs, and one for each group together.
    """
    ones, within, following = np.zeros(32), np.zeros((32, 32)), np.zeros((32, 32))
    # In float32, whose sums of so few ones are exact.
    for start in range(0, words.size - 1, 2**16):
        signs = 2 * _bits(words[start : start + 2**16 + 1]).astype(np.float32) - 1
        here, after = signs[:-1], signs[1:]
        ones += here.sum(axis=0)
        within += here.T @ here
        following += here.T @ after
    root, found = (words.size - 1) ** 0.5, {}
    places = {
        "bit {}": [(i,) for i in range(32)],
        "bits {} {}": [(i, j) for i in range(32) for j in range(i)],
        "bit {} then {}": [(i, j) for i in range(32) for j in range(32)],
    }
    for (label, at), sums in zip(places.items(), (ones, within, following), strict=True):
        z = np.array([sums[place] for place in at]) / root
        for place, p in zip(at, _normal(z), strict=True):
            found[label.format(*place)] = float(p)
        # Sums of different pairs are uncorrelated.
        found[label.format("*", "*")] = _chi(float((z**2).sum()), z.size)
    return found


def collisions(words: np.ndarray) -> PValues:
    """How many words are the same as one before: none would be as wrong as too many."""
    places, count = 2.0**32, words.size
    mean = count + places * np.expm1(count * np.log1p(-1 / places))
    ordered = np.sort(words)
    return {"words": _poisson(int(np.count_nonzero(ordered[1:] == ordered[:-1])), float(mean))}


def _equal_spacings(birthdays: np.ndarray) -> int:
    """How many spacings, between birthdays of a year along the last axis, come again."""
    spacings = np.sort(np.diff(np.sort(birthdays, axis=-1), axis=-1), axis=-1)
    return int(np.count_nonzero(spacings[:, 1:] == spacings[:, :-1]))


def birthdays(words: np.ndarray) -> PValues:
    """Marsaglia's birthday spacings, with the number of equal ones Poisson-distributed.

    Of m birthdays in a year of 2**b days about m**3 / 2**(b + 2) spacings come again. The years: a
    word (4 each), the low and the high 24 bits of one (2 each), and the 48 high and low bits of
    pairs (2 each).

    Args:
      words: uint32 of shape (count,).
    """
    found = {}
    high, low = words[0::2].astype(np.uint64), words[1::2].astype(np.uint64)
    years: dict[str, tuple[np.ndarray, int, int]] = {
        "32 bits": (words, 2**12, 32),
        "high 24": (words >> 8, 2**9, 24),
        "low 24": (words & 0xFFFFFF, 2**9, 24),
        "pairs of high 24": ((high >> 8 << 24) | (low >> 8), 2**17, 48),
        "pairs of low 24": (((high & 0xFFFFFF) << 24) | (low & 0xFFFFFF), 2**17, 48),
    }
    for name, (days, each, length) in years.items():
        # The Poisson law holds up to a part in 2000. Beyond so many years that would show.
        number = min(days.size // each, 2**10)
        if number:
            count = _equal_spacings(days[: number * each].reshape(number, each))
            # A gap of the year's end is no spacing here: each - 1 of them.
            mean = number * (each - 1) * (each - 2) * (each - 1) / 2.0 ** (length + 2)
            found[name] = _poisson(count, mean)
    return found


def serial(words: np.ndarray) -> PValues:
    """Chi-squared of pairs of bytes and triples of 5 bits, from the top, the middle, the bottom."""
    found = {}
    for name, byte, five in (("top", 24, 27), ("middle", 12, 13), ("low", 0, 0)):
        for each, shift, width in ((2, byte, 8), (3, five, 5)):
            parts = (words >> shift) & (2**width - 1)
            parts = parts[: parts.size // each * each].reshape(-1, each)
            cells = parts @ (2 ** (width * np.arange(each))).astype(np.uint32)
            observed = np.bincount(cells, minlength=2 ** (width * each))
            found[f"{name} {'pairs' if each == 2 else 'triples'}"] = _chi_squared(observed, 1.0)
    return found


def gaps(words: np.ndarray) -> PValues:
    """How long it takes until the top or the low 4 bits are zero again."""
    found = {}
    for name, part in (("top", words >> 28), ("low", words & 15)):
        found[name] = _geometric(np.diff(np.flatnonzero(part == 0)), 1 / 16)
    return found


def _rank_chances() -> np.ndarray:
    """The chances that 32 random words have rank 32, 31, 30 or less over GF(2)."""
    # The words, one after the other: one of rank r so far spans a share 2**(r - 32).
    chances = np.zeros(34)
    chances[0] = 1
    for _ in range(32):
        inside = 2.0 ** (np.arange(34) - 32)
        inside[33] = 0
        moved = chances * (1 - inside)
        chances = chances * inside
        chances[1:] += moved[:-1]
    return np.array([chances[32], chances[31], chances[30], chances[:30].sum()])


def ranks(words: np.ndarray) -> PValues:
    """Ranks over GF(2) of matrices of 32 words in a row; at most 2**15 matrices, for speed."""
    rows = words[: words.size // 32 * 32].reshape(-1, 32)[: 2**15].T.copy()
    rank = np.zeros(rows.shape[1], int)
    for bit in range(32):
        has = (rows >> bit) & 1
        pivot = has.argmax(axis=0)[None]
        value = np.take_along_axis(rows * has, pivot, axis=0)
        # The pivot itself becomes zero, and is out of the way.
        rows ^= has * value
        rank += value[0] != 0
    observed = np.array([*((rank == r).sum() for r in (32, 31, 30)), (rank < 30).sum()])
    return {"32 x 32": _chi_squared(observed, _rank_chances())}


_WEIGHTS = stats.binom.pmf(np.arange(33), 32, 0.5)
_LIGHT, _HEAVY = 8, 24


def _flips(changed: np.ndarray, name: str) -> PValues:
    """Of words before xor words after: each bit flips half the time, independently of others."""
    found = {}
    flipped = _bits(changed)
    for bit, p in enumerate(_binomial(flipped.sum(axis=0), changed.size, 0.5)):
        found[f"{name} bit {bit}"] = float(p)
    # The rarest weights are taken together, to have enough of each.
    weights = np.clip(flipped.sum(axis=1), _LIGHT, _HEAVY)
    chances = _WEIGHTS[_LIGHT : _HEAVY + 1].copy()
    chances[0] += _WEIGHTS[:_LIGHT].sum()
    chances[-1] += _WEIGHTS[_HEAVY + 1 :].sum()
    observed = np.bincount(weights - _LIGHT, minlength=chances.size)
    found[f"{name} weight"] = _chi_squared(observed, chances)
    return found


def avalanche(generator: Generator, size: int, seed: int, what: str) -> PValues:
    """What a small change does to a word: each bit flips with probability 1/2.

    Args:
      generator: has the words.
      size: of words and changes.
      seed: varies them.
      what: changes. "small counters" and "all counters" flip one bit of the counter, "keys" flips
        one bit of the integer the key is made of, or adds 1 to it.

    Returns:
      A p-value for each changed and each flipped bit, and for the number of bits that flip.
    """
    count, found = size // 64, {}
    numbers = np.arange(count, dtype=np.uint32) + np.uint32(seed * 1_000_003 % 2**32)
    random = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)
    changes = {f"flip {j}": np.uint32(1 << j) for j in range(32)}
    if what == "keys":

        def words(numbers: np.ndarray) -> np.ndarray:
            keys = jax.random.key_data(jax.vmap(jax.random.key)(jnp.asarray(numbers)))
            return _at(generator, np.asarray(keys), random)

        before = words(numbers)
        for name, change in changes.items():
            found |= _flips(before ^ words(numbers ^ change), name)
        return found | _flips(before ^ words(numbers + np.uint32(1)), "next")
    counters = random if what == "all counters" else np.arange(count, dtype=np.uint32)
    key = keys_of("keys", seed, 1)

    before = _at(generator, key, counters)
    for name, change in changes.items():
        changed = before ^ _at(generator, key, counters ^ change)
        if what == "small counters":
            # Each pair that the flip joins is there twice.
            changed = changed[(counters & change) == 0]
        found |= _flips(changed, name)
    return found


# The battery.

Test = Callable[[Generator, int, int], PValues]
"""(generator, size, seed) -> p-values."""

WORD_TESTS: dict[str, Callable[[np.ndarray], PValues]] = {
    "bit pairs": bit_pairs,
    "collisions": collisions,
    "birthdays": birthdays,
    "serial": serial,
    "gaps": gaps,
    "ranks": ranks,
}


def _of_stream(test: Callable[[np.ndarray], PValues], name: str) -> Test:
    return lambda generator, size, seed: test(stream(generator, name, size, seed))


def _battery() -> dict[tuple[str, str], Test]:
    tests: dict[tuple[str, str], Test] = {
        ("rates", "drop counts"): rates,
        ("runs", "along an axis"): runs,
        ("pairs", "along an axis"): pairs,
    }
    for kind in KINDS:
        tests["neighbours", kind] = functools.partial(neighbours, kind=kind)
        tests["transposed", f"over {kind}"] = functools.partial(transposed, kind=kind)
    for what in ("small counters", "all counters", "keys"):
        tests["avalanche", what] = functools.partial(avalanche, what=what)
    for words in STREAMS:
        for name, test in WORD_TESTS.items():
            # "strided" has the words of "one key" in another order: as many collide.
            if (name, words) != ("collisions", "strided"):
                tests[name, words] = _of_stream(test, words)
    return tests


BATTERY = _battery()
"""Every test, by its name and what it looks at."""


def run_all(generator: Generator, size: int, seed: int) -> dict[tuple[str, str], PValues]:
    """Runs every test.

    Args:
      generator: is tested.
      size: words or elements that a test looks at: a multiple of 2**17.
      seed: varies what is drawn.

    Returns:
      The p-values, by the names of `BATTERY`.
    """
    return {name: test(generator, size, seed) for name, test in BATTERY.items()}


def threshold(found: dict[tuple[str, str], PValues]) -> float:
    """The p-value below which a test fails: Bonferroni's, over all statistics of all tests."""
    return ALPHA / sum(len(p_values) for p_values in found.values())


def failures(found: dict[tuple[str, str], PValues]) -> list[tuple[str, str]]:
    """The names of the tests that fail."""
    limit = threshold(found)
    return [name for name, p_values in found.items() if min(p_values.values()) < limit]


def table(found: dict[tuple[str, str], PValues]) -> str:
    """The results, a line for each test, in aligned columns."""
    failed = failures(found)
    lines = [("test", "looked at", "statistics", "smallest p", "of", "verdict")]
    for name, p_values in found.items():
        least = min(p_values, key=lambda label: p_values[label])
        verdict = "FAILED" if name in failed else "passed"
        lines.append((*name, str(len(p_values)), f"{p_values[least]:.1e}", least, verdict))
    return "\n".join(aligned(lines))


ENDLESS = ("one key", "wide", "1024 a key")
"""The orders of `STREAMS` that go on without end, over keys 0, 1, 2, ..."""

_CHUNK = 2**22


def endless(generator: Generator, name: str) -> Iterator[np.ndarray]:
    """Words as one sequence without end, piece by piece.

    Args:
      generator: draws them.
      name: one of `ENDLESS`: of a key all 2**32 words, in their order or column after column of an
        array of 2**16 x 2**16; or its first 1024.

    Yields:
      uint32 arrays.
    """
    place = np.arange(_CHUNK, dtype=np.uint32)
    for number in itertools.count():
        if name == "1024 a key":
            keys = np.arange(_CHUNK // 1024, dtype=np.uint32) + number * (_CHUNK // 1024)
            yield np.asarray(_words(generator, _plain_keys(keys), (1024,))).reshape(-1)
            continue
        key = _plain_keys(np.array([number], np.uint32))
        for start in range(0, 2**32, _CHUNK):
            at = place + np.uint32(start)
            yield _at(generator, key, (at << 16) | (at >> 16) if name == "wide" else at)


@jax.jit
def _plain_keys(numbers: Array) -> Array:
    return jax.random.key_data(jax.vmap(jax.random.key)(numbers))


def define_flags() -> None:
    """Not at import: the tests import this module beside others that have such flags too."""
    flags.DEFINE_enum("generator", "dropjax", list(GENERATORS), "What is tested.")
    what = "Words and elements that each test looks at, in units of 2**25."
    flags.DEFINE_integer("scale", 1, what, lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Varies the keys.", lower_bound=0, upper_bound=2**31)
    flags.DEFINE_enum("write", None, ENDLESS, "Write these words to stdout instead.")


def main(argv: list[str]) -> int:
    """Runs the battery and prints the table."""
    if argv[1:]:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    given = flags.FLAGS
    if given.write:
        with contextlib.suppress(BrokenPipeError):
            for words in endless(GENERATORS[given.generator], given.write):
                sys.stdout.buffer.write(words.tobytes())
        os._exit(0)  # Python would complain that it cannot flush
    began = time.perf_counter()
    found = run_all(GENERATORS[given.generator], DEFAULT_SIZE * given.scale, given.seed)
    print(table(found))
    failed, all_p = failures(found), [p for p_values in found.values() for p in p_values.values()]
    seconds, small = time.perf_counter() - began, sum(p < 1e-3 for p in all_p)
    print(
        f"{given.generator}, seed {given.seed}, 2**25 * {given.scale} words a test, {seconds:.0f} s"
        f". Of {len(all_p)} p-values, {small} are below 1e-3; a test fails below "
        f"{threshold(found):.1e}."
    )
    print(f"{len(failed)} of {len(found)} tests FAILED" if failed else "ALL PASSED")
    return 1 if failed else 0


if __name__ == "__main__":
    define_flags()
    program.launch("mask_battery", main)
