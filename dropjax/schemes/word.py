"""Word dropout: drops single tokens of a sequence.

Source: Iyyer, Manjunatha, Boyd-Graber, Daume 2015, "Deep Unordered Composition Rivals Syntactic
Methods for Text Classification" (ACL), section 3.1: each occurrence of a word has its own chance.

Differs: the scheme acts on embedded tokens and scales those that are kept; the paper averages over
the words that are left. The function acts on tokens, and replaces a dropped one by another token.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop, keep_mask

Array = jax.Array


def word_dropout(
    key: Array, x: ArrayLike, rate: ArrayLike, *, unknown: int, protected: Sequence[int] = ()
) -> Array:
    """Replaces each token by `unknown` with probability `rate`.

    Args:
      key: PRNG key, typed or raw.
      x: tokens, integers of any shape. (For embedded tokens (..., steps, features) there is
        `dropjax.dropout(key, x, rate, shared_axes=-1)`.)
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to x.
        Typical: 0.3.
      unknown: the token that stands for a dropped one.
      protected: tokens that are never dropped, such as padding and separators.

    Returns:
      Tokens of the shape and dtype of x.

    Raises:
      TypeError: x holds no integers, a token is none, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a token that the dtype of x
        cannot hold.

    Cost: 32 random bits a token; about the time of reading x and writing the result. Nothing is
      kept: tokens have no gradient.

    Source: Iyyer et al. 2015, section 3.1.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> tokens = jnp.asarray([5, 6, 7, 0])
      >>> dropjax.word_dropout(jax.random.key(0), tokens, 0.5, unknown=1, protected=[0])
      Array([1, 1, 7, 0], dtype=int32)
    """
    if not isinstance(x, (jax.Array, np.ndarray)) or not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            "x must be an array of tokens, integers; for embedded tokens use "
            "dropjax.dropout(key, x, rate, shared_axes=-1)"
        )
    x, limits = jnp.asarray(x), jnp.iinfo(x.dtype)
    for name, token in [("unknown", unknown), *(("protected", token) for token in protected)]:
        if isinstance(token, bool) or not hasattr(token, "__index__"):
            raise TypeError(f"{name} must hold integers, as x does; got {token!r}")
        if not limits.min <= token <= limits.max:
            raise ValueError(f"{name} holds {token}, which is no token of dtype {x.dtype}")
    keep = keep_mask(key, rate, x.shape)
    for token in protected:
        keep |= x == jnp.asarray(token, x.dtype)
    return jnp.where(keep, x, jnp.asarray(unknown, x.dtype))


@scheme
class Word(Scheme):
    """Drops embedded tokens, each with all its features."""

    rate: Rate = 0.3

    acts_on: ClassVar = frozenset({Kind.EMBED})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, [*shape[:-1], 1])

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
