"""Attention dropout: drops attention weights after the softmax.

Source: Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762), whose code drops
attention weights and scales what is kept; Lin, Liu, He et al. 2019, "DropAttention" (arXiv
1907.11065): whole keys (`shared="query"`), and rows that sum to 1 again (`scaling="row"`).

Differs: each example and each head has a mask of its own; Flax shares one among all of them unless
told otherwise. DropAttention takes no gradient through the row's sum; we take the true one.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, booleans, drop, expected_drop, wide_dtype
from dropjax.ops.checks import check_choice, check_floating, normalize_axes
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused

Array = jax.Array

SCALINGS = ("train", "row")


def attention_dropout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    shared_axes: int | Sequence[int] = (),
    scaling: Literal["train", "row"] = "train",
) -> Array:
    """Dropout on attention weights.

    Args:
      key: PRNG key, typed or raw.
      x: attention weights after the softmax, floats (..., queries, keys).
      rate: probability of dropping a weight, in [0, 1]; may be traced, or an array that broadcasts
        to the mask. Typical: 0.1.
      shared_axes: axes along which one decision is shared: -2 drops whole keys; the axes of heads
        and examples give Flax's `broadcast_dropout`.
      scaling: "train" divides what is kept by 1 - rate; "row" scales each row to its sum before.

    Returns:
      An array of the shape and dtype of x, with mean x for scaling="train". A row of which nothing
      is kept is 0.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong axis or scaling.

    Cost: 32 random bits an element of the mask; about the time of reading x and writing the result.
      8 bytes a key are kept for the backward pass, which draws the mask again; with scaling="row" x
      is kept too.

    Source: Vaswani et al. 2017; for the options Lin et al. 2019, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x = jnp.full((1, 4), 0.25)
      >>> dropjax.attention_dropout(jax.random.key(0), x, 0.5, scaling="row")
      Array([[0., 0., 1., 0.]], dtype=float32)
    """
    key, x = check_key(key), check_floating(x)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    return _dropped(Mask.of(key, rate, shape), x, rate, scaling)


def _dropped(keep: Mask, x: Array, rate: ArrayLike, scaling: str) -> Array:
    check_choice(scaling, SCALINGS, "scaling")
    return drop(keep, x, rate) if scaling == "train" else _scaled_by_row(keep, x)


@fused
def _scaled_by_row(keep: Mask, x: Array) -> Array:
    wide = x.astype(wide_dtype(x.dtype))
    mask = booleans(keep, x)
    kept = jnp.where(mask, wide, jnp.zeros((), wide.dtype))
    # In units of the largest that is kept: the gradient divides by the square of their sum, which
    # is 0 in float32 where the softmax was sharp and its peak is dropped.
    top = jnp.abs(jax.lax.stop_gradient(kept)).max(-1, keepdims=True, initial=0)
    kept = kept / jnp.where(top >= jnp.finfo(wide.dtype).tiny, top, 1).astype(wide.dtype)
    of_row, of_kept = (v.sum(-1, keepdims=True) for v in (wide, kept))
    some = of_kept != 0
    scale = jnp.where(some, of_row / jnp.where(some, of_kept, jnp.ones_like(of_kept)), 0)
    # Where nothing is dropped the sums are equal only up to rounding of their own.
    all_kept = jnp.broadcast_to(mask, x.shape).all(-1, keepdims=True)
    return jnp.where(all_kept, x, (kept * scale).astype(x.dtype))


@scheme
class Attention(Scheme):
    """Attention weights, each for itself; one decision for all heads, or for all queries.

    With `scaling="row"` it evaluates with x: a row of which nothing is kept is 0, so x is not the
    mean.

    Args:
      shared: what shares one decision: "none", each weight has its own; "head", all heads; "query",
        all queries, so that whole keys are dropped.
      scaling: "train" divides what is kept by 1 - rate; "row" scales each row of weights so that it
        has the same sum as before.
    """

    rate: Rate = 0.1
    shared: Literal["none", "head", "query"] = "none"
    scaling: Literal["train", "row"] = "train"

    acts_on: ClassVar = frozenset({Kind.ATTENTION})
    made_for: ClassVar = "transformer"

    @property
    def linear_in_x(self) -> bool:  # type: ignore[override]
        return self.scaling == "train"

    @property
    def expected_is_mean(self) -> bool:  # type: ignore[override]
        return self.scaling == "train"

    def refuses(self, sites: Sequence[Site]) -> str | None:
        if all("query" in site.axes and site.axes[-1] == "key" for site in sites):
            return None
        return "a site it acts on has no axes of queries and, last, keys"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, site.shared(shape, self.shared))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return _dropped(noise, x, self.rate, self.scaling)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate) if self.scaling == "train" else x
