"""DropBlock: drops whole blocks of neighbouring positions.

Source: Ghiasi, Lin, Le 2018, "DropBlock: A regularization method for convolutional networks"
(arXiv 1810.12890), section 3, algorithm 1: seeds are drawn where a whole block fits, each is
widened to a block, and what is kept is scaled up to the size of the map.

Differs: the paper's rate of seeds (equation 1) is first-order: where blocks overlap, less is
dropped than was asked for (9.3 % for 10 %, 36 % for 50 %, of a 14 x 14 map with blocks of 7). Ours
is the exact one; theirs is `gamma="paper"`. What is kept is scaled for each example and mask, not
over the whole batch, so that no example's output depends on the others. It is also scaled up for
the chance that a whole map is dropped, as it is where one block covers the map: there the paper's
scale is 1.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import numpy as np
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import expected_drop, where_kept_at_all
from dropjax.ops.block_masks import Blocks, mean_kept, multiplied, rate_of_masks
from dropjax.ops.checks import check_choice, check_floating, normalize_axes
from dropjax.ops.keys import check_key

Array = jax.Array

GAMMAS = ("exact", "paper")
NORMALIZE = ("example", "expected", "none")


def dropblock(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    block_size: int | Sequence[int] = 7,
    *,
    spatial_axes: int | Sequence[int] = (-3, -2),
    shared_axes: int | Sequence[int] = (),
    gamma: Literal["exact", "paper"] = "exact",
    normalize: Literal["example", "expected", "none"] = "example",
) -> Array:
    """Sets whole blocks of neighbouring positions to 0.

    Args:
      key: PRNG key, typed or raw.
      x: floats, (..., height, width, channels) for the default `spatial_axes`. Each image of a
        batch and each channel has blocks of its own.
      rate: the share of positions that is dropped on average, in [0, 1]: a number, or an array
        that broadcasts to the mask with size 1 along the spatial axes. May be traced. Typical: 0.1,
        ramped up linearly from 0 in the course of training.
      block_size: the side of a block, or one for each of `spatial_axes` in their order; odd or
        even. A block that is larger than the map is as large as the map.
      spatial_axes: the one, two or three axes that blocks lie in: -2 for (..., steps, channels),
        (-4, -3, -2) for volumes, (-2, -1) where channels come before height and width.
      shared_axes: axes along which blocks are shared: -1 for one mask for all channels. The paper
        found a mask for each channel to work better.
      gamma: "exact" drops `rate` of the positions; "paper" is the paper's formula, which drops
        less where blocks overlap, and not all at rate 1.
      normalize: "example" multiplies each map by its positions over those that are kept, and
        divides by the probability that any are; "expected" divides by their mean share instead,
        which does not depend on the draw; "none" does not scale.

    Returns:
      An array of the shape and dtype of x. A map of which nothing is kept is zeros, with zero
      gradients. Where a block is as large as the map, that is `dropjax.spatial_dropout`. Unless
      normalize is "none", the mean over draws and over a map of ones is 1 at rates below 1, but for
      the maps named below. Positions near the border are kept more often than those in the middle,
      as fewer blocks lie over them: so the mean at a position is not x (at rate 0.5, blocks of 7 on
      a 14 x 14 map: 2.13 x in a corner, 0.09 x in the middle). The paper evaluates with x;
      `dropjax.expected.dropblock` has the mean.

      What is kept is divided by the probability that something of a map is kept, which is exact at
      every rate. Where it takes too long to find, it is not divided by: on maps that are longer
      than two blocks along all three axes, or along two and large (from 14 x 14 for blocks of 2,
      12 x 12 for blocks of 3, 17 x 17 for blocks of 7), or longer than a block by 1,000 along one.
      There the mean over a map of ones is less than 1: by less than 5e-5 at rates up to 0.8, by
      less than 0.002 at 0.9, and by more at higher rates. With blocks of 2 it is 0.986 at rate 0.95
      on a 5 x 5 x 5 map; on a 14 x 14 map it is 0.9992 at 0.95, and 0.81 at 0.99.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; block_size less than 1 or not
        one for each axis; a wrong axis, gamma or normalize.

    Cost: 32 random bits for each place where a block fits, and for each spatial axis a pass over
      the mask. For the backward pass the mask is drawn again: a few bytes are kept. Up to a second
      on the host, once for each size of maps, to count the sets of blocks that cover one.

    Source: Ghiasi et al. 2018, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x = jnp.ones((9, 1))
      >>> y = dropjax.dropblock(jax.random.key(1), x, 0.3, 3, spatial_axes=-2)
      >>> [round(float(factor), 2) for factor in y[:, 0]]
      [1.51, 1.51, 1.51, 1.51, 1.51, 1.51, 0.0, 0.0, 0.0]
    """
    key, x = check_key(key), check_floating(x)
    block = _block_of(block_size, spatial_axes, x.ndim)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    if set(shared) & set(block):
        raise ValueError(f"shared_axes={shared_axes} and spatial_axes={spatial_axes} overlap")
    _check_options(gamma, normalize)
    if not x.size:
        return x
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    return multiplied(Blocks.of(key, rate, shape, block, gamma, normalize), x)


def expected(
    x: ArrayLike,
    rate: ArrayLike,
    block_size: int | Sequence[int] = 7,
    *,
    spatial_axes: int | Sequence[int] = (-3, -2),
    gamma: Literal["exact", "paper"] = "exact",
    normalize: Literal["example", "expected", "none"] = "example",
) -> Array:
    """The exact expectation of `dropblock`, position by position.

    It is x times (1 - gamma)**c, with c the number of blocks that can lie over a position, and
    divided by the mean of that if normalize is "expected". If normalize is "example" it is x where
    a block is as large as the map; elsewhere it has no closed form: the number of positions kept
    depends on all seeds at once.

    Args:
      x: floats, as for `dropblock`.
      rate: the share of positions that is dropped, in [0, 1].
      block_size: as `dropblock` was called.
      spatial_axes: as `dropblock` was called.
      gamma: as `dropblock` was called.
      normalize: as `dropblock` was called.

    Returns:
      An array of the shape and dtype of x. At rate 1, where nothing is kept, zeros.

    Raises:
      TypeError: x holds no floats.
      ValueError: normalize is "example" and a block is smaller than the map; else as for
        `dropblock`.

    Cost: no random bits; a product an element. The factors are kept for the backward pass, 4 bytes
      a position of a map.
    """
    x = check_floating(x)
    block = _block_of(block_size, spatial_axes, x.ndim)
    _check_options(gamma, normalize)
    if not x.size:
        return x
    if normalize == "example":
        if any(size < x.shape[axis] for axis, size in block.items()):
            raise ValueError(
                'the mean under normalize="example" has no closed form where a block is smaller '
                "than the map; average over draws, evaluate with x as the paper does, or drop "
                'blocks with normalize="expected"'
            )
        return expected_drop(x, rate_of_masks(rate, x.shape, block))
    return mean_kept(x, rate, block, gamma, normalize)


def _block_of(
    block_size: int | Sequence[int], axes: int | Sequence[int], ndim: int
) -> dict[int, int]:
    """The size of a block along each spatial axis."""
    normalized = normalize_axes(axes, ndim, "spatial_axes")
    if not 1 <= len(normalized) <= 3:
        raise ValueError(f"spatial_axes must name one, two or three axes, got {axes!r}")
    # In the order in which they were given, which is that of the sizes.
    given = [axes] if isinstance(axes, (int, np.integer)) else axes
    return _sizes(block_size, [int(axis) % ndim for axis in given])


def _sizes(block_size: int | Sequence[int], axes: Sequence[int]) -> dict[int, int]:
    _check_block_size(block_size)
    sizes = (block_size,) * len(axes) if isinstance(block_size, (int, np.integer)) else block_size
    if len(sizes) != len(axes):
        raise ValueError(
            "block_size must be one number or one for each spatial axis, of which there are "
            f"{len(axes)}; got {block_size!r}"
        )
    return {axis: int(size) for axis, size in zip(axes, sizes, strict=True)}


def _check_block_size(block_size: int | Sequence[int]) -> None:
    sizes = block_size if isinstance(block_size, (tuple, list)) else (block_size,)
    if not sizes or not all(
        isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 1
        for size in sizes
    ):
        raise ValueError(
            "block_size must be a whole number of positions, at least 1, or one for each spatial "
            f"axis; got {block_size!r}"
        )


def _check_options(gamma: str, normalize: str) -> None:
    check_choice(gamma, GAMMAS, "gamma")
    check_choice(normalize, NORMALIZE, "normalize")


@scheme
class DropBlock(Scheme):
    """DropBlock on feature maps; by name on whatever else has a spatial axis.

    Evaluates with x below rate 1, as its paper. That is not the mean where blocks lie unevenly.

    Args:
      rate: the share of positions that is dropped on average, in [0, 1].
      block_size: side of a block, or its side along each spatial axis. A block larger than the map
        is as large as the map.
      per_channel: whether each channel has blocks of its own; if not, all channels share them.
      gamma: "exact" drops `rate` of the positions. "paper" is the paper's formula, which drops less
        where blocks overlap.
      normalize: how what is kept is scaled: "example", by the share of positions that this map
        keeps; "expected", by the share that maps keep on average; "none", not at all.
    """

    rate: Rate = 0.1
    block_size: int | tuple[int, ...] = 7
    per_channel: bool = True
    gamma: Literal["exact", "paper"] = "exact"
    normalize: Literal["example", "expected", "none"] = "example"

    acts_on: ClassVar = frozenset({Kind.FEATURE_MAP})
    can_act_on: ClassVar = frozenset({Kind.INPUT, Kind.EMBED, Kind.HIDDEN, Kind.BRANCH})
    made_for: ClassVar = "cnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_block_size(self.block_size)

    @property
    def expected_is_mean(self) -> bool:  # type: ignore[override]
        """Only where nothing is scaled, for there x would be too large at every position.

        Where it is, x is what the paper evaluates with, except where nothing can be kept: there it
        is 0. The mean over a map of ones is 1, but that at a position is not, unless a block is as
        large as the map.
        """
        return self.normalize == "none"

    def refuses(self, sites: Sequence[Site]) -> str | None:
        numbers = {len(_spatial(site)) for site in sites}
        if 0 in numbers:
            return "a site it acts on has no spatial axis; there it is bernoulli, so ask for that"
        if isinstance(self.block_size, tuple) and numbers != {len(self.block_size)}:
            return (
                f"block_size={self.block_size} has {len(self.block_size)} sizes, but the sites it "
                f"acts on have {' or '.join(map(str, sorted(numbers)))} spatial axes"
            )
        return None

    def remark(self, site: Site, shape: Sequence[int]) -> str | None:
        block = _sizes(self.block_size, _spatial(site))
        if not block or any(size < shape[axis] for axis, size in block.items()):
            return None
        return "a block is as large as the map, so it is spatial dropout there: whole maps"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Blocks:
        block = _sizes(self.block_size, _spatial(site))
        masks = [
            size if axis in block or self.per_channel else 1 for axis, size in enumerate(shape)
        ]
        return Blocks.of(keys.example, self.rate, masks, block, self.gamma, self.normalize)

    def apply(self, noise: Blocks, x: Array, site: Site, fallback: Array | None) -> Array:
        return multiplied(noise, x)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        block = _sizes(self.block_size, _spatial(site))
        if not self.expected_is_mean:
            # The paper's gamma is 1 at rate 1 only where blocks cannot overlap.
            overlap = any(1 < size < x.shape[axis] for axis, size in block.items())
            kept = overlap and self.gamma == "paper"
            return x if kept else where_kept_at_all(x, self.rate)
        return mean_kept(x, self.rate, block, self.gamma, self.normalize)


def _spatial(site: Site) -> list[int]:
    names = ("time", "depth", "height", "width")
    return [axis for axis, name in enumerate(site.axes) if name in names]
