"""Spatial dropout: drops whole feature maps.

Source: Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient Object Localization Using
Convolutional Networks" (arXiv 1411.4280), section 3.2.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.schemes.bernoulli import dropout

Array = jax.Array


def spatial_dropout(
    key: Array, x: ArrayLike, rate: ArrayLike, *, spatial_axes: int | Sequence[int] = (-3, -2)
) -> Array:
    """Dropout with one decision for a whole feature map.

    Args:
      key: PRNG key, typed or raw.
      x: floats, (..., height, width, channels) for the default `spatial_axes`; each image of a
        batch and each channel is dropped on its own.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask, which has size 1 along the spatial axes. Typical: 0.1 to 0.3.
      spatial_axes: the axes that share a decision: -2 for (..., steps, channels), (-4, -3, -2) for
        volumes, (-2, -1) where channels come before height and width.

    Returns:
      An array of the shape and dtype of x, with mean x.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; x has no such axis.

    Cost: 32 random bits a feature map; about the time of reading x and writing the result. 8 bytes
      a key are kept for the backward pass, which draws the mask again.

    Source: Tompson et al. 2015, section 3.2.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> y = dropjax.spatial_dropout(jax.random.key(0), jnp.ones((2, 2, 3)), 0.5)
      >>> y.min(axis=(0, 1)), y.max(axis=(0, 1))
      (Array([0., 0., 2.], dtype=float32), Array([0., 0., 2.], dtype=float32))
    """
    x = check_floating(x)
    return dropout(key, x, rate, shared_axes=normalize_axes(spatial_axes, x.ndim, "spatial_axes"))


def no_maps(sites: Sequence[Site], otherwise: str) -> str | None:
    """Why whole feature maps cannot be dropped at these sites; None if they can.

    Args:
      sites: all that a scheme acts on.
      otherwise: the scheme that it would be without spatial axes.
    """
    if not all("feature" in site.axes for site in sites):
        return 'a site it acts on has no axis "feature", and would be dropped as a whole'
    if any(len(site.axes) > 1 for site in sites):
        return None
    return f"no site it acts on has a spatial axis; without one it is {otherwise}, so ask for that"


@scheme
class Spatial(Scheme):
    """One decision a feature map: one for each feature, shared along all other axes."""

    rate: Rate = 0.2

    acts_on: ClassVar = frozenset({Kind.FEATURE_MAP})
    can_act_on: ClassVar = frozenset({Kind.INPUT, Kind.EMBED, Kind.HIDDEN, Kind.BRANCH})
    made_for: ClassVar = "cnn"

    def refuses(self, sites: Sequence[Site]) -> str | None:
        return no_maps(sites, "bernoulli")

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, site.own(shape, "feature"))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
