"""Zoneout: a recurrent unit keeps its previous value instead of being set to 0.

Source: Krueger, Maharaj, Kramar et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving
Hidden Activations" (arXiv 1606.01305), section 3.2. The paper's character-level setting is
`zoneout(rate=0.5,at="cell")|zoneout(rate=0.05,at="state")`.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, choose, wide_dtype
from dropjax.ops.checks import as_rate, check_like
from dropjax.ops.keys import check_key

Array = jax.Array


def zoneout(key: Array, x: ArrayLike, rate: ArrayLike, *, previous: ArrayLike) -> Array:
    """Each unit of a new recurrent state keeps its previous value with probability `rate`.

    Args:
      key: PRNG key, typed or raw.
      x: the new state that the cell proposes, floats of any shape.
      rate: probability of keeping the previous value, in [0, 1]; may be traced, or an array that
        broadcasts to x. Typical: 0.05 to 0.15 for hidden states, 0.5 for LSTM cells.
      previous: the state before, of the shape and dtype of x.

    Returns:
      An array of the shape and dtype of x; nothing is rescaled. Its expectation is
      `dropjax.expected.zoneout`, which is not x.

    Raises:
      TypeError: x or previous holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; previous is not like x.

    Cost: 32 random bits an element; about the time of reading both and writing the result. 8 bytes
      a key are kept for the backward pass, which draws the mask again.

    Source: Krueger et al. 2017, section 3.2.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.zoneout(jax.random.key(0), jnp.ones(4), 0.5, previous=jnp.zeros(4))
      Array([0., 0., 1., 0.], dtype=float32)
    """
    key, x, previous = check_key(key), *check_like(x, previous)
    return choose(Mask.of(key, rate, x.shape), x, previous)


def expected(x: ArrayLike, rate: ArrayLike, *, previous: ArrayLike) -> Array:
    """The exact expectation of `zoneout`: rate * previous + (1 - rate) * x.

    Args:
      x: the new state that the cell proposes, floats of any shape.
      rate: probability of keeping the previous value, in [0, 1].
      previous: the state before, of the shape and dtype of x.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x or previous holds no floats.
      ValueError: rate outside [0, 1]; previous is not like x.

    Cost: no random bits; about the time of reading both and writing the result. Nothing but the
      rate is kept for the backward pass.
    """
    x, previous = check_like(x, previous)
    wide = wide_dtype(x.dtype)
    z = as_rate(rate, x.shape, dtype=jnp.finfo(wide).dtype).astype(wide)
    return (z * previous.astype(wide) + (1 - z) * x.astype(wide)).astype(x.dtype)


@scheme
class Zoneout(Scheme):
    """Zoneout on every recurrent state: hidden states and LSTM cells.

    Args:
      rate: the probability that a unit keeps its previous value, in [0, 1]. Typical: 0.05 to 0.15
        for hidden states, 0.5 for LSTM cells.
    """

    rate: Rate = 0.1

    acts_on: ClassVar = frozenset({Kind.STATE})
    made_for: ClassVar = "rnn"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, shape)

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return choose(noise, x, _required(fallback, site))

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected(x, self.rate, previous=_required(fallback, site))


def _required(fallback: Array | None, site: Site) -> Array:
    if fallback is None:
        raise ValueError(f"zoneout at {site.name!r} needs the previous state as fallback=")
    return fallback
