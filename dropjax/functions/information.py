"""Information dropout: multiplicative log-normal noise whose size the network chooses.

Source: Achille, Soatto 2018, "Information Dropout: Learning Optimal Representations Through Noisy
Computation" (arXiv 1611.01353), sections 4 and 5: z = f(x) e with log e ~ N(0, alpha(x)**2), and
the cost of the information that is let through, a divergence from a log-uniform prior for ReLU, or
from a log-normal one for softplus.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.bits import sharding_like
from dropjax.ops.checks import check_floating, check_spread_value
from dropjax.ops.gaussian import Normal
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused

Array = jax.Array


@fused
def _times(noise: Normal, x: Array, alpha: Array) -> Array:
    wide = wide_dtype(x.dtype)
    log = alpha * noise.values(sharding_like(x, noise.shape)).astype(wide)
    return (x.astype(wide) * jnp.exp(log)).astype(x.dtype)


def information_dropout(key: Array, x: ArrayLike, alpha: ArrayLike) -> Array:
    """Multiplies each element by exp(alpha z), with z standard normal.

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape, the activations f(x).
      alpha: standard deviation of the noise's logarithm, at least 0, a number or an array that
        broadcasts to x. It has a gradient: the network computes it from the same input, usually as
        alpha_max times a sigmoid. Typical: alpha_max = 0.7.

    Returns:
      An array of the shape and dtype of x. Its mean is not x: the noise has mean
      exp(alpha**2 / 2), up to 1.28 for an alpha of 0.7, which `dropjax.expected` has. At test time
      the paper leaves the noise out, and so shifts the mean; sample, or use the expectation.

    Raises:
      TypeError: x or alpha holds no floats, or key is no PRNG key.
      ValueError: alpha is negative or not finite, or does not broadcast to x.

    Cost: 32 random bits, a logarithm and a polynomial an element; 8 bytes a key are kept for the
      backward pass, and x and alpha where alpha has a gradient.

    Source: Achille & Soatto 2018, section 5. What it costs in the loss: `log_uniform_kl` and
      `log_normal_kl` of `dropjax.functions.information`.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> y = dropjax.information_dropout(jax.random.key(0), jnp.ones(3), 0.5)
      >>> [round(float(factor), 2) for factor in y]
      [0.69, 0.79, 1.3]
    """
    key, x = check_key(key), check_floating(x)
    return _times(Normal.of(key, x.shape), x, _as_alpha(alpha, x))


def expected(x: ArrayLike, alpha: ArrayLike) -> Array:
    """The exact expectation of `information_dropout`: exp(alpha**2 / 2) x.

    Args:
      x: floats of any shape.
      alpha: standard deviation of the noise's logarithm, at least 0, a number or an array that
        broadcasts to x.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x or alpha holds no floats.
      ValueError: alpha is negative or not finite, or does not broadcast to x.

    Cost: no random bits; an exponential an element of alpha. The factor is kept for the backward
      pass, and x and alpha where alpha has a gradient.
    """
    x = check_floating(x)
    alpha = _as_alpha(alpha, x)
    return (x.astype(alpha.dtype) * jnp.exp(jnp.square(alpha) / 2)).astype(x.dtype)


def log_uniform_kl(alpha: ArrayLike, *, alpha_max: ArrayLike) -> Array:
    """The information that each unit lets through, under a log-uniform prior: for ReLU.

    -log(alpha / alpha_max), in nats and up to a constant: 0 where the noise is largest. The prior
    is improper, so that only differences mean something.

    Args:
      alpha: standard deviation of the noise's logarithm, above 0.
      alpha_max: its largest value.

    Returns:
      An array of the shape of alpha, float32 at least. Add its sum over units, times the weight
      beta, to the loss of an example; beta is about 1 over the number of units or less.

    Raises:
      TypeError: alpha holds no floats.

    Cost: no random bits; a logarithm an element; alpha is kept for the backward pass.

    Source: Achille & Soatto 2018, section 5, proposition on ReLU.
    """
    alpha = _wide(alpha, "alpha")
    return jnp.log(jnp.asarray(alpha_max, alpha.dtype)) - jnp.log(alpha)


def log_normal_kl(
    x: ArrayLike, alpha: ArrayLike, *, mean: ArrayLike = 0.0, std: ArrayLike = 1.0
) -> Array:
    """The information that each unit lets through, under a log-normal prior: for softplus.

    The divergence of exp(N(log x, alpha**2)) from exp(N(mean, std**2)), in nats.

    Args:
      x: activations f(x) above 0, without noise.
      alpha: standard deviation of the noise's logarithm, above 0; broadcasts to x.
      mean: of the prior's logarithm; may be learned.
      std: of the prior's logarithm, above 0; may be learned.

    Returns:
      An array of the shape of x, float32 at least. Add its sum over units, times the weight beta,
      to the loss of an example.

    Raises:
      TypeError: x or alpha holds no floats.
      ValueError: alpha is negative or not finite, or does not broadcast to x.

    Cost: no random bits; two logarithms an element. 8 bytes an element of x, or 12 where std is
      learned, and 8 of alpha are kept for the backward pass.

    Source: Achille & Soatto 2018, section 5, proposition on softplus.
    """
    x = _wide(x, "x")
    alpha = _as_alpha(alpha, x)
    mean, std = (jnp.asarray(value, x.dtype) for value in (mean, std))
    apart = (jnp.square(alpha) + jnp.square(jnp.log(x) - mean)) / (2 * jnp.square(std))
    return apart + jnp.log(std) - jnp.log(alpha) - 0.5


def _wide(value: ArrayLike, name: str) -> Array:
    value = check_floating(value, name)
    return value.astype(wide_dtype(value.dtype))


def _as_alpha(alpha: ArrayLike, x: Array) -> Array:
    """alpha in the dtype in which x is scaled, of rank 0 or of x's."""
    check_spread_value(alpha, "alpha")
    alpha = check_floating(alpha, "alpha").astype(wide_dtype(x.dtype))
    if not alpha.ndim:
        return alpha
    try:
        fits = jnp.broadcast_shapes(alpha.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"alpha of shape {alpha.shape} does not broadcast to x, {x.shape}")
    return alpha.reshape((1,) * (x.ndim - alpha.ndim) + alpha.shape)
