"""LayerDrop: skips a whole layer.

Source: Fan, Grave, Joulin 2020, "Reducing Transformer Depth on Demand with Structured Dropout"
(arXiv 1909.11556), section 3.2: nothing is rescaled, and at test time every layer is there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import Mask
from dropjax.ops.keys import check_key

Array = jax.Array


def layer_drop(key: Array, f: Callable[[Any], Any], x: Any, rate: ArrayLike) -> Any:
    """`f(x)`, or with probability `rate` x itself, and then f is not computed.

    Args:
      key: PRNG key, typed or raw; noise inside f needs a key of its own. Under `jax.pmap` or
        `jax.shard_map` give all devices the same key if they are to skip the same layers.
      f: the layer, its residual connection included.
      x: what it reads, an array or a tree of arrays.
      rate: probability of skipping, in [0, 1]; a number, may be traced. Typical: 0.2.

    Returns:
      What f returns, which must be like x; nothing is rescaled. At test time use `f(x)`.

    Raises:
      TypeError: key is no PRNG key.
      ValueError: rate outside [0, 1] or no scalar; f returns something of another shape or dtype.

    Cost: 32 random bits; that of f, or nothing if it is skipped. For the backward pass the decision
      is kept, and what f keeps. Under `jax.vmap` over keys there is a decision for each example,
      and f is computed for all of them.

    Source: Fan et al. 2020, section 3.2.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dropjax.blocks import layer_drop
      >>> keys = [jax.random.key(i) for i in range(4)]
      >>> [float(layer_drop(key, lambda x: 2 * x, jnp.float32(1), 0.5)) for key in keys]
      [1.0, 2.0, 2.0, 1.0]
    """
    keep = Mask.of(check_key(key), rate, ()).keep()
    x = jax.tree.map(jnp.asarray, x)
    described = jax.tree.map(_described, (x, jax.eval_shape(f, x)))
    if described[0] != described[1]:
        raise ValueError(f"f must return what is like x, {described[0]}; it gives {described[1]}")
    return jax.lax.cond(keep, f, lambda x: x, x)


def _described(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
