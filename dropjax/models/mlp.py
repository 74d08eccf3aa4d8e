"""A multilayer perceptron on a flattened input.

Sites: "input"; for each hidden layer i "layer_i/linear" and "layer_i/hidden"; "head/linear".
"""

import flax.linen as nn
import jax

from dropjax.core.draw import Draw
from dropjax.core.site import Kind, Site, input_axes
from dropjax.models.layers import Dense

Array = jax.Array


class MLP(nn.Module):
    """Dense layers with ReLU: x (any shape) -> (outputs,).

    Attributes:
      outputs: size of the output.
      widths: units of each hidden layer; () for a linear model.
    """

    outputs: int
    widths: tuple[int, ...] = (512, 256)

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.widths):
            raise ValueError(f"mlp: widths must be positive, got {self.widths}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        steps = len(self.widths) + 1
        x = draw(x, Site("input", Kind.INPUT, input_axes(x.ndim))).reshape(-1)
        for i, width in enumerate(self.widths):
            scope, depth = draw.scope(f"layer_{i}"), (i + 1) / steps
            x = nn.relu(Dense(width, depth, name=f"layer_{i}")(x, scope))
            x = scope(x, Site("hidden", Kind.HIDDEN, ("feature",), depth))
        return Dense(self.outputs, 1.0, name="head")(x, draw.scope("head"))
