"""ShakeDrop: scales dropped residual branches at random, and their gradients by another number.

Source: Yamada, Iwamura, Akiba, Kise 2019, "ShakeDrop Regularization for Deep Residual Learning"
(arXiv 1802.02375), section 3.3: forward (g + a - g a) x, backward (g + b - g b), with g the gate of
stochastic depth, whose linear rule gives its rates; at test time the mean of the forward factor.

Differs: each example has a gate and numbers of its own. The paper tries several ways of sharing the
numbers, but not the gate.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, booleans, wide_dtype, wide_rate
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.ops.keys import check_key, derive
from dropjax.ops.lazy import fused
from dropjax.ops.uniform import uniform

Array = jax.Array
Noise = tuple[Mask, Array, Array]
"""The gate, and for each of the two numbers where in its range it lies, in [0, 1)."""


@jax.custom_jvp
def _times(x: Array, forward: Array, backward: Array) -> Array:
    """x times one factor, with a gradient as if it were another. Exact where the two are equal."""
    del backward
    return _product(x, forward)


@_times.defjvp
def _times_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    x, forward, backward = primals
    return _product(x, forward), _product(tangents[0], backward)


def _product(x: Array, factor: Array) -> Array:
    wide = wide_dtype(x.dtype)
    return (x.astype(wide) * factor.astype(wide)).astype(x.dtype)


@fused
def _shaken(noise: Noise, x: Array, alpha: tuple[Array, Array], beta: tuple[Array, Array]) -> Array:
    gate, *places = noise
    keep = booleans(gate, x)
    factors = [
        jnp.where(keep, 1, low + (high - low) * place)
        for place, (low, high) in zip(places, (alpha, beta), strict=True)
    ]
    return _times(x, *factors)


def _noise(key: Array, rate: ArrayLike, shape: Sequence[int]) -> Noise:
    forward, backward = (uniform(derive(key, name), shape) for name in ("alpha", "beta"))
    return Mask.of(key, rate, shape), forward, backward


def _bounds(limits: Any, name: str) -> tuple[Array, Array]:
    low, high = _check_limits(limits, name)
    as_number = [jax.lax.stop_gradient(jnp.asarray(limit, jnp.float32)) for limit in (low, high)]
    return as_number[0], as_number[1]


def _check_limits(limits: Any, name: str) -> tuple[Any, Any]:
    """Two numbers, the first not above the second; traced ones are not looked at."""
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        raise ValueError(f"{name} must be (lowest, highest), got {limits!r}")
    low, high = limits
    if any(np.ndim(limit) for limit in limits):
        raise TypeError(f"{name} must be two numbers, got {limits!r}")
    if not any(isinstance(limit, Tracer) for limit in limits):
        try:
            fits = math.isfinite(low) and math.isfinite(high) and low <= high
        except TypeError:
            raise TypeError(f"{name} must be two numbers, got {limits!r}") from None
        if not fits:
            raise ValueError(f"{name} must be two finite numbers in order, got {limits!r}")
        low, high = float(low), float(high)
    return low, high


def shake_drop(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    batch_axes: int | Sequence[int],
    alpha: tuple[ArrayLike, ArrayLike] = (-1.0, 1.0),
    beta: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
) -> Array:
    """Multiplies the residual branch x of each example, with probability `rate`, by a number.

    Args:
      key: PRNG key, typed or raw.
      x: the branch before it is added, floats of any shape.
      rate: probability of being multiplied, in [0, 1]; may be traced, or an array that broadcasts
        to the gates, which have size 1 along all but the batch axes. Typical: 0.5 for the last of
        many branches, growing linearly from 0.
      batch_axes: the axes that hold examples, 0 for an ordinary batch; () for a single example,
        under `jax.vmap` over keys. It has no default, as a wrong guess would not be noticed.
      alpha: the lowest and the highest factor, uniform between. (0, 0) with an equal beta is
        stochastic depth that scales at test time.
      beta: the lowest and the highest factor of the gradient, independent of alpha.

    Returns:
      An array of the shape and dtype of x. Where it is x times alpha's factor, the gradient is
      multiplied by beta's factor instead, in forward mode too.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong axis; alpha or beta
        is no range.

    Cost: 96 random bits an example; about the time of reading x and writing the result: the branch
      has been computed. A few bytes an example are kept for the backward pass.

    Source: Yamada et al. 2019, section 3.3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> y = dropjax.shake_drop(jax.random.key(0), jnp.ones(4), 0.5, batch_axes=0)
      >>> [round(float(factor), 2) for factor in y]
      [0.74, 0.6, 1.0, -0.25]
    """
    key, x = check_key(key), check_floating(x)
    own = normalize_axes(batch_axes, x.ndim, "batch_axes")
    shape = [size if axis in own else 1 for axis, size in enumerate(x.shape)]
    noise = _noise(key, rate, shape)
    return _shaken(noise, x, _bounds(alpha, "alpha"), _bounds(beta, "beta"))


def expected(
    x: ArrayLike,
    rate: ArrayLike,
    *,
    alpha: tuple[ArrayLike, ArrayLike] = (-1.0, 1.0),
) -> Array:
    """The exact expectation of `shake_drop`: (1 - rate + rate E[alpha]) x.

    Args:
      x: floats of any shape.
      rate: probability of being multiplied, in [0, 1].
      alpha: as `shake_drop` was called.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no floats.
      ValueError: rate outside [0, 1]; alpha is no range.

    Cost: no random bits; a product an element. Nothing but the factor is kept for the backward
      pass.
    """
    x = check_floating(x)
    low, high = _bounds(alpha, "alpha")
    p = wide_rate(x, rate)
    return _product(x, 1 - p * (1 - (low + high).astype(p.dtype) / 2))


@scheme
class ShakeDrop(Scheme):
    """ShakeDrop on residual branches, deeper ones more often.

    Args:
      rate: the probability that a branch is multiplied, in [0, 1]; with `rule="linear"` that of the
        last branch.
      alpha: the lowest and the highest factor of a branch that is multiplied.
      beta: the lowest and the highest factor of its gradient.
      rule: "linear", the rate grows with depth from near 0 to `rate`; "constant", all branches have
        `rate`.
    """

    rate: Rate = 0.5
    alpha: tuple[float, float] = (-1.0, 1.0)
    beta: tuple[float, float] = (0.0, 1.0)
    rule: Literal["linear", "constant"] = "linear"

    acts_on: ClassVar = frozenset({Kind.BRANCH})
    made_for: ClassVar = "cnn(residual=True)"
    gradient_is_factor: ClassVar = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, _check_limits(getattr(self, name), name))

    def rates_at(self, site: Site) -> dict[str, Any]:
        return {"rate": self._rate(site)}

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Noise:
        return _noise(keys.example, self._rate(site), [1] * len(shape))

    def apply(self, noise: Noise, x: Array, site: Site, fallback: Array | None) -> Array:
        return _shaken(noise, x, _bounds(self.alpha, "alpha"), _bounds(self.beta, "beta"))

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected(x, self._rate(site), alpha=self.alpha)

    def _rate(self, site: Site) -> Any:
        return self.rate * site.depth if self.rule == "linear" else self.rate
