"""An Equinox layer that puts a scheme into a model of yours, as Equinox's own Dropout does."""

from collections.abc import Sequence

import equinox as eqx
import jax

from dropjax.core.place import Place
from dropjax.core.scheme import Scheme
from dropjax.core.spec import parse

Array = jax.Array


class Drop(eqx.Module):
    """A dropout scheme at one place of an existing model.

    `equinox.nn.inference_mode(model)` evaluates, and with `value=False` draws noise again.
    `equinox.tree_at(lambda model: model.drop.scheme.rate, model, 0.1)` changes a rate.

    Args:
      scheme: a scheme, or its text, such as "spatial(rate=0.2)". Its `at` would do nothing.
      axes: names for the last axes of x, in their order: "feature", ("time", "feature"), and where
        channels come first ("feature", "height", "width"). Axes before them are a batch, whose
        members get noise of their own; under `jax.vmap` over examples map over keys too.
      inference: True to evaluate: the scheme's expectation instead of a sample.
      depth: of the place in the model, from 0 to 1, for schemes whose rate grows with depth. At 1
        the rate is the one that is written.

    Raises:
      ValueError, TypeError: the scheme needs a previous state, weights, or values that it learns;
        the message says what to use instead.
    """

    scheme: Scheme
    axes: tuple[str, ...] = eqx.field(static=True)
    inference: bool
    depth: float = eqx.field(static=True)

    def __init__(
        self,
        scheme: Scheme | str,
        axes: str | Sequence[str] = ("feature",),
        *,
        inference: bool = False,
        depth: float = 1.0,
    ) -> None:
        Place.of(scheme, axes, depth)  # a wrong one fails where it is written
        self.scheme = parse(scheme) if isinstance(scheme, str) else scheme
        self.axes = (axes,) if isinstance(axes, str) else tuple(axes)
        self.inference = inference
        self.depth = depth

    def __call__(
        self, x: Array, *, key: Array | None = None, inference: bool | None = None
    ) -> Array:
        """`x` with noise, or at its expectation.

        Args:
          x: floats, one example, or a batch of them.
          key: PRNG key, typed or raw; needed where noise is drawn: not in inference, under "none",
            or where all rates are 0.
          inference: in place of the attribute.

        Raises:
          RuntimeError: noise is to be drawn, and there is no key.
          ValueError: x has fewer axes than are named.
          TypeError: x holds no floats, or key is no PRNG key.
        """

        def given() -> Array:
            if key is None:
                raise RuntimeError(
                    "no key: give the call key=..., or evaluate by equinox.nn.inference_mode(model)"
                )
            return key

        place = Place.of(self.scheme, self.axes, self.depth)
        return place(x, self.inference if inference is None else inference, given)
