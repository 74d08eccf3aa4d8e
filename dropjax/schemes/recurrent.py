"""Recurrent dropout without memory loss: drops what a gated cell writes, never what it remembers.

Source: Semeniuta, Severyn, Barth 2016, "Recurrent Dropout without Memory Loss" (arXiv 1603.05118),
section 3: c_t = f c_tm1 + i d(g_t) in an LSTM, h_t = (1 - z) h_tm1 + z d(g_t) in a GRU.

Differs: what is kept is scaled in training, not at test time. The update enters linearly, so the
two differ by a rescaling.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.schemes.bernoulli import dropout

Array = jax.Array


def recurrent_dropout(
    key: Array, x: ArrayLike, rate: ArrayLike, *, time_axis: int | None = None
) -> Array:
    """Dropout on the update of a gated cell: the LSTM's g_t, the GRU's candidate state.

    Args:
      key: PRNG key, typed or raw; another one in every step.
      x: the update before its gate multiplies it, floats of any shape.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask. Typical: 0.25 to 0.5.
      time_axis: an axis of x, if it has time, along which one mask is shared; None: no such axis,
        or a mask for each step.

    Returns:
      An array of the shape and dtype of x, with mean x.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; x has no such axis.

    Cost: 32 random bits an element of the mask; about the time of reading x and writing the result.
      8 bytes a key are kept for the backward pass, which draws the mask again.

    Source: Semeniuta et al. 2016, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.recurrent_dropout(jax.random.key(0), jnp.ones(4), 0.5)
      Array([0., 0., 2., 0.], dtype=float32)
    """
    x = check_floating(x)
    shared = () if time_axis is None else normalize_axes((time_axis,), x.ndim, "time_axis")
    return dropout(key, x, rate, shared_axes=shared)


@scheme
class Recurrent(Scheme):
    """Drops updates, with a mask for each step or one for the sequence.

    Args:
      mask: "step", a mask for each step of a sequence; "sequence", one mask for all its steps.
    """

    rate: Rate = 0.25
    mask: Literal["step", "sequence"] = "step"

    acts_on: ClassVar = frozenset({Kind.UPDATE})
    made_for: ClassVar = "rnn"

    def refuses(self, sites: Sequence[Site]) -> str | None:
        if self.mask == "step" or all("time" in site.axes for site in sites):
            return None
        return 'mask="sequence" would do nothing: there is no time axis'

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        shape = site.shared(shape, "time") if self.mask == "sequence" else shape
        return Mask.of(keys.example, self.rate, shape)

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
