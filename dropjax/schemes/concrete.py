"""Concrete dropout: each layer learns its own dropout rate.

Source: Gal, Hron, Kendall 2017, "Concrete Dropout" (arXiv 1705.07832), sections 3 and 4: masks are
relaxed, so that the rate has a gradient; the penalty is the divergence from a prior on the weights.

Differs: nothing in training. As in the authors' code, masks are relaxed in Monte-Carlo evaluation
too, and deterministic evaluation uses x. The mean under the noise is not exactly x, because a
relaxed mask keeps a little more or less than 1 - rate: at rate 0.1 the mean is 0.13 % less than x
at temperature 0.1, and 5.0 % less at temperature 2/3, which feature maps have.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Learned, Number, dense, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.checks import (
    check_between,
    check_floating,
    check_rate_value,
    fitted,
    normalize_axes,
)
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused
from dropjax.ops.logistic import Logistic, relaxed_drop

Array = jax.Array
_INFINITY = float("inf")


def concrete_dropout(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    shared_axes: int | Sequence[int] = (),
) -> Array:
    """Dropout with a relaxed mask, through which the rate can be trained.

    Args:
      key: PRNG key, typed or raw.
      x: floats of any shape.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask. Other schemes' rates have no gradient; this one has, for the noise as drawn. It is 0
        at rates 0 and 1. To train the rate, train its logit: `rate=jax.nn.sigmoid(logit)`.
      temperature: above 0; the nearer to 0, the nearer the mask is to zeros and ones and the more
        the gradient varies. The authors use 0.1, and 2/3 for whole feature maps.
      shared_axes: axes along which one decision is shared: height and width for feature maps.

    Returns:
      x times (1 - z) / (1 - rate), where z = sigmoid((logit(rate) + logit(u)) / temperature) for
      uniform u; an array of the shape and dtype of x. Rate 0 gives x, rate 1 zeros.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or temperature not above 0, or of a shape that does not fit; a
        wrong axis.

    Cost: 32 random bits an element of the mask; six exponentials and logarithms an element, forward
      and again backward; 8 bytes a key are kept for the backward pass, and x where the rate has a
      gradient.

    Source: Gal, Hron, Kendall 2017, section 3.1. `dropjax.schemes` has "concrete", with the
      penalty without which rates go to 0.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> def total(rate):
      ...     return dropjax.concrete_dropout(jax.random.key(0), jnp.ones(4), rate).sum()
      >>> jax.grad(total)(0.5).shape
      ()
    """
    key, x = check_key(key), check_floating(x)
    check_rate_value(rate)
    check_between(temperature, "temperature", 0, _INFINITY)
    shared = normalize_axes(shared_axes, x.ndim, "shared_axes")
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    wide = jnp.finfo(wide_dtype(x.dtype)).dtype
    rate = fitted(rate, shape, "rate", wide)
    temperature = fitted(temperature, shape, "temperature", wide)
    inside = (rate > 0) & (rate < 1)
    safe = jnp.where(inside, rate, 0.5)
    logit = jnp.log(safe) - jnp.log1p(-safe)
    relaxed = relaxed_drop(Logistic.of(key, shape), x, logit, temperature)
    return _at_the_ends(x, relaxed, rate)


@fused
def _at_the_ends(x: Array, relaxed: Array, rate: Array) -> Array:
    return jnp.where(rate <= 0, x, jnp.where(rate < 1, relaxed, jnp.zeros((), x.dtype)))


@scheme
class Concrete(Learned):
    """Dropout on the inputs of dense layers, at a rate that each layer learns.

    Where `at` names feature maps, it drops whole channels. The penalty, in nats for the whole
    training set, is length_scale**2 / 2 |w|**2 / (1 - rate), for dense layers only, minus the
    entropy of the masks of all inputs (or all channels).

    The authors' code has two constants instead. Let the loss be c times the negative
    log-likelihood (c is 2 for the squared error), averaged over N examples. Then
    weight_regularizer = c length_scale**2 / (2 N) and dropout_regularizer = c / N give the same, if
    the penalty here is multiplied by c: `--penalty`, or `Problem(penalty=...)`.

    Args:
      initial: the rate from which each site starts, above 0 and below 1.
      temperature: of the relaxed masks of dense layers; the lower, the closer they are to 0 and 1.
      spatial_temperature: of the relaxed masks of feature maps.
      length_scale: of the prior on weights; its inverse is the prior's standard deviation.
    """

    initial: Number = 0.1
    temperature: Number = 0.1
    spatial_temperature: Number = 2 / 3
    length_scale: Number = 1e-4
    learned: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    acts_on: ClassVar = frozenset({Kind.LINEAR})
    can_act_on: ClassVar = frozenset({Kind.FEATURE_MAP})
    expected_is_mean: ClassVar = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self.initial, "initial", 0, 1)
        for name in ("temperature", "spatial_temperature", "length_scale"):
            check_between(getattr(self, name), name, 0, _INFINITY)

    def init(
        self, key: Array, site: Site, shape: tuple[int, ...], w: Array | None
    ) -> dict[str, Array]:
        initial = jnp.asarray(self.initial, jnp.float32)
        return {"logit": jnp.log(initial) - jnp.log1p(-initial)}

    def rates_at(self, site: Site) -> dict[str, Any]:
        return {"initial": self.initial}

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Logistic:
        if site.kind is Kind.LINEAR:  # an input is a row of the weights
            return Logistic.of(keys.example, (shape[0], 1))
        return Logistic.of(keys.example, site.own(shape, "feature"))

    def apply(self, noise: Logistic, x: Array, site: Site, fallback: Array | None) -> Array:
        linear = site.kind is Kind.LINEAR
        temperature = self.temperature if linear else self.spatial_temperature
        logit = self.at_site(site)["logit"]
        return relaxed_drop(noise, x, logit, jnp.asarray(temperature, logit.dtype))

    def linear(self, keys: Keys, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        return dense(self.apply(Logistic.of(keys.example, x.shape), x, site, None), w, b)

    def penalty_at(self, site: Site, shape: tuple[int, ...], w: Array | None) -> Array:
        logit = self.at_site(site)["logit"]
        rate, rest = jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)
        entropy = rate * jax.nn.softplus(-logit) + rest * jax.nn.softplus(logit)
        if site.kind is not Kind.LINEAR:
            return -shape[site.axes.index("feature")] * entropy
        assert w is not None
        squares = jnp.sum(jnp.square(w.astype(logit.dtype)))
        weight = jnp.square(jnp.asarray(self.length_scale, logit.dtype)) / 2
        return weight * squares * (1 + jnp.exp(logit)) - shape[0] * entropy

    def report_at(self, site: Site, w: Array | None) -> dict[str, Array]:
        return {"rate": jax.nn.sigmoid(self.at_site(site)["logit"])}
