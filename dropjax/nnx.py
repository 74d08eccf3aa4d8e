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
      deterministic: True to evaluate: the scheme's expectation instead of a sample. `model.eval()`
        sets it, `model.train()` unsets it, and a call can override it. If it is None, one of them
        has to be used.
      depth: of the place in the model, from 0 to 1, for schemes whose rate grows with depth. At 1
        the rate is the one that is written.
      rng_collection: the name of the stream in `rngs`. No key is taken from it where nothing is
        random: under "none", and where all rates are 0.
      rngs: where keys come from; here or in the call. A call may have a key instead.
      broadcast_dims: axes along which one decision is shared: numbers of axes of x, batch included,
        as in Flax's Dropout, or names out of `axes`.

    `model.set_attributes(dropjax.nnx.Drop, rate=0.1)` changes the rates of a model that is made. A
    layer whose scheme has none, or is a chain with several, has no attribute `rate`.

    Raises:
      ValueError, TypeError: the scheme needs a previous state, weights, or values that it learns;
        the message says what to use instead.
    """

    def __init__(
        self,
        scheme: Scheme | str,
        axes: str | Sequence[str] = ("feature",),
        *,
        deterministic: bool | None = False,
        depth: float = 1.0,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        broadcast_dims: int | str | Sequence[int | str] = (),
    ) -> None:
        # Checked and parsed once; its rates are no variables of the model.
        self.place = nnx.static(Place.of(scheme, axes, depth, broadcast_dims))
        self.deterministic = deterministic
        self.rng_collection = rng_collection
        if not isinstance(rngs, (nnx.Rngs, nnx.RngStream, type(None))):
            raise TypeError(f"rngs must be an nnx.Rngs or one of its streams, got {rngs!r}")
        stream = rngs[rng_collection] if isinstance(rngs, nnx.Rngs) else rngs
        self.rngs = None if stream is None else stream.fork()

    @property
    def rate(self) -> float:
        """The rate of the scheme, of a chain that of the one link that has one."""
        return self.place.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.place = nnx.static(self.place.with_rate(rate))

    def __call__(
        self,
        x: Array,
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Array | None = None,
    ) -> Array:
        """`x` with noise, or at its expectation.

        Raises:
          ValueError: `deterministic` is None here and in the layer; or noise is to be drawn, and no
            `rngs` was given here or to the layer; or x has fewer axes than are named.
          TypeError: x holds no floats.
        """
        decided = self.deterministic if deterministic is None else deterministic
        if decided is None:
            raise ValueError(
                "deterministic is None: say whether to evaluate by model.train() or model.eval(), "
                "or give Drop or the call deterministic=True or False"
            )
        return self.place(x, decided, lambda: self._key(self.rngs if rngs is None else rngs))

    def _key(self, source: nnx.Rngs | nnx.RngStream | Array | None) -> Array:
        if source is None:
            raise ValueError("no rngs: give Drop(rngs=...), or the call a key or an nnx.Rngs")
        if isinstance(source, nnx.Rngs):
            source = source[self.rng_collection]
        return source() if callable(source) else source

    def set_view(self, deterministic: bool | None = None) -> None:
        """For `nnx.view`.

        Args:
          deterministic: True to evaluate.
        """
        if deterministic is not None:
            self.deterministic = deterministic
