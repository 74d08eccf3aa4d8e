"""Drop-path of FractalNet: a join averages those of its columns that survive.

Source: Larsson, Maire, Shakhnarovich 2017, "FractalNet: Ultra-Deep Neural Networks without
Residuals" (arXiv 1605.07648), section 3: local sampling keeps at least one input of each join,
global sampling keeps one column of the whole network.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import Mask, wide_dtype
from dropjax.ops.checks import (
    as_rate,
    check_choice,
    check_floating,
    check_known,
    normalize_axes,
)
from dropjax.ops.keys import check_key, derive
from dropjax.ops.lazy import fused
from dropjax.ops.uniform import below

Array = jax.Array


@fused
def _mean_of(keep: Array, xs: Array) -> Array:
    wide = wide_dtype(xs.dtype)
    kept = jnp.where(keep, xs.astype(wide), jnp.zeros((), wide))
    return (kept.sum(axis=0) / keep.sum(axis=0).astype(wide)).astype(xs.dtype)


def fractal_join(
    key: Array,
    xs: ArrayLike,
    rate: ArrayLike | None,
    *,
    batch_axes: int | Sequence[int],
    mode: Literal["local", "global"] = "local",
    columns: int | None = None,
) -> Array:
    """The mean of the columns that survive at a join.

    Args:
      key: PRNG key, typed or raw. With mode "local" give each join a key of its own. With "global"
        give all joins of a network the same key, so that all keep the same column. The paper
        trains half of the examples with each mode: draw once for the network which one it is, and
        use `jnp.where(whole, global, local)` at every join.
      xs: (columns, ...), the inputs of the join, floats. For mode "global" the deepest column,
        which is at every join, comes first.
      rate: probability of dropping an input, in [0, 1]; may be traced, or an array that
        broadcasts to the decisions, which have size 1 along all but the batch axes. None with mode
        "global", which has no rate. Typical: 0.15.
      batch_axes: the axes of xs that hold examples, 1 for an ordinary batch; () for a single
        example, under `jax.vmap` over keys, or for one decision for all.
      mode: "local" drops each input independently; if that drops all, one of them is kept, each
        with equal probability. "global" keeps one column.
      columns: of the whole network, of which one is kept with mode "global"; by default as many
        as xs has. A join that the kept column does not reach is on no path to the output; its
        last column is returned.

    Returns:
      An array of the shape of xs less the first axis, and of its dtype. The expectation over the
      noise is exactly the mean of all columns, `xs.mean(axis=0)`, wherever all columns are at the
      join.

    Raises:
      TypeError: xs holds no floats, columns is no integer, or key is no PRNG key.
      ValueError: rate outside [0, 1], of a shape that does not fit, missing or not wanted; a wrong
        axis or mode; fewer columns than xs has.

    Cost: 32 random bits a column and example, and 32 an example, or with mode "global" these alone;
      about the time of reading xs and writing the result: the columns have been computed. A byte a
      column and example, which survive, is kept for the backward pass.

    Source: Larsson et al. 2017, section 3.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dropjax.blocks import fractal_join
      >>> xs = jnp.asarray([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
      >>> fractal_join(jax.random.key(0), xs, 0.5, batch_axes=1)
      Array([2., 1., 3.], dtype=float32)
    """
    key, xs = check_key(key), check_floating(xs, "xs")
    check_choice(mode, ("local", "global"), "mode")
    check_known(xs.shape, range(min(xs.ndim, 1)), "it is the number of columns")
    if not xs.ndim or not len(xs):
        raise ValueError(f"xs must be (columns, ...) with at least one column, got {xs.shape}")
    own = normalize_axes(batch_axes, xs.ndim, "batch_axes")
    if 0 in own:
        raise ValueError("batch_axes names axis 0, that of the columns")
    each = tuple(size if axis in own else 1 for axis, size in enumerate(xs.shape))
    number = jax.lax.broadcasted_iota(jnp.int32, (len(xs), *each[1:]), 0)
    if mode == "global":
        if rate is not None:
            raise ValueError(f'mode="global" keeps one column and has no rate; got rate={rate!r}')
        total = len(xs) if columns is None else columns
        if not isinstance(total, (int, np.integer)) or isinstance(total, bool):
            raise TypeError(f"columns must be a number of columns, got {columns!r}")
        if total < len(xs):
            raise ValueError(f"columns={columns}, but xs has {len(xs)}")
        chosen = below(derive(key, "column"), each, total)
        return _mean_of(number == jnp.minimum(chosen, len(xs) - 1), xs)
    if columns is not None:
        raise ValueError(f'columns={columns} is for mode="global"')
    if rate is None:
        raise ValueError('mode="local" needs a rate')
    checked = as_rate(rate, each)
    keep = Mask.of(derive(key, "inputs"), checked, number.shape).keep()
    spared = number == below(derive(key, "spared"), each, len(xs))
    return _mean_of(keep | (spared & ~keep.any(axis=0, keepdims=True)), xs)
