"""Gaussian noise and what is done with it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import wide_dtype, wide_rate
from dropjax.ops.bits import seed_of, sharding_like, words
from dropjax.ops.checks import as_spread, check_shape
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import Lazy, fused

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Normal(Lazy):
    """Independent standard normal numbers that are not drawn yet.

    A number is the inverse of the normal distribution function at one of 2**23 midpoints, as
    `jax.random.normal` has it: none is further out than 5.3.
    """

    @classmethod
    def of(cls, key: Array, shape: Sequence[int]) -> Self:
        """The numbers of a key, typed or raw."""
        return cls(seed_of(check_key(key)), (), check_shape(shape))

    def values(self, sharding: NamedSharding | None = None) -> Array:
        """The numbers as an array, float32; for `sharding` see `ops.bits.words`."""
        word = words(self.seed, self.whole, self.index, sharding=sharding)
        return jax.lax.erf_inv(symmetric(word)) * np.float32(math.sqrt(2))

    def drawn(self) -> Array:
        return self.values()


def symmetric(word: Array) -> Array:
    """A word as one of 2**23 equidistant numbers in (-1, 1), float32."""
    # Odd numbers over 2**23: symmetric, exact in float32, and never +-1.
    odd = (word >> np.uint32(8)) | np.uint32(1)
    return odd.astype(jnp.float32) * np.float32(2**-23) - np.float32(1)


def multiply(noise: Normal, x: Array, rate: ArrayLike) -> Array:
    """`x` times 1 + sqrt(rate / (1 - rate)) `noise`; zeros, with zero gradients, at rate 1.

    Args:
      noise: broadcasts to `x`.
      x: values of any floating dtype.
      rate: the drop rate of the Bernoulli dropout whose variance the noise has.

    Returns:
      An array like `x`. A few bytes are kept for the backward pass.
    """
    return _times(noise, x, wide_rate(x, rate))


def multiply_by_variance(noise: Normal, x: Array, alpha: ArrayLike) -> Array:
    """`x` times 1 + sqrt(alpha) `noise`.

    Args:
      noise: broadcasts to `x`.
      x: values of any floating dtype.
      alpha: the variance of the factor; broadcasts to `x`.

    Returns:
      An array like `x`, as `multiply` does.
    """
    return _times_of_variance(noise, x, _wide_spread(x, alpha, "alpha"))


def add(noise: Normal, x: Array, std: ArrayLike) -> Array:
    """`x` plus `std` times `noise`; `x` bit for bit where `std` is 0.

    Args:
      noise: broadcasts to `x`.
      x: values of any floating dtype.
      std: the standard deviation; broadcasts to `x`.

    Returns:
      An array like `x`: the sum is rounded once, not the noise.
    """
    return _plus(noise, x, _wide_spread(x, std, "std"))


def _wide_spread(x: Array, spread: ArrayLike, name: str) -> Array:
    return as_spread(spread, x.shape, name, dtype=jnp.finfo(wide_dtype(x.dtype)).dtype)


def _scaled(noise: Normal, x: Array, spread: Array) -> Array:
    wide = wide_dtype(x.dtype)
    factor = 1 + spread.astype(wide) * noise.values(sharding_like(x, noise.shape)).astype(wide)
    return (x.astype(wide) * factor).astype(x.dtype)


@fused
def _times(noise: Normal, x: Array, rate: Array) -> Array:
    q = 1 - rate
    scaled = _scaled(noise, x, jnp.sqrt(rate / jnp.where(q > 0, q, 1)))
    return jnp.where(q > 0, scaled, jnp.zeros((), x.dtype))


@fused
def _times_of_variance(noise: Normal, x: Array, alpha: Array) -> Array:
    return _scaled(noise, x, jnp.sqrt(alpha))


@fused
def _plus(noise: Normal, x: Array, std: Array) -> Array:
    wide = wide_dtype(x.dtype)
    step = std.astype(wide) * noise.values(sharding_like(x, noise.shape)).astype(wide)
    # x + 0.0 is not x where x is -0.0.
    return jnp.where(std > 0, (x.astype(wide) + step).astype(x.dtype), x)


@fused
def scale_by(noise: Normal, x: Array, spread: Array) -> Array:
    """`x` times 1 + `spread` times `noise`; the spread has a gradient.

    Args:
      noise: broadcasts to `x`.
      x: values of any floating dtype.
      spread: standard deviation, in the dtype in which x is scaled; broadcasts to `x`.

    Returns:
      An array like `x`.
    """
    return _scaled(noise, x, spread)


@fused
def around(noise: Normal, mean: Array, variance: Array) -> Array:
    """`mean` plus the root of `variance` times `noise`: of one shape, in the dtype of `mean`."""
    # The slope of a square root is infinite at 0. A variance of NaN has to give NaN: a run that has
    # diverged must be seen to have.
    some = variance != 0
    std = jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1)), 0)
    wide = wide_dtype(mean.dtype)
    step = std * noise.values(sharding_like(mean, noise.shape)).astype(std.dtype)
    return jnp.where(some, (mean.astype(wide) + step.astype(wide)).astype(mean.dtype), mean)


@fused
def variance_through(x: Array, variance: Array) -> Array:
    """The variance of `x @ w`, if that of each element of w is `variance`: in its dtype."""
    return jnp.square(x.astype(variance.dtype)) @ variance


def local_linear(key: Array, x: Array, w: Array, b: Array | None, variance: Array) -> Array:
    """A dense layer with independent normal weights, as if drawn anew for each row of x.

    The outputs are drawn, not the weights (local reparameterisation): `x @ w + b` plus the root of
    `x**2 @ variance` times a normal number for each output.

    Args:
      key: PRNG key.
      x: (..., inputs), of any floating dtype.
      w: (inputs, outputs), the weights' means.
      b: (outputs,), the bias, which is not random; or None.
      variance: (inputs, outputs), the weights' variances, in the dtype in which x is scaled.

    Returns:
      (..., outputs), of x's dtype. The gradient in x is finite where the variance is 0.

    Source: Kingma, Salimans, Welling 2015 (arXiv 1506.02557), section 2.2.
    """
    wide = wide_dtype(x.dtype)
    x_wide = x.astype(wide)
    mean = x_wide @ w.astype(wide)
    if b is not None:
        mean = mean + b.astype(wide).reshape((1,) * (mean.ndim - b.ndim) + b.shape)
    noisy = around(Normal.of(key, mean.shape), mean, variance_through(x_wide, variance))
    return noisy.astype(x.dtype)
