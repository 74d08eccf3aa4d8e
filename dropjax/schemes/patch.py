"""Patch dropout: drops tokens of a sequence, which becomes shorter.

Source: Liu, Matsoukas, Strand, Azizpour, Smith 2022, "PatchDropout: Economizing Vision Transformers
Using Patch Dropout" (arXiv 2208.07220), section 3; Li, Fan, Hu, Feichtenhofer, He 2022, "Scaling
Language-Image Pre-training via Masking" (arXiv 2212.00794), section 3.

Differs: kept tokens stay in their order; the authors' code shuffles them.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Fixed, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bits import seed_of, words
from dropjax.ops.checks import check_floating, check_known, check_rate_value, check_whole
from dropjax.ops.keys import check_key

Array = jax.Array


def patch_dropout(
    key: Array, x: ArrayLike, rate: ArrayLike, *, prefix: int = 1, ordered: bool = True
) -> tuple[Array, Array]:
    """Keeps some tokens of each sequence, chosen uniformly without replacement.

    Of the n tokens after the prefix, n (1 - rate) are kept, rounded down, but at least one; their
    number is the same for each sequence. Nothing is scaled. At test time all tokens are used.

    Args:
      key: PRNG key, typed or raw. Under `jax.vmap` with one key for all, every example keeps the
        same tokens: map over keys too.
      x: tokens, floats, (..., tokens, features); each sequence of a batch keeps tokens of its own.
        Add positional encodings before, or gather them at `index` after.
      rate: the share of tokens that is dropped, in [0, 1]. It decides the shape of the result, and
        so cannot be traced. Typical: 0.5.
      prefix: how many tokens at the start are always kept, such as a class token.
      ordered: whether tokens stay in their order; if not, the kept come in random order after
        the prefix, which spares a sort.

    Returns:
      The tokens that are kept, of the dtype of x, the prefix first; and their positions in x,
      int32, of shape (..., tokens kept). At rate 0 that is all of x, in its order.

    Raises:
      TypeError: x holds no floats, key is no PRNG key, rate is traced, or ordered is no boolean.
      ValueError: rate outside [0, 1] or not one number; x has no axis of tokens, or it is sharded
        on a mesh with Explicit axes; prefix is negative or more than there are.

    Cost: 32 random bits a token, a sort of them, and a gather; what follows has fewer tokens. The
      index is kept for the backward pass.

    Source: Liu et al. 2022, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x = jnp.arange(14.0).reshape(7, 2)
      >>> y, index = dropjax.patch_dropout(jax.random.key(0), x, 0.5)
      >>> index
      Array([0, 1, 4, 6], dtype=int32)
    """
    key, x = check_key(key), check_floating(x)
    if x.ndim < 2:
        raise ValueError(f"x must be (..., tokens, features), got shape {x.shape}")
    tokens = x.shape[-2]
    check_known(x.shape, [-2], "it decides how many tokens are kept")
    check_whole(x, -2, "tokens are chosen")
    if not isinstance(prefix, (int, np.integer)) or isinstance(prefix, bool) or prefix < 0:
        raise ValueError(f"prefix must be a whole number of tokens, at least 0; got {prefix!r}")
    if prefix > tokens:
        raise ValueError(f"prefix={prefix} is more than the {tokens} tokens of x")
    if not isinstance(ordered, (bool, np.bool_)):
        raise TypeError(f"ordered must be True or False, got {ordered!r}")
    count = _count(rate, tokens - prefix)
    index = _positions(key, (*x.shape[:-2], tokens - prefix), count, bool(ordered))
    first = jnp.broadcast_to(jnp.arange(prefix, dtype=jnp.int32), (*x.shape[:-2], prefix))
    index = jnp.concatenate([first, index + np.int32(prefix)], -1)
    return jnp.take_along_axis(x, index[..., None], -2), index


def _count(rate: ArrayLike, tokens: int) -> int:
    """How many of the tokens are kept."""
    if isinstance(rate, Tracer):
        raise TypeError(
            "rate must be a Python number: it decides how many tokens are kept, and so the shape "
            f"of the result; got the traced {rate}"
        )
    check_rate_value(rate)
    if np.ndim(rate):
        raise ValueError(f"rate must be one number, for sequences of one length; got {rate!r}")
    # 20 (1 - 0.9) is a little less than 2, and 0.3 in float32 a little more than 0.3.
    share = 1 - float(np.asarray(rate, np.float64)) + 1e-7
    return min(tokens, max(1, math.floor(tokens * share)))


def _positions(key: Array, shape: Sequence[int], count: int, ordered: bool) -> Array:
    """The positions of `count` of the last axis's elements, of shape (..., count), int32."""
    if count == shape[-1]:
        return jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), tuple(shape))
    place = jax.lax.broadcasted_iota(jnp.int32, tuple(shape), len(shape) - 1)
    _, place = jax.lax.sort((words(seed_of(key), shape), place), num_keys=1)
    kept = jax.lax.slice_in_dim(place, 0, count, axis=-1)
    return jnp.sort(kept, -1) if ordered else kept


@scheme
class Patch(Scheme):
    """Patches or tokens, left out: what follows sees, and computes, fewer of them.

    Evaluates with all of x, of which training sees some rows.

    The rate decides about shapes: it cannot be traced, and no strength multiplies it.

    Args:
      rate: the share of tokens that is dropped, in [0, 1].
    """

    rate: Fixed = 0.5

    acts_on: ClassVar = frozenset({Kind.TOKENS})
    made_for: ClassVar = "transformer"
    resizes: ClassVar = True
    expected_is_mean: ClassVar = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate_value(self.rate)

    def rates_at(self, site: Site) -> dict[str, Any]:
        return {"rate": self.rate}

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        """The positions that are kept."""
        return _positions(keys.example, shape[:1], _count(self.rate, shape[0]), ordered=True)

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        check_whole(x, 0, "tokens are chosen")
        return x[noise]
