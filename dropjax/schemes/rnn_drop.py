"""RNNDrop: drops memory cells of an LSTM for a whole sequence.

Source: Moon, Choi, Lee, Song 2015, "RNNDrop: A Novel Dropout for RNNs in ASR" (IEEE ASRU),
section 3: c_t = m (f c_tm1 + i g_t) with one mask m for all steps of a sequence.

Differs: the mask is applied where the cell is read, h_t = o d(tanh(c_t)), and what is kept is
scaled there in training. A memory cell acts on its own next value and on what is read, and on
nothing else. So with one mask a sequence this is the paper's network, except for the scale, which
inside the memory would be multiplied in again at every step.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.schemes.variational import variational_dropout

Array = jax.Array


def rnn_drop(key: Array, x: ArrayLike, rate: ArrayLike, *, time_axis: int = -2) -> Array:
    """Dropout of memory cells, on what is read out of them.

    In a loop over steps, where there is no time axis, call it before the loop on ones and multiply.

    Args:
      key: PRNG key, typed or raw.
      x: tanh(c_t) of an LSTM, floats, (..., T, F) for the default `time_axis`; each sequence of a
        batch gets its own mask.
      rate: probability of dropping a cell, in [0, 1]; may be traced, or an array that broadcasts
        to the mask, which has size 1 along time. Typical: 0.2 to 0.5.
      time_axis: the axis that shares the mask.

    Returns:
      An array of the shape and dtype of x, with mean x.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; x has no such axis.

    Cost: 32 random bits a cell; about the time of reading x and writing the result. 8 bytes a key
      are kept for the backward pass, which draws the mask again.

    Source: Moon et al. 2015, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.rnn_drop(jax.random.key(0), jnp.ones((2, 4)), 0.5)
      Array([[0., 0., 2., 0.],
             [0., 0., 2., 0.]], dtype=float32)
    """
    return variational_dropout(key, x, rate, time_axis=time_axis)


@scheme
class RNNDrop(Scheme):
    """Memory cells of an LSTM, dropped for a whole sequence."""

    rate: Rate = 0.25

    acts_on: ClassVar = frozenset({Kind.READOUT})
    made_for: ClassVar = "rnn"

    def refuses(self, sites: Sequence[Site]) -> str | None:
        if all("time" in site.axes for site in sites):
            return None
        return "a site it acts on has no time axis, along which to share the mask"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, site.shared(shape, "time"))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
