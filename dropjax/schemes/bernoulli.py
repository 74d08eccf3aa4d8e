"""Bernoulli dropout.

Source: Hinton, Srivastava, Krizhevsky, Sutskever, Salakhutdinov 2012 (arXiv 1207.0580);
Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout", JMLR 15, section 4
(training) and section 10 (scaling at training time).

Differs: the paper multiplies weights by the keep probability at test time; by default we divide
activations by it in training ("inverted" dropout). `scaling="test"` is the paper's form, with the
activations, not the weights, multiplied; the two differ by a rescaling of the weights.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop, keep_mask
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.ops.keys import check_key

Array = jax.Array


def dropout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    shared_axes: int | Sequence[int] = (),
    scaling: Literal["train", "test"] = "train",
    bits: Literal[32] | None = None,
) -> Array:
    """Bernoulli dropout: sets each element to 0 with probability `rate`.

    Args:
      key: PRNG key, typed or raw. Under `jax.vmap` with one key for all, every example gets the
        same mask: map over keys too. A key that is stored makes its mask again: "consistent
        dropout" (Hausknecht, Wagener 2022, arXiv 2202.11818) needs no more.
      x: floats of any shape.
      rate: probability of dropping, in [0, 1]: a number, or an array that broadcasts to the mask.
        May be traced, and is then not range-checked; has no gradient. Typical: 0.5 for hidden
        units, 0.2 for inputs.
      shared_axes: axes along which one decision is shared.
      scaling: "train" divides what is kept by 1 - rate, so that the mean is x; "test" does not,
        and `dropjax.expected.dropout` multiplies by 1 - rate instead.
      bits: 32 for the masks of Haiku, Equinox and Flax's nnx; see `dropjax.keep_mask`.

    Returns:
      An array of the shape and dtype of x. Rate 1 gives zeros, with zero gradients.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong axis, scaling or
        bits.

    Cost: 32 random bits an element of the mask, made inside the loop that uses them; about the time
      of reading x and writing the result. For the backward pass the mask is drawn again: 8 bytes
      are kept for each key, and nothing for each element; with bits=32 the mask is kept, a byte an
      element.

    Source: Srivastava et al. 2014, sections 4 and 10.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.dropout(jax.random.key(0), jnp.ones(4), 0.5)
      Array([0., 0., 2., 0.], dtype=float32)
    """
    key, x = check_key(key), check_floating(x)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    keep = Mask.of(key, rate, shape) if bits is None else keep_mask(key, rate, shape, bits=bits)
    return drop(keep, x, rate, scaling)


def expected(
    x: ArrayLike, rate: ArrayLike, *, scaling: Literal["train", "test"] = "train"
) -> Array:
    """The exact expectation of `dropout`: x, or (1 - rate) * x if scaling is "test".

    At rate 1, where `dropout` gives zeros, it is 0 too.

    Args:
      x: floats of any shape.
      rate: probability of dropping, in [0, 1].
      scaling: as `dropout` was called.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no floats.
      ValueError: rate outside [0, 1]; a wrong scaling.

    Cost: no random bits; at most a product an element. Nothing but the rate is kept for the
      backward pass.
    """
    return expected_drop(check_floating(x), rate, scaling)


@scheme
class Bernoulli(Scheme):
    """Bernoulli dropout on hidden units and feature maps; elsewhere by name.

    Args:
      scaling: "train" divides what is kept by 1 - rate, in training; "test" multiplies by 1 - rate
        in evaluation instead.
    """

    rate: Rate = 0.5
    scaling: Literal["train", "test"] = "train"

    acts_on: ClassVar = frozenset({Kind.HIDDEN, Kind.FEATURE_MAP})
    can_act_on: ClassVar = frozenset(
        {Kind.INPUT, Kind.EMBED, Kind.RECURRENT, Kind.BRANCH, Kind.ATTENTION}
    )

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, shape)

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate, self.scaling)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate, self.scaling)
