"""Masksembles: a few fixed masks whose overlap can be chosen, from one network to an ensemble.

Source: Durasov, Bagautdinov, Baque, Fua 2021, "Masksembles for Uncertainty Estimation" (arXiv
2012.08334), section 3: n masks with as many ones each, drawn over `scale` times as many positions,
of which those that no mask uses are left out. A larger scale means less overlap.

Differs: the authors' code draws until the number of positions that are used is right, and searches
for a scale near the one asked for if it never is. Here a few ones are moved instead, so that it
ends, and the scale is the one asked for, with few features too. In training the authors give each
mask a part of the batch; here each example draws one of the masks, whatever the batch is.
"""

import zlib
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from dropjax.core.keys import Keys
from dropjax.core.scheme import Fixed, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import drop, wide_dtype
from dropjax.ops.keys import check_key
from dropjax.ops.uniform import below

Array = jax.Array

SCALES = (1.0, 6.0)


def masksembles_masks(key: Array, features: int, n: int, scale: float) -> np.ndarray:
    """n fixed masks over features, each with as many ones as the others.

    They are made once, outside of `jax.jit`, and then belong to the network: multiply activations
    by `masks[i]`, unscaled, and average predictions over i at test time.

    Args:
      key: PRNG key, typed or raw; one key always gives the same masks.
      features: their length, at least 1; with few the overlap is coarse.
      n: how many, at least 1. With 1 the mask is all ones. Typical: 4.
      scale: from 1, where all masks are all ones, to 6. Two masks share about 1 / (2 scale - 1) of
        the features that either has. Typical: 2.

    Returns:
      NumPy booleans (n, features). Each feature is in at least one mask.

    Raises:
      TypeError: key is no PRNG key, or is traced.
      ValueError: features or n less than 1, or scale outside of [1, 6].

    Cost: about 60 random bits a feature and mask, of NumPy's generator: microseconds to
      milliseconds, on the host. Nothing is kept for a backward pass: masks have no gradient.

    Source: Durasov et al. 2021, section 3.

    Example:
      >>> import jax, dropjax
      >>> masks = dropjax.masksembles_masks(jax.random.key(0), 16, 4, 2.0)
      >>> masks.shape, masks.sum(axis=1).tolist()
      ((4, 16), [9, 9, 9, 9])
    """
    if isinstance(key, Tracer):
        raise TypeError("key is traced; the masks are fixed: make them outside of jax.jit")
    key = check_key(key)
    features = _whole(features, "features", 1)
    _check_masks(n, scale)
    # Of `scale` times `ones` positions about this part is used by some mask.
    used = 1 - (1 - 1 / scale) ** n
    ones = min(max(round(features / (scale * used)), -(-features // n)), features)
    # The old generator: its numbers are promised to stay the same in all versions of NumPy.
    rng = np.random.RandomState(np.asarray(jax.random.key_data(key)).reshape(-1))
    positions = max(round(ones * scale), ones)
    masks = np.zeros((n, max(positions, features)), bool)
    for mask in masks:
        mask[rng.permutation(positions)[:ones]] = True
    _use(masks, features, rng)
    # Those that had to be added stand last.
    return masks[:, masks.any(axis=0)][:, rng.permutation(features)]


def _use(masks: np.ndarray, features: int, rng: np.random.RandomState) -> None:
    """Moves ones within their masks until exactly `features` positions are used."""
    while True:
        counts = masks.sum(axis=0)
        used = np.flatnonzero(counts)
        if len(used) == features:
            return
        if len(used) > features:  # empty a position that has the fewest
            source = rng.choice(np.flatnonzero(counts == counts[used].min()))
            for i in np.flatnonzero(masks[:, source]):
                target = rng.choice(used[~masks[i, used]])
                masks[i, [source, target]] = False, True
        else:  # take from one that several have
            source = rng.choice(np.flatnonzero(counts > 1))
            i = rng.choice(np.flatnonzero(masks[:, source]))
            target = rng.choice(np.flatnonzero(counts == 0))
            masks[i, [source, target]] = False, True


def _check_masks(n: int, scale: float) -> None:
    _whole(n, "n", 1)
    number = isinstance(scale, (int, float, np.number)) and not isinstance(scale, bool)
    if not number or not SCALES[0] <= scale <= SCALES[1]:
        raise ValueError(f"scale must be a number in [1, 6], got {scale!r}")


def _whole(value: int, name: str, least: int) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}; got {value!r}")
    return int(value)


@scheme
class Masksembles(Scheme):
    """A few fixed masks of hidden units: training draws one for each example.

    Monte-Carlo sample i uses mask i, all over again after n: a multiple of n samples is the mean
    of the n networks. The masks are a matter of `masks_seed` and the site, not of the run's seed:
    they are a part of the network.

    Args:
      n: number of masks, at least 1.
      scale: from 1, where all masks are full of ones, to 6. Two masks share about 1 / (2 scale - 1)
        of the features that either of them keeps.
      masks_seed: seed of the masks, an integer of at least 0.
    """

    n: int = 4
    scale: Fixed = 2.0
    masks_seed: int = 0

    acts_on: ClassVar = frozenset({Kind.HIDDEN})
    can_act_on: ClassVar = frozenset({Kind.FEATURE_MAP, Kind.EMBED})

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_masks(self.n, self.scale)
        if not 0 <= self.masks_seed < 2**32:
            raise ValueError(f"masks_seed must be in [0, 2**32), got {self.masks_seed}")

    def refuses(self, sites: Sequence[Site]) -> str | None:
        if self.scale == 1 or self.n == 1:
            return "with n=1 or scale=1.0 every mask is all ones, and nothing would happen"
        if not all("feature" in site.axes for site in sites):
            return 'a site it acts on has no axis "feature"'
        return None

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        masks = self._masks(site, shape)
        drawn = below(keys.example, (), self.n)
        sample = jnp.asarray(keys.sample_id).astype(jnp.int32)
        return masks[jnp.where(sample > 0, (sample - 1) % self.n, drawn)]

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, 0.0, "test")

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        wide = wide_dtype(x.dtype)
        share = self._masks(site, x.shape).mean(0, dtype=wide)
        return (x.astype(wide) * share).astype(x.dtype)

    def _masks(self, site: Site, shape: Sequence[int]) -> Array:
        """The masks of a site: n of them, broadcasting against `shape`."""
        axis = site.axes.index("feature")
        with jax.ensure_compile_time_eval():
            key = jnp.asarray([self.masks_seed, zlib.crc32(site.name.encode())], jnp.uint32)
            masks = masksembles_masks(key, shape[axis], self.n, self.scale)
        return jnp.asarray(masks.reshape(self.n, *site.own(shape, "feature")))
