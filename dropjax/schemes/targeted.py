"""Targeted dropout: drops the smallest weights, so that the network does not need them.

Source: Gomez, Zhang, Kamalakara et al. 2019, "Learning Sparse Networks Using Targeted Dropout"
(arXiv 1905.13678), section 3: of each column of a weight matrix the `fraction` of smallest
magnitude (or, of the matrix, the columns of smallest norm) is dropped at `rate`; nothing is
rescaled.

Differs: the number of targets is the nearest whole one. At test time we take the mean; the paper
prunes the targets, which is `dropjax.expected.targeted_dropout(w, 1.0, fraction=...)`.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Number, Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.ops.checks import as_rate, check_choice, check_floating, check_whole
from dropjax.ops.keys import check_key

Array = jax.Array

TARGETS = ("weight", "unit")


def targeted_dropout(
    key: Array,
    w: ArrayLike,
    rate: ArrayLike,
    *,
    fraction: ArrayLike = 0.5,
    target: Literal["weight", "unit"] = "weight",
) -> Array:
    """Sets each targeted weight to 0 with probability `rate`.

    Args:
      key: PRNG key, typed or raw.
      w: weights, floats (..., inputs, outputs).
      rate: probability of dropping a target, in [0, 1]; may be traced. Typical: 0.5 to 0.66.
      fraction: of the weights of each column that are targets, in [0, 1]; may be traced. Typical:
        0.5 to 0.75.
      target: "weight" for the smallest weights of each output; "unit" for the outputs whose weights
        have the smallest norm, dropped as a whole.

    Returns:
      An array of the shape and dtype of w; nothing is rescaled.

    Raises:
      TypeError: w holds no floats, or key is no PRNG key.
      ValueError: rate or fraction outside [0, 1]; w has fewer than two axes; a wrong target; the
        axis of inputs, or of units, is sharded on a mesh with Explicit axes.

    Cost: 32 random bits a weight, or a unit; sorts the weights of each column. A boolean a weight,
      or a unit, is kept for the backward pass.

    Source: Gomez et al. 2019, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> w = jnp.asarray([[1.0], [-2.0], [3.0], [-4.0]])
      >>> dropjax.targeted_dropout(jax.random.key(0), w, 1.0, fraction=0.5).reshape(-1)
      Array([ 0.,  0.,  3., -4.], dtype=float32)
    """
    key, w = check_key(key), _weights(w)
    targets = _targets(w, fraction, target)
    return _dropped(Mask.of(key, rate, _mask_shape(w.shape, target)), w, targets)


def expected(
    w: ArrayLike,
    rate: ArrayLike,
    *,
    fraction: ArrayLike = 0.5,
    target: Literal["weight", "unit"] = "weight",
) -> Array:
    """The exact expectation of `targeted_dropout`: targets times 1 - rate. Rate 1 prunes them.

    Args:
      w: weights, floats (..., inputs, outputs).
      rate: probability of dropping a target, in [0, 1].
      fraction: of the weights that are targets, in [0, 1].
      target: "weight" or "unit".

    Returns:
      An array of the shape and dtype of w.

    Raises:
      TypeError: w holds no floats.
      ValueError: rate or fraction outside [0, 1]; w has fewer than two axes; a wrong target.

    Cost: no random bits; sorts the weights of each column. A boolean a weight is kept for the
      backward pass.
    """
    w = _weights(w)
    return jnp.where(_targets(w, fraction, target), expected_drop(w, rate, "test"), w)


def _weights(w: ArrayLike) -> Array:
    w = check_floating(w, "w")
    if w.ndim < 2:
        raise ValueError(f"w must have inputs and outputs as its last axes; its shape is {w.shape}")
    return w


def _mask_shape(shape: Sequence[int], target: str) -> list[int]:
    return [*shape[:-2], 1 if target == "unit" else shape[-2], shape[-1]]


def _targets(w: Array, fraction: ArrayLike, target: str) -> Array:
    """True for targets: (..., inputs, outputs), inputs of size 1 for whole units."""
    check_choice(target, TARGETS, "target")
    size = jnp.abs(jax.lax.stop_gradient(w))
    axis = -2
    if target == "unit":
        size = jnp.sqrt(jnp.sum(jnp.square(size.astype(jnp.float32)), -2, keepdims=True))
        axis = -1
    check_whole(w, axis, "weights are sorted" if axis == -2 else "units are sorted", "w")
    rank = jnp.argsort(jnp.argsort(size, axis=axis), axis=axis)
    count = jnp.round(as_rate(fraction, (), "fraction") * rank.shape[axis])
    return rank < count.astype(rank.dtype)


def _dropped(keep: Mask, w: Array, targets: Array) -> Array:
    return drop(keep.keep() | ~targets, w, 0.0, "test")


@scheme
class Targeted(Scheme):
    """The smallest weights, or units, of dense layers and recurrent kernels.

    Args:
      rate: the probability of dropping a target, in [0, 1].
      fraction: the share of the weights or units that are targets, in [0, 1].
      target: "weight", the smallest weights of each output; "unit", the outputs whose weights have
        the smallest norm.
    """

    rate: Rate = 0.5
    fraction: Number = 0.5
    target: Literal["weight", "unit"] = "weight"

    acts_on: ClassVar = frozenset({Kind.WEIGHT, Kind.LINEAR})
    linear_in_x: ClassVar = False

    def __post_init__(self) -> None:
        super().__post_init__()
        as_rate(self.fraction, (), "fraction")

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.step, self.rate, _mask_shape(shape, self.target))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return _dropped(noise, x, _targets(x, self.fraction, self.target))

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected(x, self.rate, fraction=self.fraction, target=self.target)
