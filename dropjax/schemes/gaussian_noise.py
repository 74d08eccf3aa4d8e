"""Gaussian noise: adds independent normal numbers.

Source: Sietsma, Dow 1991, "Creating artificial neural networks that generalize", Neural Networks 4
(noise on the inputs of a training set); Bishop 1995, "Training with Noise is Equivalent to Tikhonov
Regularization", Neural Computation 7.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Scheme, Spread, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.ops.gaussian import Normal, add
from dropjax.ops.keys import check_key

Array = jax.Array


def gaussian_noise(
    key: Array, x: ArrayLike, std: ArrayLike, *, shared_axes: int | Sequence[int] = ()
) -> Array:
    """Adds a number from N(0, std**2) to each element.

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape.
      std: the standard deviation, finite and at least 0, in units of x: it does not grow with x,
        as that of `gaussian_dropout` does. May be traced, and is then not range-checked, or an
        array that broadcasts to x; has no gradient. Typical: 0.1 to 0.5 for standardised inputs.
      shared_axes: axes along which one number is shared.

    Returns:
      An array of the shape and dtype of x, with mean x; x itself where std is 0.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key, or std no number.
      ValueError: std below 0, not finite, or of a shape that does not fit; a wrong axis.

    Cost: 32 random bits, a logarithm and a polynomial an element of the noise; nothing is kept for
      the backward pass, where the gradient is 1.

    Source: Sietsma & Dow 1991. At test time x is used as it is.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.gaussian_noise(jax.random.key(0), jnp.ones(3), 0.1).shape
      (3,)
    """
    key, x = check_key(key), check_floating(x)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    return add(Normal.of(key, shape), x, std)


@scheme
class GaussianNoise(Scheme):
    """Additive noise on inputs; elsewhere by name.

    By default on inputs only, whose scale is known once the data are standardised. Hidden units can
    grow until noise of a fixed size no longer matters.

    Args:
      std: the standard deviation of the noise, 0 or more.
    """

    std: Spread = 0.1

    acts_on: ClassVar = frozenset({Kind.INPUT})
    can_act_on: ClassVar = frozenset(
        {Kind.EMBED, Kind.HIDDEN, Kind.FEATURE_MAP, Kind.RECURRENT, Kind.BRANCH}
    )

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Normal:
        return Normal.of(keys.example, shape)

    def apply(self, noise: Normal, x: Array, site: Site, fallback: Array | None) -> Array:
        return add(noise, x, self.std)
