"""Uout: multiplicative uniform noise.

Source: Li, Chen, Hu, Yang 2019, "Understanding the Disharmony between Dropout and Batch
Normalization by Variance Shift" (CVPR; arXiv 1801.05134), the section on a more variance-stable
form of dropout.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.bits import sharding_like
from dropjax.ops.checks import as_spread, check_floating, normalize_axes
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused
from dropjax.ops.uniform import Uniform

Array = jax.Array


def uout(
    key: Array, x: ArrayLike, width: ArrayLike, *, shared_axes: int | Sequence[int] = ()
) -> Array:
    """Multiplies each element by a number that is uniform between 1 - width and 1 + width.

    The noise has the variance width**2 / 3, so that before batch normalisation it shifts variances
    far less than dropout does: at width 0.1 by 1 / 300.

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape.
      width: half of the width of the distribution, in [0, 1]; may be traced, or an array that
        broadcasts to x; has no gradient. Typical: 0.1. It is no probability.
      shared_axes: axes along which one number is shared.

    Returns:
      An array of the shape and dtype of x, with mean x; x itself where width is 0.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key, or width no number.
      ValueError: width outside [0, 1] or of a shape that does not fit; a wrong axis.

    Cost: 32 random bits an element of the noise; about the time of reading x and writing the
      result. 8 bytes a key are kept for the backward pass, which draws the noise again.

    Source: Li et al. 2019. At test time x is used as it is.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.uout(jax.random.key(0), jnp.ones(3), 0.1).round(1).shape
      (3,)
    """
    key, x = check_key(key), check_floating(x)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    wide = as_spread(width, x.shape, "width", dtype=jnp.finfo(wide_dtype(x.dtype)).dtype)
    if not isinstance(width, Tracer) and (np.asarray(width) > 1).any():
        raise ValueError(f"width must be at most 1, or the factor changes signs; got {width!r}")
    return _scaled(Uniform.of(key, shape), x, wide)


@fused
def _scaled(noise: Uniform, x: Array, width: Array) -> Array:
    wide = wide_dtype(x.dtype)
    factor = 1 + width.astype(wide) * noise.values(sharding_like(x, noise.shape)).astype(wide)
    return (x.astype(wide) * factor).astype(x.dtype)
