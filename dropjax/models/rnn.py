"""A recurrent network that reads an image row by row and classifies it from its last output.

Sites: "input"; for each layer i "layer_i/linear" (input to gates), "layer_i/recurrent_kernel"
(hidden to gates, as a weight), "layer_i/recurrent" (the previous hidden state on its way into the
gates), "layer_i/update" (what an LSTM or GRU is about to write into its memory),
"layer_i/readout" (what an LSTM reads out of it), "layer_i/state" and, for an LSTM, "layer_i/cell"
(the new states), "layer_i/output"; for each dense layer k after them "dense_k/linear" and
"dense_k/hidden"; "head/linear". With
`gates="untied"` noise on what enters the gates ("input", "layer_i/recurrent" and the outputs that
the next layer reads) has an axis "gate".
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from dropjax.core.draw import Draw
from dropjax.core.site import Kind, Site
from dropjax.models.fields import added
from dropjax.models.layers import Dense, Recurrent
from dropjax.nn.recurrent import CELLS
from dropjax.ops.checks import check_choice

Array = jax.Array


class RNN(nn.Module):
    """Recurrent layers, dense layers with ReLU if asked for, and a dense head.

    x (rows, columns, ...), at least one row -> (outputs,).

    Attributes:
      outputs: size of the output.
      cell: the kind of recurrent cell.
      width: units of each recurrent layer.
      layers: number of recurrent layers.
      gates: "tied" if all gates of a layer see the same noise, "untied" if each gate has its own:
        the two forms of Gal & Ghahramani 2016 (arXiv 1512.05287), section 4.
      dense: units of each dense layer between the last output and the head; () for no such layer.
    """

    outputs: int
    cell: Literal["lstm", "gru", "elman"] = "lstm"
    width: int = 128
    layers: int = 1
    gates: Literal["tied", "untied"] = "tied"
    dense: tuple[int, ...] = added(())

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"rnn: cell must be one of {', '.join(CELLS)}; got {self.cell!r}")
        check_choice(self.gates, ("tied", "untied"), "rnn: gates")
        if self.gates == "untied" and CELLS[self.cell].gates == 1:
            raise ValueError(f'rnn: gates="untied" would do nothing: {self.cell} has no gates')
        if self.width < 1 or self.layers < 1:
            raise ValueError(
                f"rnn: width and layers must be positive, got width={self.width}, "
                f"layers={self.layers}"
            )
        if any(width < 1 for width in self.dense):
            raise ValueError(f"rnn: dense must be positive, got {self.dense}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        if x.ndim < 2:
            raise ValueError(f"rnn reads rows: an example must have 2 or more axes, got {x.shape}")
        if not x.shape[0]:
            raise ValueError(
                "rnn reads a sequence row by row: an example must have at least one row, got the "
                f"shape {x.shape}"
            )
        steps = self.layers + len(self.dense) + 1
        cell, untied = CELLS[self.cell], self.gates == "untied"
        axes = ("time", "gate", "feature") if untied else ("time", "feature")

        def for_gates(x: Array) -> Array:
            steps, features = x.shape
            return jnp.broadcast_to(x[:, None], (steps, cell.gates, features)) if untied else x

        x = for_gates(x.reshape(x.shape[0], -1))
        x = draw(x, Site("input", Kind.INPUT, axes))
        for i in range(self.layers):
            scope, depth = draw.scope(f"layer_{i}"), (i + 1) / steps
            x = Recurrent(cell, self.width, untied, depth, name=f"layer_{i}")(x, scope)
            if i == self.layers - 1:
                # Only the last output is read, so only its noise is drawn.
                x, axes = x[-1], ("feature",)
            else:
                x = for_gates(x)
            x = scope(x, Site("output", Kind.HIDDEN, axes, depth))
        for k, width in enumerate(self.dense):
            scope, depth = draw.scope(f"dense_{k}"), (self.layers + k + 1) / steps
            x = nn.relu(Dense(width, depth, name=f"dense_{k}")(x, scope))
            x = scope(x, Site("hidden", Kind.HIDDEN, ("feature",), depth))
        return Dense(self.outputs, 1.0, name="head")(x, draw.scope("head"))
