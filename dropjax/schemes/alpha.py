"""Alpha dropout: for self-normalising networks, keeps mean 0 and variance 1.

Source: Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-Normalizing Neural Networks"
(arXiv 1706.02515), section "New Dropout Technique" and appendix: a dropped unit gets SELU's
lower limit, and an affine map restores mean and variance.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, booleans, wide_dtype, wide_rate
from dropjax.ops.checks import check_floating
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused

Array = jax.Array

LIMIT = -1.7580993408473766
"""SELU's limit at minus infinity, -lambda alpha."""


@fused
def _saturated(keep: Mask, x: Array, rate: Array) -> Array:
    wide = wide_dtype(x.dtype)
    q = 1 - rate
    some = q > 0
    a = 1 / jnp.sqrt(jnp.where(some, q, 1) * (1 + rate * LIMIT**2))
    b = jnp.where(rate > 0, -a * LIMIT * rate, -0.0)  # x + 0.0 is not x where x is -0.0
    a, b = jnp.where(some, a, 0).astype(wide), jnp.where(some, b, 0).astype(wide)
    kept, dropped = (a * x.astype(wide) + b).astype(x.dtype), (a * LIMIT + b).astype(x.dtype)
    return jnp.where(booleans(keep, x), kept, dropped)


def alpha_dropout(key: Array, x: ArrayLike, rate: ArrayLike) -> Array:
    """Sets each element to SELU's lower limit with probability `rate`, then restores the moments.

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape, of mean 0 and variance 1 over the units and examples, as SELU makes
        them: mean and variance are kept for those, not for each x.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to x.
        Typical: 0.05 to 0.1.

    Returns:
      An array of the shape and dtype of x. Rate 1 gives zeros, with zero gradients.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit.

    Cost: about that of reading x and writing the result; 8 bytes a key are kept for the backward
      pass.

    Source: Klambauer et al. 2017, "New Dropout Technique". At test time x is used as it is.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.alpha_dropout(jax.random.key(0), jnp.zeros(3), 0.5)
      Array([-0.77919394, -0.77919394,  0.7791939 ], dtype=float32)
    """
    key, x = check_key(key), check_floating(x)
    return _saturated(Mask.of(key, rate, x.shape), x, wide_rate(x, rate))


@scheme
class Alpha(Scheme):
    """Alpha dropout on hidden units; elsewhere by name."""

    rate: Rate = 0.1

    acts_on: ClassVar = frozenset({Kind.HIDDEN, Kind.FEATURE_MAP})
    can_act_on: ClassVar = frozenset({Kind.INPUT, Kind.EMBED})
    expected_is_mean: ClassVar = False

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, shape)

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return _saturated(noise, x, wide_rate(x, self.rate))
