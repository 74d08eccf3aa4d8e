"""A Flax linen layer that puts a scheme into a model of yours, as linen's own Dropout does."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from dropjax.core.place import Place
from dropjax.core.scheme import Scheme

Array = jax.Array


class Drop(nn.Module):
    """A dropout scheme at one place of an existing model.

    Attributes:
      scheme: a scheme, or its text, such as "spatial(rate=0.2)". Its `at` would do nothing.
      axes: names for the last axes of x: "feature", ("time", "feature"), ("height", "width",
        "feature"). All axes before them are the batch, whose members get noise of their own.
      deterministic: True to evaluate: the scheme's expectation instead of a sample. Set it here or
        in the call.
      depth: of the place in the model, from 0 to 1, for schemes whose rate grows with depth. At 1
        the rate is the one that is written.
      rng_collection: the name of the PRNG. No key is taken from it where nothing is random: under
        "none", and where all rates are 0.
      broadcast_dims: axes along which one decision is shared: numbers of axes of x, batch included,
        as in Flax's Dropout, or names out of `axes`.

    Raises:
      ValueError, TypeError: the scheme needs a previous state, weights, or values that it learns;
        the message says what to use instead. In the call: x has fewer axes than are named or holds
        no floats; `deterministic` is given twice or not at all.
    """

    scheme: Scheme | str
    axes: str | Sequence[str] = ("feature",)
    deterministic: bool | None = None
    depth: float = 1.0
    rng_collection: str = "dropout"
    broadcast_dims: int | str | Sequence[int | str] = ()

    def __post_init__(self) -> None:
        _place(self)  # a wrong one fails where it is written
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Array, deterministic: bool | None = None, rng: Array | None = None
    ) -> Array:
        """`x` with noise, or at its expectation.

        Args:
          x: floats.
          deterministic: True to evaluate. Set it here or as an attribute.
          rng: a key to use in place of the PRNG of that name.
        """
        decided = nn.merge_param("deterministic", self.deterministic, deterministic)
        return _place(self)(
            x, decided, lambda: self.make_rng(self.rng_collection) if rng is None else rng
        )


# No method: Flax wraps those, and a module that is shared or summarised has no scope for them yet.
def _place(drop: Drop) -> Place:
    return Place.of(drop.scheme, drop.axes, drop.depth, drop.broadcast_dims)
