"""Gaussian dropout: multiplicative Gaussian noise with the variance of Bernoulli dropout.

Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout", JMLR 15, section
10; Wang, Manning 2013, "Fast dropout training" (ICML).
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import expected_drop
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.ops.gaussian import Normal, multiply, multiply_by_variance
from dropjax.ops.keys import check_key

Array = jax.Array


def gaussian_dropout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike | None = None,
    *,
    alpha: ArrayLike | None = None,
    shared_axes: int | Sequence[int] = (),
) -> Array:
    """Multiplies each element by a number from N(1, alpha), where alpha is rate / (1 - rate).

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape.
      rate: the rate of the Bernoulli dropout with the same mean and variance, in [0, 1]; may be
        traced, or an array that broadcasts to x. Typical: 0.5 for hidden units, 0.2 for inputs.
        It is neither the variance nor the standard deviation of the noise.
      alpha: instead of `rate`, the variance of the noise, finite and at least 0; may be traced, or
        an array that broadcasts to x. Like a rate it has no gradient.
      shared_axes: axes along which one number is shared.

    Returns:
      An array of the shape and dtype of x, with mean x. Rate 1, whose variance is infinite, gives
      zeros, with zero gradients.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key; both or neither of rate and alpha.
      ValueError: rate outside [0, 1], alpha below 0 or not finite, or of a shape that does not
        fit; a wrong axis.

    Cost: 32 random bits, a logarithm and a polynomial an element of the noise, forward and again
      backward; 8 bytes a key are kept for the backward pass.

    Source: Srivastava et al. 2014, section 10; alpha: Kingma, Salimans, Welling 2015 (arXiv
      1506.02557), section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.gaussian_dropout(jax.random.key(0), jnp.ones(3), 0.5).shape
      (3,)
    """
    key, x = check_key(key), check_floating(x)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    noise = Normal.of(key, [1 if axis in shared else size for axis, size in enumerate(x.shape)])
    if alpha is None and rate is not None:
        return multiply(noise, x, rate)
    if alpha is not None and rate is None:
        return multiply_by_variance(noise, x, alpha)
    given = "neither" if rate is None else f"rate={rate!r} and alpha={alpha!r}"
    raise TypeError(f"give either rate or alpha, the variance; got {given}")


@scheme
class Gaussian(Scheme):
    """Gaussian dropout on hidden units and feature maps; elsewhere by name.

    Args:
      rate: in [0, 1]. The noise has the variance of Bernoulli dropout, rate / (1 - rate).
    """

    rate: Rate = 0.5

    acts_on: ClassVar = frozenset({Kind.HIDDEN, Kind.FEATURE_MAP})
    can_act_on: ClassVar = frozenset(
        {Kind.INPUT, Kind.EMBED, Kind.RECURRENT, Kind.BRANCH, Kind.ATTENTION}
    )

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Normal:
        return Normal.of(keys.example, shape)

    def apply(self, noise: Normal, x: Array, site: Site, fallback: Array | None) -> Array:
        return multiply(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
