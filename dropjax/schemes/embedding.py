"""Embedding dropout: drops token types, whole rows of an embedding table.

Source: Gal, Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural
Networks" (arXiv 1512.05287), section 4.2: a dropped type is dropped wherever it occurs. Merity,
Keskar, Socher 2018 (arXiv 1708.02182), section 4.3: one mask for the batch, what is kept scaled.

Differs: one mask serves the whole batch in a step, as in the second paper. `mode="example"` draws
one for each sequence, as in the first.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.ops.checks import check_floating
from dropjax.schemes.bernoulli import dropout

Array = jax.Array


def embedding_dropout(key: Array, w: ArrayLike, rate: ArrayLike) -> Array:
    """Sets each row of an embedding table to 0 with probability `rate`.

    Args:
      key: PRNG key, typed or raw. One call makes one mask: call it once for a batch, before tokens
        are looked up, or under `jax.vmap` over keys for a mask a sequence.
      w: the table, floats (..., tokens, features).
      rate: probability of dropping a token type, in [0, 1]; may be traced, or an array that
        broadcasts to (..., tokens, 1). Typical: 0.1.

    Returns:
      An array of the shape and dtype of w, with mean w.

    Raises:
      TypeError: w holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; w has less than two axes.

    Cost: 32 random bits a type; about the time of reading w and writing the result. 8 bytes a key
      are kept for the backward pass, which draws the mask again.

    Source: Gal & Ghahramani 2016, section 4.2; Merity et al. 2018, section 4.3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> table = dropjax.embedding_dropout(jax.random.key(0), jnp.ones((4, 2)), 0.5)
      >>> table[jnp.asarray([2, 0, 2])]
      Array([[2., 2.],
             [0., 0.],
             [2., 2.]], dtype=float32)
    """
    w = check_floating(w, "w")
    if w.ndim < 2:
        raise ValueError(f"w must be a table (..., tokens, features), got shape {w.shape}")
    return dropout(key, w, rate, shared_axes=-1)


@scheme
class Embedding(Scheme):
    """Drops rows of embedding tables.

    Args:
      rate: the probability of dropping a type of token, in [0, 1].
      mode: "batch", one mask for the whole batch of a step; "example", a mask for each example.
    """

    rate: Rate = 0.1
    mode: Literal["batch", "example"] = "batch"

    acts_on: ClassVar = frozenset({Kind.TABLE})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        key = keys.step if self.mode == "batch" else keys.example
        return Mask.of(key, self.rate, [*shape[:-1], 1])

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
