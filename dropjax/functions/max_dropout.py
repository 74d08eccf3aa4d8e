"""MaxDropout: drops the largest activations. Nothing about it is random.

Source: Santos, Colombo, Roder, Papa 2020, "MaxDropout: Deep Neural Network Regularization Based on
Maximum Output Values" (arXiv 2007.13723).

Differs: each example has a threshold of its own. The authors' code has one for the whole batch, so
that an example's dropout depends on the others; that is `batch_axes=()`. Where all activations are
equal it divides by 0; here none of them is dropped.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import drop, wide_dtype
from dropjax.ops.checks import as_rate, check_real, normalize_axes

Array = jax.Array


def max_dropout(x: ArrayLike, rate: ArrayLike, *, batch_axes: int | Sequence[int]) -> Array:
    """Sets to 0 what lies in the upper `rate` of the range of an example's activations.

    It takes no key, for it draws nothing.

    Args:
      x: activations, floats of any shape.
      rate: the part of the range that is dropped, from the largest value downwards, in [0, 1]; one
        number, which may be traced. It is not the fraction of values that are dropped, which is far
        smaller for activations with a long tail. Typical: 0.3.
      batch_axes: the axes that hold examples, 0 for an ordinary batch; () for a single example, or
        for one threshold for all.

    Returns:
      An array of the shape and dtype of x, not rescaled. Rate 0 gives x; rate 1 gives 0 for all but
      the least value of an example. The gradient is 0 where x was dropped and 1 elsewhere.

    Raises:
      TypeError: x holds no real floats.
      ValueError: rate outside [0, 1] or not one number; a wrong axis.

    Cost: no random bits; x is read twice. A boolean an element is kept for the backward pass.

    Source: Santos et al. 2020. At test time x is used as it is.

    Example:
      >>> import jax.numpy as jnp, dropjax
      >>> x = jnp.array([[0.0, 1.0, 2.0, 4.0], [0.0, 0.1, 0.2, 0.3]])
      >>> dropjax.max_dropout(x, 0.4, batch_axes=0)
      Array([[0. , 1. , 2. , 0. ],
             [0. , 0.1, 0. , 0. ]], dtype=float32)
    """
    x = check_real(x)
    own = normalize_axes(batch_axes, x.ndim, "batch_axes")
    rate = as_rate(rate, (), dtype=jnp.finfo(wide_dtype(x.dtype)).dtype)
    if not x.size:
        return x
    axes = tuple(axis for axis in range(x.ndim) if axis not in own)
    wide = jax.lax.stop_gradient(x).astype(wide_dtype(x.dtype))
    least = wide.min(axes, keepdims=True)
    # Compared without dividing by the range, which may be 0.
    large = wide - least > (1 - rate) * (wide.max(axes, keepdims=True) - least)
    return drop(~large, x, 0.0, "test")
