"""Mixout: a dropped weight falls back to what it was before fine-tuning, not to 0.

Source: Lee, Cho, Kang 2020, "Mixout: Effective Regularization to Finetune Large-scale Pretrained
Language Models" (arXiv 1909.11299), section 3: ((u where dropped, else w) - rate u) / (1 - rate),
u the weights before.

Differs: the scheme falls back to the weights at the start of training, pretrained or random. Each
weight is dropped independently. The authors' code drops whole inputs, and does not scale in its
backward pass.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Learned, Rate, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, booleans, where_kept_at_all, wide_dtype, wide_rate
from dropjax.ops.checks import check_like
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused

Array = jax.Array


def mixout(key: Array, w: ArrayLike, rate: ArrayLike, *, previous: ArrayLike) -> Array:
    """Each weight becomes its previous value with probability `rate`; scaled so that the mean is w.

    Args:
      key: PRNG key, typed or raw. One call makes one mask: call it once for a batch.
      w: weights, floats of any shape.
      rate: probability of falling back, in [0, 1]; may be traced, or an array that broadcasts to
        w. Typical: 0.7 to 0.9.
      previous: the weights to fall back to, of the shape and dtype of w; a constant, without a
        gradient. Zeros make it `dropjax.dropconnect`.

    Returns:
      An array of the shape and dtype of w, with mean w. Rate 1 gives previous, with gradient 0.

    Raises:
      TypeError: w or previous holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; previous is not like w.

    Cost: 32 random bits a weight; about the time of reading both and writing the result. 8 bytes a
      key are kept for the backward pass, which draws the mask again.

    Source: Lee et al. 2020, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> w, before = jnp.full(4, 2.0), jnp.ones(4)
      >>> dropjax.mixout(jax.random.key(0), w, 0.5, previous=before)
      Array([1., 1., 3., 1.], dtype=float32)
    """
    key, w, previous = check_key(key), *check_like(w, previous, "w")
    return _mixed(Mask.of(key, rate, w.shape), w, previous, wide_rate(w, rate))


@fused
def _mixed(keep: Mask, w: Array, previous: Array, rate: Array) -> Array:
    wide = wide_dtype(w.dtype)
    previous = jax.lax.stop_gradient(previous)
    q = 1 - rate
    away = jnp.where(q > 0, rate / jnp.where(q > 0, q, 1), 0).astype(wide)
    kept = w.astype(wide) + away * (w.astype(wide) - previous.astype(wide))
    # At rate 0 w + 0 would lose the sign of a zero.
    kept = jnp.where(rate > 0, kept.astype(w.dtype), w)
    return jnp.where(booleans(keep, w), kept, previous)


@scheme
class Mixout(Learned):
    """Weights of dense layers and recurrent kernels fall back to those at the start of training.

    Args:
      rate: the probability that a weight falls back, in [0, 1]. Typical: 0.7 to 0.9.
    """

    rate: Rate = 0.7
    learned: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    acts_on: ClassVar = frozenset({Kind.WEIGHT, Kind.LINEAR})

    def init(self, key: Array, site: Site, shape: tuple[int, ...], w: Array | None) -> Any:
        if w is None:
            raise ValueError(f"mixout needs the weights at {site.name!r}, and was given none")
        return {"previous": w}

    def trained(self, updates: Any) -> Any:
        # Nothing, not even weight decay, may change the weights to fall back to.
        return jax.tree.map(jnp.zeros_like, updates)

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.step, self.rate, shape)

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return _mixed(noise, x, self._previous(x, site), wide_rate(x, self.rate))

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return where_kept_at_all(x, self.rate, self._previous(x, site))

    def _previous(self, x: Array, site: Site) -> Array:
        return self.at_site(site)["previous"].astype(x.dtype)
