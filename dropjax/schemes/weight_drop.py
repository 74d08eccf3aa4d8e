"""Weight drop: DropConnect on hidden-to-hidden matrices.

Source: Merity, Keskar, Socher 2018, "Regularizing and Optimizing LSTM Language Models"
(arXiv 1708.02182), section 2: one mask for all steps of a forward pass, and for the whole batch.

Differs: the paper's code divides what is kept by 1 - rate, and so do we.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.ops.keys import check_key, derive
from dropjax.ops.trees import map_matching
from dropjax.schemes.dropconnect import dropconnect

Array = jax.Array


def weight_drop(key: Array, w: Any, rate: ArrayLike, *, match: str) -> Any:
    """DropConnect on those weights of a tree whose path matches.

    Args:
      key: PRNG key, typed or raw. One call makes one mask: call it once a step, before the scan
        over time and outside the `jax.vmap` over examples.
      w: a tree of arrays, for example the parameters of a network of any framework.
      rate: probability of dropping a weight, in [0, 1]; may be traced. Typical: 0.5.
      match: a regular expression that is searched for in paths such as "layer_0/recurrent_kernel";
        "" matches all.

    Returns:
      The tree with the matching leaves' weights dropped, all others untouched.

    Raises:
      TypeError: a matching leaf holds no floats, or key is no PRNG key.
      ValueError: match is no regular expression, or no path matches; rate outside [0, 1] or of a
        shape that does not fit.

    Cost: 32 random bits a weight that matches; about the time of reading the matching leaves and
      writing them. 8 bytes a key are kept for the backward pass, which draws the mask again.

    Source: Merity et al. 2018, section 2.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> w = {"kernel": jnp.ones(2), "recurrent_kernel": jnp.ones(4)}
      >>> dropjax.weight_drop(jax.random.key(0), w, 0.5, match="recurrent")["kernel"]
      Array([1., 1.], dtype=float32)
    """
    key = check_key(key)
    return map_matching(lambda path, leaf: dropconnect(derive(key, path), leaf, rate), w, match)


@scheme
class WeightDrop(Scheme):
    """Weight drop on recurrent kernels."""

    rate: Rate = 0.5

    acts_on: ClassVar = frozenset({Kind.WEIGHT})
    made_for: ClassVar = "rnn"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.step, self.rate, shape)

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
