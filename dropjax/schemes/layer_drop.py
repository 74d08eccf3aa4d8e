"""Layer drop: skips whole layers of a residual network.

Source: Fan, Grave, Joulin 2020, "Reducing Transformer Depth on Demand with Structured Dropout"
(arXiv 1909.11556), section 3: a layer is skipped with one probability for all, nothing is rescaled,
and all layers (or a part of them) are used at test time.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, choose
from dropjax.ops.checks import check_floating, check_like, normalize_axes
from dropjax.ops.keys import check_key

Array = jax.Array


def layer_drop(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    previous: ArrayLike,
    batch_axes: int | Sequence[int] = (),
) -> Array:
    """The output of a layer, or with probability `rate` its input.

    The layer has been computed; `dropjax.blocks.layer_drop` takes the layer as a function and does
    not compute it where it is skipped.

    Args:
      key: PRNG key, typed or raw.
      x: the layer's output, floats of any shape.
      rate: probability of skipping the layer, in [0, 1]; may be traced. Typical: 0.2.
      previous: the layer's input, of the shape and dtype of x.
      batch_axes: axes whose members have a choice of their own; (), the paper's, for one choice
        for all.

    Returns:
      An array of the shape and dtype of x; nothing is rescaled.

    Raises:
      TypeError: x or previous holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1]; previous is not like x; x has no such axis.

    Cost: 32 random bits a decision; about the time of reading both and writing the result. 8 bytes
      a key are kept for the backward pass, which draws the mask again.

    Source: Fan et al. 2020, section 3. At test time x is used as it is, though it is not the mean;
      that is `dropjax.expected.layer_drop`.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x = jnp.ones((4, 1))
      >>> y = dropjax.layer_drop(jax.random.key(0), x, 0.5, previous=-x, batch_axes=0)
      >>> y.reshape(-1)
      Array([-1., -1.,  1., -1.], dtype=float32)
    """
    key, x, previous = check_key(key), *check_like(x, previous)
    own = normalize_axes(batch_axes, x.ndim, "batch_axes")
    shape = [size if axis in own else 1 for axis, size in enumerate(x.shape)]
    return choose(Mask.of(key, rate, shape), check_floating(x), previous)


def block(key: Array, f: Callable[[Any], Any], x: Any, rate: ArrayLike) -> Any:
    """`f(x)`, or with probability `rate` x itself, and then f is not computed.

    Users call it `dropjax.blocks.layer_drop`. The scheme cannot save the computation: a model
    computes a layer before the scheme acts on it.

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


@scheme
class LayerDrop(Scheme):
    """Skips layers, for the whole batch of a step or for each example.

    Args:
      rate: the probability of skipping a layer, in [0, 1].
      mode: "batch", one decision for the whole batch of a step; "example", one for each example.
    """

    rate: Rate = 0.2
    mode: Literal["batch", "example"] = "batch"

    acts_on: ClassVar = frozenset({Kind.LAYER})
    made_for: ClassVar = "transformer"
    expected_is_mean: ClassVar = False

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        key = keys.step if self.mode == "batch" else keys.example
        return Mask.of(key, self.rate, [1] * len(shape))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        if fallback is None:
            raise ValueError(f"layer_drop at {site.name!r} needs the layer's input as fallback=")
        return choose(noise, x, fallback)
