"""Alpha dropout: for self-normalising networks, keeps mean 0 and variance 1.

Source: Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-Normalizing Neural Networks"
(arXiv 1706.02515), section "New Dropout Technique" and appendix: a dropped unit gets SELU's
lower limit, and an affine map restores mean and variance.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, booleans, wide_dtype, wide_rate
from dropjax.ops.checks import check_real, normalize_axes
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused

Array = jax.Array

LIMIT = -1.7580993408473766
"""SELU's limit at minus infinity, -lambda alpha."""


def saturate(
    keep: Mask, x: Array, rate: ArrayLike, mean: ArrayLike = 0.0, variance: ArrayLike = 1.0
) -> Array:
    """`x` where `keep`, else SELU's limit; then mapped back to this mean and variance.

    Args:
      keep: broadcasts to `x`.
      x: floats.
      rate: the rate that `keep` was drawn at; broadcasts to `x`.
      mean, variance: of `x`, and of what is returned.
    """
    mean, variance = _moment(mean, "mean", x.dtype), _moment(variance, "variance", x.dtype)
    return _saturated(keep, x, wide_rate(x, rate), mean, variance)


def _moment(value: ArrayLike, name: str, dtype: jnp.dtype) -> Array:
    if isinstance(value, bool) or not isinstance(
        value, (int, float, np.generic, np.ndarray, Array)
    ):
        raise TypeError(f"{name} must be a number, got {value!r}")
    array = jnp.asarray(value)
    if array.ndim or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be one real number, got {value!r}")
    if not isinstance(value, Tracer):
        least = 0 if name == "variance" else -np.inf
        if not least < float(value) < np.inf:
            positive = " above 0" if name == "variance" else ""
            raise ValueError(f"{name} must be a finite number{positive}, got {value!r}")
    return jax.lax.stop_gradient(array.astype(jnp.finfo(wide_dtype(dtype)).dtype))


@fused
def _saturated(keep: Mask, x: Array, rate: Array, mean: Array, variance: Array) -> Array:
    # With x of these moments, the mixture has mean q mean + p limit and variance
    # q (variance + p (limit - mean)**2).
    wide = wide_dtype(x.dtype)
    q = 1 - rate
    some = q > 0
    a = 1 / jnp.sqrt(jnp.where(some, q, 1) * (1 + rate * (LIMIT - mean) ** 2 / variance))
    a = jnp.where(some, a, 0)
    b = mean - a * (q * mean + rate * LIMIT)
    b = jnp.where(rate > 0, b, -0.0)  # x + 0.0 is not x where x is -0.0
    a, b = a.astype(wide), b.astype(wide)
    kept, dropped = (a * x.astype(wide) + b).astype(x.dtype), (a * LIMIT + b).astype(x.dtype)
    return jnp.where(booleans(keep, x), kept, dropped)


def alpha_dropout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    shared_axes: int | Sequence[int] = (),
    mean: ArrayLike = 0.0,
    variance: ArrayLike = 1.0,
) -> Array:
    """Sets each element to SELU's lower limit with probability `rate`, then restores the moments.

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape, with mean 0 and variance 1 over units and examples, as SELU makes
        them. These two moments are kept, not the mean of each element.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask. Typical: 0.05 to 0.1.
      shared_axes: axes along which one decision is shared.
      mean: of x, where it is not 0; one number, which may be traced and has no gradient.
      variance: of x, where it is not 1; above 0. Both are kept.

    Returns:
      An array of the shape and dtype of x. Rate 1 gives `mean`, with zero gradients.

    Raises:
      TypeError: x holds no real floats, or key is no PRNG key, or mean or variance no number.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong axis; a mean or
        variance that is not finite, or a variance that is not above 0.

    Cost: 32 random bits an element of the mask; about the time of reading x and writing the result.
      8 bytes a key are kept for the backward pass, which draws the mask again.

    Source: Klambauer et al. 2017, "New Dropout Technique". At test time x is used as it is.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x = dropjax.alpha_dropout(jax.random.key(0), jnp.zeros(3), 0.5)
      >>> [round(float(value), 3) for value in x]
      [-0.779, -0.779, 0.779]
    """
    key, x = check_key(key), check_real(x)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    return saturate(Mask.of(key, rate, shape), x, rate, mean, variance)


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
        return saturate(noise, x, self.rate)
