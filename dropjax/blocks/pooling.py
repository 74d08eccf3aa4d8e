"""Max-pooling dropout: drops in each window before its maximum is taken.

Source: Wu, Gu 2015, "Towards Dropout Training for Convolutional Neural Networks" (arXiv
1512.00242), section 3: maxima of what is kept in training, and at test time the mean over masks,
which they call probabilistic weighted pooling.

Differs: the paper's activations are not negative. Here any are, and the mean is exact for them too.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import Mask, drop, wide_dtype, wide_rate
from dropjax.ops.checks import check_known, check_real, normalize_axes
from dropjax.ops.keys import check_key

Array = jax.Array


def max_pool_dropout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    size: int = 2,
    spatial_axes: int | Sequence[int] = (-3, -2),
) -> Array:
    """The maximum of each window after its elements are set to 0 with probability `rate`.

    Args:
      key: PRNG key, typed or raw.
      x: floats, (..., height, width, channels) for the default axes.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to x.
        Typical: 0.5.
      size: of a window along each spatial axis, and its stride.
      spatial_axes: the axes that are pooled.

    Returns:
      An array of x's dtype whose spatial axes are `size` times shorter; a remainder is left out.
      Nothing is rescaled. Its expectation is `weighted_max_pool`.

    Raises:
      TypeError: x holds no real floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; size less than 1 or more than
        an axis; x has no such axis.

    Cost: 32 random bits an element of x; that of dropout and of a maximum over windows. x after
      dropout and the maxima are kept for the backward pass.

    Source: Wu & Gu 2015, section 3.1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dropjax.blocks import max_pool_dropout
      >>> x = jnp.arange(1.0, 9.0).reshape(2, 4, 1)
      >>> max_pool_dropout(jax.random.key(0), x, 0.5).reshape(-1)
      Array([5., 7.], dtype=float32)
    """
    key, x = check_key(key), check_real(x)
    axes = _check_windows(x, size, spatial_axes)
    kept = drop(Mask.of(key, rate, x.shape), x, rate, "test")
    return _windows(kept, size, axes).max(axis=-1)


def weighted_max_pool(
    x: ArrayLike,
    rate: ArrayLike,
    *,
    size: int = 2,
    spatial_axes: int | Sequence[int] = (-3, -2),
) -> Array:
    """The exact expectation of `max_pool_dropout`: for evaluation.

    The i-th smallest of n positive elements is the maximum if it is kept and all larger ones are
    dropped, so with probability (1 - rate) rate**(n - i).

    Args:
      x: floats, (..., height, width, channels) for the default axes.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to x with
        size 1 along the spatial axes.
      size: of a window along each spatial axis, and its stride.
      spatial_axes: the axes that are pooled.

    Returns:
      An array like that of `max_pool_dropout`.

    Raises:
      TypeError: x holds no real floats.
      ValueError: rate outside [0, 1] or of a shape that does not fit; size less than 1 or more than
        an axis; x has no such axis.

    Cost: no random bits; that of sorting each window twice. 12 bytes an element of x and 8 an
      output are kept for the backward pass.

    Source: Wu & Gu 2015, section 3.2.

    Example:
      >>> import jax.numpy as jnp
      >>> from dropjax.blocks import weighted_max_pool
      >>> weighted_max_pool(jnp.arange(1.0, 5.0).reshape(2, 2, 1), 0.5).reshape(-1)
      Array([3.0625], dtype=float32)
    """
    x = check_real(x)
    axes = _check_windows(x, size, spatial_axes)
    wide = wide_dtype(x.dtype)
    shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    p = wide_rate(jnp.zeros(shape, x.dtype), rate).astype(wide)
    p = jnp.broadcast_to(p, shape)[..., None]
    windows = _windows(x, size, axes).astype(wide)
    n = windows.shape[-1]
    # How many are larger. Nothing is sorted that has a gradient: on an Explicit mesh JAX has none.
    descending = jnp.argsort(-jax.lax.stop_gradient(windows), axis=-1)
    larger = jnp.argsort(descending, axis=-1)
    weights = (1 - p) * jnp.power(p, larger.astype(wide))
    # Of elements that are all negative the largest is the maximum only if nothing is dropped.
    below_0 = jnp.minimum(jnp.max(windows, axis=-1), 0) * jnp.power(1 - p.squeeze(-1), n)
    mean = jnp.sum(weights * jnp.maximum(windows, 0), axis=-1) + below_0
    return mean.astype(x.dtype)


def _check_windows(x: Array, size: int, spatial_axes: int | Sequence[int]) -> tuple[int, ...]:
    axes = normalize_axes(spatial_axes, x.ndim, "spatial_axes")
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number, at least 1; got {size!r}")
    check_known(x.shape, axes, "it decides how many windows there are")
    if any(x.shape[axis] < size for axis in axes):
        raise ValueError(f"size={size} is larger than an axis of x, of shape {x.shape}")
    return axes


def _windows(x: Array, size: int, axes: Sequence[int]) -> Array:
    """x with the elements of each window along a new last axis."""
    for axis in axes:
        count = x.shape[axis] // size
        x = jax.lax.slice_in_dim(x, 0, count * size, axis=axis)
        x = x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
        x = jnp.moveaxis(x, axis + 1, -1)
    return x.reshape(*x.shape[: x.ndim - len(axes)], size ** len(axes))
