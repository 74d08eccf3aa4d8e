"""Variational dropout: Gaussian dropout whose variance is learned.

Source: Kingma, Salimans, Welling 2015, "Variational Dropout and the Local Reparameterization Trick"
(arXiv 1506.02557), sections 2.2 and 3.

Differs: where alpha has reached 1, the paper's bound, the penalty has no gradient, but the gradient
of the loss can still make it smaller.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Learned, Number, dense, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.checks import check_between, check_choice, check_layer, fitted
from dropjax.ops.divergence import kl_kingma
from dropjax.ops.gaussian import Normal, local_linear, scale_by
from dropjax.ops.keys import check_key

Array = jax.Array
NOISES = ("weights", "inputs")


def variational_gaussian_linear(
    key: Array,
    x: ArrayLike,
    log_alpha: ArrayLike,
    *,
    w: ArrayLike,
    b: ArrayLike | None = None,
    noise: Literal["weights", "inputs"] = "weights",
) -> Array:
    """A dense layer with normal noise of mean 1 and variance alpha on its weights or its inputs.

    Args:
      key: PRNG key, typed or raw.
      x: inputs, floats (..., inputs).
      log_alpha: logarithm of the variance, with its gradient: a number, or an array that broadcasts
        to w, or to (inputs, 1) for noise on inputs. For that of a drop rate:
        log(rate / (1 - rate)).
      w: weights, floats (inputs, outputs).
      b: bias (outputs,), without noise.
      noise: "weights", each of them independently, for each row of x: then the outputs are normal
        and are drawn themselves. "inputs": each of them, which is Gaussian dropout.

    Returns:
      (..., outputs), of the dtype of x; its mean is x @ w + b.

    Raises:
      TypeError: x, w or b holds no floats, or key is no PRNG key.
      ValueError: shapes do not fit; noise is neither.

    Cost: 32 random bits an output and two products for noise on weights; 32 an input and one
      product for noise on inputs. For the backward pass noise on weights keeps x, the variance
      of each output, and in float32 16 bytes a weight, or 20 if log_alpha is like w; noise on
      inputs keeps w, x and x with its noise.

    Source: Kingma, Salimans, Welling 2015, section 3.1 (weights) and 3.2 (inputs).
      `dropjax.schemes` has "variational_gaussian", with the penalty.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x, w = jnp.ones((5, 3)), jnp.ones((3, 2))
      >>> dropjax.variational_gaussian_linear(jax.random.key(0), x, -1.0, w=w).shape
      (5, 2)
    """
    key = check_key(key)
    x, w, b = check_layer(x, w, b)
    check_choice(noise, NOISES, "noise")
    shape = w.shape if noise == "weights" else (w.shape[0], 1)
    return _linear(key, x, w, b, fitted(log_alpha, shape, "log_alpha", jnp.float32), noise)


def _linear(key: Array, x: Array, w: Array, b: Array | None, log_alpha: Array, noise: str) -> Array:
    wide = wide_dtype(x.dtype)
    if noise == "weights":
        variance = jnp.exp(log_alpha.astype(wide)) * jnp.square(w.astype(wide))
        return local_linear(key, x, w, b, variance)
    if log_alpha.ndim:  # (inputs, 1), of weights
        log_alpha = log_alpha.reshape((1,) * (x.ndim - 1) + (-1,))
    spread = jnp.exp(log_alpha.astype(wide) / 2)
    return _plain(scale_by(Normal.of(key, x.shape), x, spread), w, b)


def _plain(x: Array, w: Array, b: Array | None) -> Array:
    return dense(x, w.astype(x.dtype), None if b is None else b.astype(x.dtype))


def expected(x: ArrayLike, *, w: ArrayLike, b: ArrayLike | None = None) -> Array:
    """The exact expectation of `variational_gaussian_linear`: x @ w + b.

    Args:
      x: inputs, floats (..., inputs).
      w: weights, floats (inputs, outputs).
      b: bias (outputs,).

    Returns:
      (..., outputs), of the dtype of x.

    Raises:
      TypeError: x, w or b holds no floats.
      ValueError: shapes do not fit.

    Cost: no random bits; a product of matrices; x and w are kept for the backward pass.
    """
    return _plain(*check_layer(x, w, b))


@scheme
class VariationalGaussian(Learned):
    """Dense layers with Gaussian noise of learned variance alpha times a weight's square.

    The penalty is the divergence of the weights' distribution from a log-uniform prior, by the
    paper's cubic approximation: summed over weights, or over inputs where these have the noise.

    Args:
      initial: the rate of the Gaussian dropout from which each site starts, at most 0.5; alpha is
        then initial / (1 - initial). The paper: 0.5 for hidden units, 0.2 for inputs.
      noise: on "weights", each its own (section 3.1; the paper's type B, after Wang and Manning),
        or on "inputs", the same for all outputs (section 3.2; type A, after Srivastava et al.).
      alphas: what has an alpha of its own: each "layer"; each "unit", which is an input; or each
        "element" with noise of its own, a weight (with noise on inputs, an input again).
    """

    initial: Number = 0.5
    noise: Literal["weights", "inputs"] = "weights"
    alphas: Literal["layer", "unit", "element"] = "layer"
    learned: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    acts_on: ClassVar = frozenset({Kind.LINEAR})
    linear_in_x: ClassVar = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self.initial, "initial", 0, 1)
        if isinstance(self.initial, float) and self.initial > 0.5:
            raise ValueError(f"initial must be at most 0.5, where alpha is 1; got {self.initial}")

    def init(
        self, key: Array, site: Site, shape: tuple[int, ...], w: Array | None
    ) -> dict[str, Array]:
        initial = jnp.asarray(self.initial, jnp.float32)
        inputs, outputs = self._elements(shape)
        own = {"layer": (1, 1), "unit": (inputs, 1), "element": (inputs, outputs)}[self.alphas]
        return {"log_alpha": jnp.full(own, jnp.log(initial) - jnp.log1p(-initial))}

    def rates_at(self, site: Site) -> dict[str, Any]:
        return {"initial": self.initial}

    def linear(self, keys: Keys, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        log_alpha = self.at_site(site)["log_alpha"]
        # At most 0, but with a gradient of 1 above it too: else it could never leave the bound.
        log_alpha = log_alpha - jax.lax.stop_gradient(jnp.maximum(log_alpha, 0))
        return _linear(keys.example, x, w, b, log_alpha, self.noise)

    def penalty_at(self, site: Site, shape: tuple[int, ...], w: Array | None) -> Array:
        log_alpha = self._bounded(site)
        times = float(self._count(shape)) / log_alpha.size
        return times * jnp.sum(kl_kingma(log_alpha))

    def report_at(self, site: Site, w: Array | None) -> dict[str, Array]:
        return {"alpha": jnp.mean(jnp.exp(self._bounded(site)))}

    def _bounded(self, site: Site) -> Array:
        return jnp.minimum(self.at_site(site)["log_alpha"], 0)

    def _elements(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """How many inputs there are, and how many numbers of noise for each."""
        return shape[0], shape[1] if self.noise == "weights" else 1

    def _count(self, shape: tuple[int, ...]) -> int:
        inputs, each = self._elements(shape)
        return inputs * each
