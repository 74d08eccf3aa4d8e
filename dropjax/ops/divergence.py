"""Divergence of N(w, alpha w**2) from the log-uniform prior, in nats, for one weight.

The prior p(|w|) ~ 1 / |w| cannot be normalised, so the divergence has no zero; here it is chosen to
vanish as alpha grows, where the weight says nothing. All three fall with alpha.

With z**2 = 1 / (2 alpha) it is exactly 2 times the integral of Dawson's function from 0 to z, which
is the integral of 1 - exp(-z**2 / cosh(t)**2) over t > 0.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.lazy import fused

Array = jax.Array

_LIMIT = (np.euler_gamma + math.log(2)) / 2
"""-E log|e| for a standard normal e: what makes the divergence vanish as alpha grows."""

_STEP = 0.25  # the integrand is even and analytic: a step twice as small changes no digit
_POINTS = np.arange(49) * _STEP
_WEIGHTS = np.where(_POINTS == 0, _STEP / 2, _STEP)
_FACTORS = np.cosh(_POINTS) ** -2
_SMALL = -6.0  # below it, the expansion in alpha is exact to float32


def kl_exact(log_alpha: ArrayLike) -> Array:
    """The divergence itself, to 1e-5.

    Args:
      log_alpha: floats of any shape, any value.

    Returns:
      An array like it. Its gradient is exact too.

    Cost: no random bits; 49 exponentials an element, and again backward; log_alpha is kept for
      the backward pass.
    """
    return _exact(_floats(log_alpha))


@fused
def _exact(log_alpha: Array) -> Array:
    dtype = log_alpha.dtype
    small = log_alpha < _SMALL
    alpha = jnp.exp(jnp.where(small, log_alpha, _SMALL))
    expanded = _LIMIT - log_alpha / 2 - alpha / 2 - 0.75 * alpha**2 - 2.5 * alpha**3
    square = jnp.exp(-jnp.where(small, _SMALL, log_alpha)) / 2
    terms = -jnp.expm1(-square[..., None] * jnp.asarray(_FACTORS, dtype).reshape(_row(square)))
    return jnp.where(small, expanded, terms @ jnp.asarray(_WEIGHTS, dtype))


def kl_kingma(log_alpha: ArrayLike) -> Array:
    """A cubic approximation, for alpha of at most 1: beyond, it is no approximation.

    Args:
      log_alpha: floats of any shape, at most 0.

    Returns:
      An array like it.

    Cost: no random bits; an exponential an element, and again backward; log_alpha is kept for the
      backward pass.

    Source: Kingma, Salimans, Welling 2015, section 3.3: within 0.05 up to alpha 1.
    """
    return _kingma(_floats(log_alpha))


@fused
def _kingma(log_alpha: Array) -> Array:
    alpha = jnp.exp(log_alpha)
    cubic = 1.16145124 * alpha - 1.50204118 * alpha**2 + 0.58629921 * alpha**3
    return _LIMIT - log_alpha / 2 - cubic


def kl_molchanov(log_alpha: ArrayLike) -> Array:
    """An approximation for every alpha, within 0.01.

    Args:
      log_alpha: floats of any shape, any value.

    Returns:
      An array like it.

    Cost: no random bits; three exponentials and logarithms an element, and again backward;
      log_alpha is kept for the backward pass.

    Source: Molchanov, Ashukha, Vetrov 2017, section 4.2.
    """
    return _molchanov(_floats(log_alpha))


@fused
def _molchanov(log_alpha: Array) -> Array:
    sigmoid = jax.nn.sigmoid(-(1.87320 + 1.48695 * log_alpha))
    return 0.63576 * sigmoid + jax.nn.softplus(-log_alpha) / 2


def _floats(value: ArrayLike) -> Array:
    value = jnp.asarray(value)
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    return value.astype(wide_dtype(value.dtype) if floating else jnp.float32)


def _row(x: Array) -> tuple[int, ...]:
    return (1,) * x.ndim + (-1,)
