"""Sparse variational dropout: each weight learns its variance, and most weights vanish.

Source: Molchanov, Ashukha, Vetrov 2017, "Variational Dropout Sparsifies Deep Neural Networks"
(arXiv 1701.05369), sections 4.1 to 4.3.

Differs: weights that are pruned have mean 0 in training too, as in the authors' runs (their
`train_clip`). No constant is added to the variance of an output, where they add 1e-8.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Learned, Number, dense, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.checks import check_floating, check_layer, check_number_value, fitted
from dropjax.ops.divergence import kl_molchanov
from dropjax.ops.gaussian import local_linear
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused

Array = jax.Array

BOUND = 8.0
"""log alpha is kept within -8 and 8."""


def log_alpha_of(w: Array, log_sigma2: Array) -> Array:
    """log alpha = log sigma**2 - log w**2 of each weight, within +-`BOUND`; float32 at least."""
    square = jnp.square(w.astype(wide_dtype(w.dtype)))
    # Without a constant a weight of 0 would have a gradient of 0 / 0.
    return jnp.clip(log_sigma2.astype(square.dtype) - jnp.log(square + 1e-16), -BOUND, BOUND)


def prune(w: ArrayLike, log_sigma2: ArrayLike, *, threshold: ArrayLike = 3.0) -> Array:
    """Sets weights to 0 whose log alpha is at or above the threshold: they are mostly noise.

    Args:
      w: weights, floats of any shape.
      log_sigma2: the logarithm of their variance; broadcasts to w.
      threshold: of log alpha. 3 stands for a drop rate of 95 %.

    Returns:
      An array of the shape and dtype of w.

    Raises:
      TypeError: w holds no floats, or threshold is no number.
      ValueError: log_sigma2 is of a shape that does not fit.

    Cost: no random bits; a logarithm a weight. A boolean a weight, and zeros like w, are kept for
      the backward pass.
    """
    w = check_floating(w, "w")
    check_number_value(threshold, "threshold")
    return _pruned(w, fitted(log_sigma2, w.shape, "log_sigma2", jnp.float32), threshold)


def _pruned(w: Array, log_sigma2: Array, threshold: ArrayLike) -> Array:
    log_alpha = log_alpha_of(w, log_sigma2)
    return jnp.where(log_alpha < jnp.asarray(threshold, log_alpha.dtype), w, jnp.zeros((), w.dtype))


def sparse_variational_linear(
    key: Array,
    x: ArrayLike,
    log_sigma2: ArrayLike,
    *,
    w: ArrayLike,
    b: ArrayLike | None = None,
    threshold: ArrayLike = 3.0,
) -> Array:
    """A dense layer whose weights are normal, each with a variance of its own.

    Args:
      key: PRNG key, typed or raw.
      x: inputs, floats (..., inputs).
      log_sigma2: the logarithm of the weights' variances, with its gradient; broadcasts to w.
        Start from -10. As in the authors' code log alpha = log_sigma2 - log w**2 is kept within
        -8 and 8: a weight of 0 has no noise.
      w: the weights' means, floats (inputs, outputs).
      b: bias (outputs,), without noise.
      threshold: weights whose log alpha reaches it have mean 0.

    Returns:
      (..., outputs), of the dtype of x: independent between rows of x.

    Raises:
      TypeError: x, w or b holds no floats, or key is no PRNG key.
      ValueError: shapes do not fit.

    Cost: 32 random bits an output; two products of matrices, as the outputs are drawn, not the
      weights. For the backward pass x, the variance of each output, and of each weight its mean,
      pruned mean and variance, log_sigma2 and 5 bytes more are kept: 21 bytes in float32.

    Source: Molchanov, Ashukha, Vetrov 2017, section 4.1. `dropjax.schemes` has
      "sparse_variational", with the penalty; `dropjax.expected` the layer for evaluation.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x, w = jnp.ones((5, 3)), jnp.ones((3, 2))
      >>> dropjax.sparse_variational_linear(jax.random.key(0), x, -10.0, w=w).shape
      (5, 2)
    """
    key = check_key(key)
    x, w, b = check_layer(x, w, b)
    check_number_value(threshold, "threshold")
    log_sigma2 = fitted(log_sigma2, w.shape, "log_sigma2", jnp.float32)
    return _linear(key, x, w, b, log_sigma2, threshold)


def _linear(
    key: Array, x: Array, w: Array, b: Array | None, log_sigma2: Array, threshold: ArrayLike
) -> Array:
    variance = _variance(w, log_sigma2).astype(wide_dtype(x.dtype))
    return local_linear(key, x, _pruned(w, log_sigma2, threshold), b, variance)


@fused
def _variance(w: Array, log_sigma2: Array) -> Array:
    log_alpha = log_alpha_of(w, log_sigma2)
    return jnp.exp(log_alpha) * jnp.square(w.astype(log_alpha.dtype))


def expected(
    x: ArrayLike,
    log_sigma2: ArrayLike,
    *,
    w: ArrayLike,
    b: ArrayLike | None = None,
    threshold: ArrayLike = 3.0,
) -> Array:
    """The exact expectation of `sparse_variational_linear`: x @ prune(w, ...) + b.

    Args:
      x: inputs, floats (..., inputs).
      log_sigma2: the logarithm of the weights' variances; broadcasts to w.
      w: the weights' means, floats (inputs, outputs).
      b: bias (outputs,).
      threshold: of pruning.

    Returns:
      (..., outputs), of the dtype of x.

    Raises:
      TypeError: x, w or b holds no floats.
      ValueError: shapes do not fit.

    Cost: no random bits; a product of matrices. x, the pruned w and what `prune` keeps are kept for
      the backward pass.
    """
    x, w, b = check_layer(x, w, b)
    pruned = prune(w, log_sigma2, threshold=threshold).astype(x.dtype)
    return dense(x, pruned, None if b is None else b.astype(x.dtype))


@scheme
class SparseVariational(Learned):
    """Dense layers with normal weights that learn their variance; weights of noise are pruned.

    The penalty is the divergence of the weights from a log-uniform prior, summed over them. Warm it
    up (`--penalty`), or weights are pruned before they have learned: the paper has it 0 for 5
    epochs and rise to 1 in 15 more.

    Args:
      initial: logarithm of the variance that each weight starts with.
      threshold: log alpha from which a weight is pruned. It is then 0 in evaluation; in training
        its mean is 0 and has no gradient. Above 8 no weight is pruned: call `prune` after training.
    """

    initial: Number = -10.0
    threshold: Number = 3.0
    learned: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    acts_on: ClassVar = frozenset({Kind.LINEAR})
    linear_in_x: ClassVar = False

    def init(
        self, key: Array, site: Site, shape: tuple[int, ...], w: Array | None
    ) -> dict[str, Array]:
        return {"log_sigma2": jnp.full(shape, jnp.asarray(self.initial, jnp.float32))}

    def linear(self, keys: Keys, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        return _linear(keys.example, x, w, b, self._log_sigma2(site), self.threshold)

    def expected_linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        return dense(x, _pruned(w, self._log_sigma2(site), self.threshold), b)

    def penalty_at(self, site: Site, shape: tuple[int, ...], w: Array | None) -> Array:
        assert w is not None
        return jnp.sum(kl_molchanov(log_alpha_of(w, self._log_sigma2(site))))

    def report_at(self, site: Site, w: Array | None) -> dict[str, Array]:
        assert w is not None
        log_alpha = log_alpha_of(w, self._log_sigma2(site))
        return {"sparsity": jnp.mean(log_alpha >= self.threshold)}

    def _log_sigma2(self, site: Site) -> Array:
        return self.at_site(site)["log_sigma2"]
