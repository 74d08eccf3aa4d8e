"""A Flax nnx layer that puts a scheme into a model of yours, as nnx's own Dropout does."""

from collections.abc import Sequence

import jax
from flax import nnx

from dropjax.core.place import Place
from dropjax.core.scheme import Scheme

Array = jax.Array


class Drop(nnx.Module):
    """A dropout scheme at one place of an existing model.

    Args:
      scheme: a scheme, or its text, such as "spatial(rate=0.2)". Its `at` would do nothing.
      axes: names for the last axes of x: "feature", ("time", "feature"), ("height", "width",
        "feature"). All axes before them are the batch, whose members get noise of their own.
      deterministic: evaluates: the scheme's expectation instead of a sample. `model.eval()` sets
        it, `model.train()` unsets it, and a call can override it.
      depth: of the place, for rates that grow with depth: 1 for a rate as it is written.
      rng_collection: the name of the stream in `rngs`.
      rngs: where keys come from; here or in the call. A call may have a key instead.

    Raises:
      ValueError, TypeError: the scheme needs a previous state, weights, or values that it learns;
        the message says what to use instead.
    """

    def __init__(
        self,
        scheme: Scheme | str,
        axes: str | Sequence[str] = ("feature",),
        *,
        deterministic: bool = False,
        depth: float = 1.0,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> None:
        # Checked and parsed once; its rates are no variables of the model.
        self.place = nnx.static(Place.of(scheme, axes, depth))
        self.deterministic = deterministic
        self.rng_collection = rng_collection
        if not isinstance(rngs, (nnx.Rngs, nnx.RngStream, type(None))):
            raise TypeError(f"rngs must be an nnx.Rngs or one of its streams, got {rngs!r}")
        stream = rngs[rng_collection] if isinstance(rngs, nnx.Rngs) else rngs
        self.rngs = None if stream is None else stream.fork()

    def __call__(
        self,
        x: Array,
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Array | None = None,
    ) -> Array:
        """`x` with noise, or at its expectation.

        Raises:
          ValueError: noise is to be drawn, and no `rngs` was given here or before.
        """
        if self.deterministic if deterministic is None else deterministic:
            return self.place.expected(x)
        source = self.rngs if rngs is None else rngs
        if source is None:
            raise ValueError("no rngs: give Drop(rngs=...), or the call a key or an nnx.Rngs")
        if isinstance(source, nnx.Rngs):
            source = source[self.rng_collection]
        return self.place.sampled(source() if callable(source) else source, x)

    def set_view(self, deterministic: bool | None = None) -> None:
        """For `nnx.view`.

        Args:
          deterministic: evaluates.
        """
        if deterministic is not None:
            self.deterministic = deterministic
