"""A recurrent network that reads an image row by row and classifies it from its last output.

Sites: "input"; for each layer i "layer_i/linear" (input to gates), "layer_i/recurrent_kernel"
(hidden to gates, as a weight), "layer_i/recurrent" (the previous hidden state on its way into the
gates), "layer_i/state" and, for an LSTM, "layer_i/cell" (the new states), "layer_i/output";
"head/linear".
"""

from typing import Literal

import flax.linen as nn
import jax

from dropjax.core.draw import Draw
from dropjax.core.site import Kind, Site
from dropjax.nn.linen import Dense, Recurrent
from dropjax.nn.recurrent import CELLS

Array = jax.Array


class RNN(nn.Module):
    """Recurrent layers and a dense head: x (rows, columns, ...) -> (outputs,).

    Attributes:
      outputs: size of the output.
      cell: "lstm", "gru" or "elman".
      width: units of each layer.
      layers: how many.
    """

    outputs: int
    cell: Literal["lstm", "gru", "elman"] = "lstm"
    width: int = 128
    layers: int = 1

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"rnn: cell must be one of {', '.join(CELLS)}; got {self.cell!r}")
        if self.width < 1 or self.layers < 1:
            raise ValueError(
                f"rnn: width and layers must be positive, got width={self.width}, "
                f"layers={self.layers}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        if x.ndim < 2:
            raise ValueError(f"rnn reads rows: an example must have 2 or more axes, got {x.shape}")
        x = draw(x.reshape(x.shape[0], -1), Site("input", Kind.INPUT, ("time", "feature")))
        for i in range(self.layers):
            scope, depth = draw.scope(f"layer_{i}"), (i + 1) / (self.layers + 1)
            x = Recurrent(CELLS[self.cell], self.width, depth, name=f"layer_{i}")(x, scope)
            axes = ("time", "feature")
            if i == self.layers - 1:
                # Only the last output is read, so only its noise is drawn.
                x, axes = x[-1], ("feature",)
            x = scope(x, Site("output", Kind.HIDDEN, axes, depth))
        return Dense(self.outputs, 1.0, name="head")(x, draw.scope("head"))
