"""Feature alpha dropout: alpha dropout of whole feature maps.

Source: Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-Normalizing Neural Networks"
(arXiv 1706.02515), section "New Dropout Technique"; whole maps as Tompson, Goroshin, Jain, LeCun,
Bregler 2015 (arXiv 1411.4280), section 3.2, drop them.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.schemes.alpha import alpha_dropout, saturate
from dropjax.schemes.spatial import no_maps

Array = jax.Array


def feature_alpha_dropout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    spatial_axes: int | Sequence[int] = (-3, -2),
    mean: ArrayLike = 0.0,
    variance: ArrayLike = 1.0,
) -> Array:
    """Alpha dropout with one decision for a whole feature map.

    Args:
      key: PRNG key, typed or raw.
      x: floats, (..., height, width, channels) for the default `spatial_axes`, of mean 0 and
        variance 1 over units, channels and examples; each image of a batch and each channel is
        dropped on its own.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask, which has size 1 along the spatial axes. Typical: 0.05 to 0.1.
      spatial_axes: the axes that share a decision: -2 for (..., steps, channels), (-4, -3, -2) for
        volumes, (-2, -1) where channels come before height and width.
      mean: of x, where it is not 0; one number, which may be traced and has no gradient.
      variance: of x, where it is not 1; above 0. Both are kept.

    Returns:
      An array of the shape and dtype of x. Rate 1 gives `mean`, with zero gradients.

    Raises:
      TypeError: x holds no real floats, or key is no PRNG key, or mean or variance no number.
      ValueError: rate outside [0, 1] or of a shape that does not fit; x has no such axis; a mean
        or variance that is not finite, or a variance that is not above 0.

    Cost: 32 random bits a feature map; about the time of reading x and writing the result. 8 bytes
      a key are kept for the backward pass, which draws the mask again.

    Source: Klambauer et al. 2017, "New Dropout Technique"; Tompson et al. 2015, section 3.2.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> y = dropjax.feature_alpha_dropout(jax.random.key(0), jnp.zeros((2, 2, 3)), 0.5)
      >>> y.min(axis=(0, 1)) == y.max(axis=(0, 1))
      Array([ True,  True,  True], dtype=bool)
    """
    x = check_floating(x)
    shared = normalize_axes(spatial_axes, x.ndim, "spatial_axes")
    return alpha_dropout(key, x, rate, shared_axes=shared, mean=mean, variance=variance)


@scheme
class FeatureAlpha(Scheme):
    """Alpha dropout of whole feature maps: one decision a feature, shared along all other axes.

    Evaluates with x: mean and variance are kept over all units, not the mean of each.
    """

    rate: Rate = 0.1

    acts_on: ClassVar = frozenset({Kind.FEATURE_MAP})
    can_act_on: ClassVar = frozenset({Kind.INPUT, Kind.EMBED, Kind.HIDDEN})
    made_for: ClassVar = "cnn"
    expected_is_mean: ClassVar = False

    def refuses(self, sites: Sequence[Site]) -> str | None:
        return no_maps(sites, "alpha")

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, site.own(shape, "feature"))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return saturate(noise, x, self.rate)
