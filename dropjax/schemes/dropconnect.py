"""DropConnect: Bernoulli dropout on weights.

Source: Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of Neural Networks using
DropConnect" (ICML), section 3.

Differs: by default one mask serves the whole batch in a step, scaled in training; `mode="example"`
draws the paper's mask for each example and `scaling="test"` leaves the scale to test time, where
weights are multiplied by the keep probability (the mean of the paper's Gaussian). Biases are kept;
the paper masks them too.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.ops.checks import check_floating
from dropjax.schemes.bernoulli import dropout
from dropjax.schemes.bernoulli import expected as expected_dropout

Array = jax.Array


def dropconnect(
    key: Array, w: ArrayLike, rate: ArrayLike, *, scaling: Literal["train", "test"] = "train"
) -> Array:
    """Sets each weight to 0 with probability `rate`.

    Args:
      key: PRNG key, typed or raw. One call makes one mask: call it once for a batch, or under
        `jax.vmap` over keys for a mask an example.
      w: weights, floats of any shape.
      rate: probability of dropping a weight, in [0, 1]; may be traced, or an array that broadcasts
        to w. Typical: 0.5.
      scaling: "train" divides what is kept by 1 - rate; "test" does not, and
        `dropjax.expected.dropconnect` multiplies by 1 - rate instead.

    Returns:
      An array of the shape and dtype of w.

    Raises:
      TypeError: w holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong scaling.

    Cost: about that of reading w and writing the result; under `jax.vmap` over keys, a copy of w
      for each example.

    Source: Wan et al. 2013, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> w = dropjax.dropconnect(jax.random.key(0), jnp.ones((2, 2)), 0.5)
      >>> w.shape
      (2, 2)
    """
    return dropout(key, check_floating(w, "w"), rate, scaling=scaling)


def expected(
    w: ArrayLike, rate: ArrayLike, *, scaling: Literal["train", "test"] = "train"
) -> Array:
    """The exact expectation of `dropconnect`: w, or (1 - rate) * w if scaling is "test".

    Args:
      w: weights, floats of any shape.
      rate: probability of dropping, in [0, 1].
      scaling: as `dropconnect` was called.

    Returns:
      An array of the shape and dtype of w.

    Raises:
      TypeError: w holds no floats.
      ValueError: rate outside [0, 1]; a wrong scaling.
    """
    return expected_dropout(check_floating(w, "w"), rate, scaling=scaling)


@scheme
class DropConnect(Scheme):
    """DropConnect on dense layers and recurrent kernels."""

    rate: Rate = 0.5
    mode: Literal["batch", "example"] = "batch"
    scaling: Literal["train", "test"] = "train"

    acts_on: ClassVar = frozenset({Kind.WEIGHT, Kind.LINEAR})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.step if self.mode == "batch" else keys.example, self.rate, shape)

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate, self.scaling)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate, self.scaling)
