"""Controlled dropout: leaves out the same columns for all examples, so that products shrink.

Source: Ko, Kim, Oh, Choi 2017, "Controlled Dropout: A Different Dropout for Improving Training
Speed on Deep Neural Network" (IEEE SMC).

Differs: what is kept is scaled in training by default; with `scaling="test"` it is not, and x has
to be scaled at test time.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import SCALINGS, wide_dtype
from dropjax.ops.bits import seed_of, words
from dropjax.ops.checks import (
    check_choice,
    check_floating,
    check_known,
    check_rate_value,
    check_whole,
    normalize_axes,
)
from dropjax.ops.keys import check_key

Array = jax.Array


def controlled_dropout(
    key: Array,
    x: ArrayLike,
    rate: float,
    *,
    axis: int = -1,
    scaling: Literal["train", "test"] = "train",
) -> tuple[Array, Array]:
    """Leaves out `rate` of the columns of x, the same ones for all examples.

    The next layer multiplies what is left by the rows of its weights that belong to it,
    `y @ w[index]`: a smaller product instead of one with zeros in it.

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape, a whole batch.
      rate: the fraction of columns to leave out, in [0, 1]; their number is rounded to the nearest
        whole one, but one column at least is kept below rate 1. It decides a shape, so it must be a
        Python number, not traced. Typical: 0.5.
      axis: the axis of columns.
      scaling: "train" multiplies what is kept by the number of columns over that of kept ones, so
        that the mean of `y @ w[index]` is `x @ w`; "test" does not, and multiplies x by the
        fraction that was kept at test time instead.

    Returns:
      The columns that are kept, in their order, of the dtype of x; and their numbers, int32.
      `jnp.zeros_like(x).at[..., index].set(y)` is what dropout would return.

    Raises:
      TypeError: x holds no floats, key is no PRNG key, or rate is traced or no number.
      ValueError: rate outside [0, 1] or not one number; a wrong axis, or one that is sharded on a
        mesh with Explicit axes; a wrong scaling.

    Cost: 32 random bits a column; that of copying what is kept, and of sorting as many numbers as
      there are columns. The index is kept for the backward pass. Not under `jax.vmap` over keys:
      then each example gathers weights of its own.

    Source: Ko et al. 2017.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x, w = jnp.ones((8, 6)), jnp.ones((6, 4))
      >>> y, index = dropjax.controlled_dropout(jax.random.key(0), x, 0.5)
      >>> y.shape, (y @ w[index])[0]
      ((8, 3), Array([6., 6., 6., 6.], dtype=float32))
    """
    key, x = check_key(key), check_floating(x)
    (axis,) = normalize_axes(axis, x.ndim, "axis")
    check_choice(scaling, SCALINGS, "scaling")
    if isinstance(rate, Tracer):
        raise TypeError("rate decides how many columns are kept, and so must not be traced")
    check_rate_value(rate)
    if np.ndim(rate):
        raise ValueError(f"rate must be one number, got {rate!r}")
    check_known(x.shape, [axis], "it decides how many columns are kept")
    check_whole(x, axis, "columns are chosen")
    columns = x.shape[axis]
    kept = columns - int(columns * float(rate) + 0.5)
    if float(rate) < 1:
        kept = max(kept, min(columns, 1))  # without any column the mean could not be right
    # The columns with the least words: each set of `kept` is as likely as any other.
    index = jnp.sort(jnp.argsort(words(seed_of(key), (columns,)))[:kept]).astype(jnp.int32)
    y = jnp.take(x, index, axis=axis)
    if scaling == "train" and kept:
        wide = wide_dtype(x.dtype)
        y = (y.astype(wide) * jnp.asarray(columns / kept, wide)).astype(x.dtype)
    return y, index
