"""Moment propagation: mean and variance through a network, instead of samples.

A `Moments` holds the mean and the variance of each unit; the functions here take one and return
one, so that a network is written as their composition. Units are taken to be independent, and
Gaussian where a non-linearity asks for their distribution: `dropout` and the first `dense` after it
are exact, what follows approximates.

Source: Wang, Manning 2013, "Fast dropout training" (ICML), sections 2 and 3; Brach, Sick, Duerr
2020, "Single Shot MC Dropout Approximation" (arXiv 2007.03293), section 3; Clark 1961, "The
Greatest of a Finite Set of Random Variables" (Operations Research 9), for the maximum of two.

Differs: the variance of a sigmoid comes from its derivative. The first paper fits a second sigmoid
instead, which gives values that are known a standard deviation of up to 0.16.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import SCALINGS, wide_dtype, wide_rate
from dropjax.ops.checks import check_choice, check_floating, check_real
from dropjax.ops.lazy import fused

Array = jax.Array

_RELU_SPREAD = 1 / math.sqrt(2 * math.pi)


class Moments(NamedTuple):
    """The mean and the variance of each unit, two arrays of one shape."""

    mean: Array
    variance: Array


def exactly(x: ArrayLike) -> Moments:
    """The moments of values that are known.

    Args:
      x: floats of any shape; halves are widened to float32.

    Cost: no random bits; nothing is kept for the backward pass.
    """
    x = check_real(x)
    x = x.astype(wide_dtype(x.dtype))
    return Moments(x, jnp.zeros_like(x))


def dropout(
    of: Moments, rate: ArrayLike, *, scaling: Literal["train", "test"] = "train"
) -> Moments:
    """Of units under dropout, Bernoulli or, scaled in training, Gaussian: exact.

    Args:
      of: the units' moments.
      rate: probability of dropping, in [0, 1].
      scaling: as in `dropjax.dropout`.

    Raises:
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong scaling.

    Cost: no random bits; the means are kept for the backward pass.
    """
    check_choice(scaling, SCALINGS, "scaling")
    rate = wide_rate(of.mean, rate)
    return _scaled_at_test(of, rate) if scaling == "test" else _scaled_in_training(of, rate)


@fused
def _scaled_at_test(of: Moments, p: Array) -> Moments:
    mean, variance = of
    q = 1 - p
    return Moments(q * mean, q * (variance + p * jnp.square(mean)))


@fused
def _scaled_in_training(of: Moments, p: Array) -> Moments:
    mean, variance = of
    q = 1 - p
    some = q > 0
    dropped = (variance + p * jnp.square(mean)) / jnp.where(some, q, 1)
    return Moments(jnp.where(some, mean, 0), jnp.where(some, dropped, 0))


def dense(of: Moments, w: ArrayLike, b: ArrayLike | None = None) -> Moments:
    """Of `x @ w + b`: exact if the units of x are independent.

    Args:
      of: the moments of x, (..., inputs).
      w: (inputs, outputs).
      b: (outputs,) or None.

    Cost: no random bits; two products of matrices. The moments and w are kept for the backward
      pass.
    """
    dtype = of.mean.dtype
    w = check_floating(w, "w").astype(dtype)
    mean = of.mean @ w
    if b is not None:
        b = check_floating(b, "b").astype(dtype)
        mean = mean + b.reshape((1,) * (mean.ndim - b.ndim) + b.shape)
    return Moments(mean, _through_squares(of.variance, w))


@fused
def _through_squares(variance: Array, w: Array) -> Array:
    return variance @ jnp.square(w)


def relu(of: Moments) -> Moments:
    """Of `max(x, 0)`: exact if x is Gaussian.

    Args:
      of: the moments of x.

    Cost: no random bits; the moments are kept for the backward pass, which computes it again.
    """
    return _relu(of)


@fused
def _relu(of: Moments) -> Moments:
    mean, variance = of
    some = variance > 0
    spread = jnp.sqrt(jnp.where(some, variance, 1))
    at = mean / spread
    # Of z - |at| cut off below 0, where nothing cancels: its mean, and its second moment.
    away = jnp.abs(at)
    density = _RELU_SPREAD * jnp.exp(-jnp.square(away) / 2)
    tail = ndtr(-away)
    first = jnp.maximum(density - away * tail, 0)
    second = jnp.maximum((jnp.square(away) + 1) * tail - away * density, 0)
    unit_mean = jnp.where(at > 0, away + first, first)
    unit_variance = jnp.where(at > 0, 1 - 2 * tail, 0) + second - jnp.square(first)
    unit_variance = jnp.maximum(unit_variance, 0)
    return Moments(
        jnp.where(some, spread * unit_mean, jnp.maximum(mean, 0)),
        jnp.where(some, variance * unit_variance, 0),
    )


def sigmoid(of: Moments) -> Moments:
    """Of `1 / (1 + exp(-x))`, x Gaussian, by the probit approximation.

    The mean is within 0.02 of the exact one, and the standard deviation within 0.06.

    Args:
      of: the moments of x.

    Cost: no random bits; the moments are kept for the backward pass, which computes it again.
    """
    return _sigmoid(of)


@fused
def _sigmoid(of: Moments) -> Moments:
    slope = jax.lax.rsqrt(1 + math.pi / 8 * of.variance)
    mean = jax.nn.sigmoid(slope * of.mean)
    # The mean of sigmoid - sigmoid**2, the derivative, is the derivative of the mean.
    return Moments(mean, mean * (1 - mean) * (1 - slope))


def maximum(one: Moments, two: Moments) -> Moments:
    """Of the larger of two units: exact if they are Gaussian and independent.

    Args:
      one: the moments of the first.
      two: the moments of the second, of the same shape.

    Cost: no random bits; all four moments are kept for the backward pass, which computes it
      again.
    """
    return _maximum(one, two)


@fused
def _maximum(one: Moments, two: Moments) -> Moments:
    both = one.variance + two.variance
    some = both > 0
    spread = jnp.sqrt(jnp.where(some, both, 1))
    at = (one.mean - two.mean) / spread
    density = _RELU_SPREAD * jnp.exp(-jnp.square(at) / 2)
    p, q = ndtr(at), ndtr(-at)
    # From the larger mean, for large means that differ little would cancel.
    top = jnp.maximum(one.mean, two.mean)
    a, b = one.mean - top, two.mean - top
    first = a * p + b * q + spread * density
    second = (a**2 + one.variance) * p + (b**2 + two.variance) * q + (a + b) * spread * density
    variance = jnp.maximum(second - jnp.square(first), 0)
    return Moments(jnp.where(some, top + first, top), jnp.where(some, variance, 0))


def mlp(
    layers: Sequence[tuple[ArrayLike, ArrayLike | None]],
    x: ArrayLike,
    rate: ArrayLike,
    *,
    input_rate: ArrayLike = 0.0,
    scaling: Literal["train", "test"] = "train",
) -> Moments:
    """Of the outputs of a multilayer perceptron with ReLU and dropout on its hidden units.

    A deterministic stand-in for `monte_carlo`: at the cost of two passes it gives the mean and the
    variance over masks, both approximately beyond the first layer.

    Args:
      layers: (kernel, bias) of each layer in order, kernels (inputs, outputs). Of `dropjax.models`'
        `mlp`: those of params["layer_0"], ..., params["head"].
      x: (..., inputs).
      rate: of dropping hidden units, in [0, 1]: a number.
      input_rate: of dropping inputs.
      scaling: as the network was trained; see `dropjax.dropout`.

    Returns:
      The outputs' moments, (..., outputs).

    Raises:
      ValueError: no layers; a rate outside [0, 1]; a wrong scaling.

    Cost: no random bits; two products of matrices a layer. What `dense`, `relu` and `dropout` keep
      is kept for the backward pass.

    Source: Brach et al. 2020, section 3.

    Example:
      >>> import jax.numpy as jnp
      >>> from dropjax.evaluate import moments
      >>> layers = [(jnp.ones((2, 3)), None), (jnp.ones((3, 1)), jnp.zeros(1))]
      >>> output = moments.mlp(layers, jnp.ones(2), 0.5)
      >>> output.mean.tolist(), output.variance.tolist()
      ([6.0], [12.0])
    """
    if not layers:
        raise ValueError("layers must hold at least one (kernel, bias)")
    hidden = dropout(exactly(x), input_rate, scaling=scaling)
    for w, b in layers[:-1]:
        hidden = dropout(relu(dense(hidden, w, b)), rate, scaling=scaling)
    return dense(hidden, *layers[-1])
