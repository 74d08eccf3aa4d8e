"""Variational dropout for recurrent networks: one mask a sequence.

Source: Gal, Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural
Networks" (arXiv 1512.05287), section 4 and figure 1: the same mask at every time step, on the
inputs, on the recurrent state and on the outputs.

Differs: one mask serves all gates, the paper's "tied" form, unless the network is made with
`gates="untied"`. Kingma's "variational dropout" is another scheme.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, expected_drop
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.schemes.bernoulli import dropout

Array = jax.Array


def variational_dropout(key: Array, x: ArrayLike, rate: ArrayLike, *, time_axis: int = -2) -> Array:
    """Dropout with one mask for all time steps of a sequence.

    Args:
      key: PRNG key, typed or raw.
      x: floats, (..., T, F) for the default `time_axis`; each sequence of a batch gets its own
        mask.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask, which has size 1 along time. Typical: 0.25 to 0.5.
      time_axis: the axis that shares the mask.

    Returns:
      An array of the shape and dtype of x, with mean x.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; x has no such axis.

    Cost: 32 random bits a feature of a sequence; about the time of reading x and writing the
      result. 8 bytes a key are kept for the backward pass, which draws the mask again.

    Source: Gal & Ghahramani 2016, section 4.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.variational_dropout(jax.random.key(0), jnp.ones((2, 4)), 0.5)
      Array([[0., 0., 2., 0.],
             [0., 0., 2., 0.]], dtype=float32)
    """
    x = check_floating(x)
    (axis,) = normalize_axes((time_axis,), x.ndim, "time_axis")
    return dropout(key, x, rate, shared_axes=axis)


@scheme
class Variational(Scheme):
    """One mask a sequence on inputs, recurrent state and outputs."""

    rate: Rate = 0.25

    acts_on: ClassVar = frozenset({Kind.INPUT, Kind.EMBED, Kind.RECURRENT, Kind.HIDDEN})
    made_for: ClassVar = "rnn"

    def refuses(self, sites: Sequence[Site]) -> str | None:
        if any("time" in site.axes for site in sites):
            return None
        return "no site it acts on has a time axis; without one it is bernoulli, so ask for that"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        return Mask.of(keys.example, self.rate, site.shared(shape, "time"))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
