"""Standout, or adaptive dropout: the less active a unit is, the more likely it is dropped.

Source: Ba, Frey 2013, "Adaptive dropout for training deep neural networks" (NeurIPS), sections 2
and 3: a unit is kept with probability sigmoid(slope * a + offset), a its pre-activation, which is
the paper's approximation of a belief network that shares the weights; at test time the unit is
multiplied by that probability.

Differs: the probability is computed from what the unit returns. After a ReLU that is the same:
where the two differ the unit is 0 whether it is kept or not.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Number, Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Undecided, booleans, wide_dtype
from dropjax.ops.checks import as_rate, check_number_value, check_real, fitted
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused

Array = jax.Array


def standout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike = 1.0,
    *,
    slope: ArrayLike = 1.0,
    offset: ArrayLike = 0.0,
) -> Array:
    """Sets each element to 0 with probability `rate` * (1 - sigmoid(slope * x + offset)).

    Args:
      key: PRNG key, typed or raw.
      x: what units after a ReLU return, floats of any shape.
      rate: multiplies the probability of dropping, in [0, 1]; may be traced, or an array that
        broadcasts to x. The paper's is 1.
      slope: how much activity counts; may be traced, or an array that broadcasts to x. At 0 it is
        dropout at one rate.
      offset: the larger, the more is kept; may be traced, or an array that broadcasts to x.

    Returns:
      An array of the shape and dtype of x; nothing is rescaled. Its expectation is
      `dropjax.expected.standout`. The gradient is that for the mask as it fell.

    Raises:
      TypeError: x holds no real floats, or key is no PRNG key, or slope or offset no number.
      ValueError: rate outside [0, 1], slope or offset not finite, or of a shape that does not fit.

    Cost: 32 random bits and a sigmoid an element, forward and again backward; for the backward pass
      x is kept.

    Source: Ba & Frey 2013, sections 2 and 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.standout(jax.random.key(0), jnp.asarray([1.0, 9.0, 9.0, 1.0]))
      Array([0., 9., 9., 0.], dtype=float32)
    """
    key, x = check_key(key), check_real(x)
    return _dropped(Undecided.of(key, x.shape), x, rate, slope, offset)


def expected(
    x: ArrayLike, rate: ArrayLike = 1.0, *, slope: ArrayLike = 1.0, offset: ArrayLike = 0.0
) -> Array:
    """The exact expectation of `standout`: x times the probability that it is kept.

    Args:
      x: what units after a ReLU return, floats of any shape.
      rate: multiplies the probability of dropping, in [0, 1].
      slope: how much activity counts.
      offset: the larger, the more is kept.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no real floats, or slope or offset no number.
      ValueError: rate outside [0, 1], slope or offset not finite, or of a shape that does not fit.

    Cost: no random bits; a sigmoid an element, forward and again backward; x is kept for the
      backward pass.
    """
    x = check_real(x)
    return _weighed(x, *_checked(x, rate, slope, offset))


@fused
def _weighed(x: Array, rate: Array, slope: Array, offset: Array) -> Array:
    wide = wide_dtype(x.dtype)
    keep = (1 - _rate_of(x, rate, slope, offset)).astype(wide)
    return (x.astype(wide) * keep).astype(x.dtype)


def _checked(
    x: Array, rate: ArrayLike, slope: ArrayLike, offset: ArrayLike
) -> tuple[Array, Array, Array]:
    """Float32, each of rank 0 or of x's."""
    for name, value in (("slope", slope), ("offset", offset)):
        check_number_value(value, name)
    return (
        as_rate(rate, x.shape),
        fitted(slope, x.shape, "slope", jnp.float32),
        fitted(offset, x.shape, "offset", jnp.float32),
    )


def _rate_of(x: Array, rate: Array, slope: Array, offset: Array) -> Array:
    """Each element's probability of being dropped, float32; the mask is a function of it."""
    return rate * jax.nn.sigmoid(-(slope * x.astype(jnp.float32) + offset))


def _dropped(
    keep: Undecided, x: Array, rate: ArrayLike, slope: ArrayLike, offset: ArrayLike
) -> Array:
    return _where_kept(keep, x, *_checked(x, rate, slope, offset))


@fused
def _where_kept(keep: Undecided, x: Array, rate: Array, slope: Array, offset: Array) -> Array:
    each = jax.lax.stop_gradient(_rate_of(x, rate, slope, offset))
    return jnp.where(booleans(keep.at(each), x), x, jnp.zeros((), x.dtype))


@scheme
class Standout(Scheme):
    """Hidden units after a ReLU, kept the more likely the more active they are.

    Args:
      rate: multiplies the probability of dropping, in [0, 1].
      slope: how much the activity of a unit counts. At 0 all units are dropped at one rate.
      offset: the larger, the more units are kept.
    """

    rate: Rate = 1.0
    slope: Number = 1.0
    offset: Number = 0.0

    acts_on: ClassVar = frozenset({Kind.HIDDEN, Kind.FEATURE_MAP})
    linear_in_x: ClassVar = False

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Undecided:
        return Undecided.of(keys.example, shape)

    def apply(self, noise: Undecided, x: Array, site: Site, fallback: Array | None) -> Array:
        return _dropped(noise, x, self.rate, self.slope, self.offset)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected(x, self.rate, slope=self.slope, offset=self.offset)
