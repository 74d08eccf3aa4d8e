"""Layer drop: skips whole layers of a residual network.

Source: Fan, Grave, Joulin 2020, "Reducing Transformer Depth on Demand with Structured Dropout"
(arXiv 1909.11556), section 3: a layer is skipped with one probability for all, nothing is rescaled,
and all layers (or a part of them) are used at test time.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
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
    """What a layer returns, or with probability `rate` what it was given.

    The layer has been computed; `dropjax.blocks.layer_drop` takes the layer itself and saves that.

    Args:
      key: PRNG key, typed or raw.
      x: what the layer returns, floats of any shape.
      rate: probability of skipping the layer, in [0, 1]; may be traced. Typical: 0.2.
      previous: what the layer was given, of the shape and dtype of x.
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
