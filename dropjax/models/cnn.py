"""A convolutional network: stages of convolutions, each ended by pooling, and dense layers.

Sites: "input"; for each stage i "stage_i/map" (after pooling), and with `residual` for each of its
blocks j "stage_i/block_j/branch"; for each dense layer k "dense_k/linear" and "dense_k/hidden";
"head/linear".
"""

from typing import Literal

import flax.linen as nn
import jax

from dropjax.core.draw import Draw
from dropjax.core.site import Kind, Site, input_axes
from dropjax.models.fields import added
from dropjax.models.layers import BatchNorm, Conv, Dense
from dropjax.nn.convolution import pool
from dropjax.ops.checks import check_choice

Array = jax.Array

_MAP = ("height", "width", "feature")


class CNN(nn.Module):
    """Convolutions with ReLU, pooling, and a dense head: x (height, width, channels) -> (outputs,).

    Attributes:
      outputs: size of the output.
      channels: number of channels in each stage. Each stage ends with pooling, which halves height
        and width.
      blocks: convolutions in each stage; with `residual`, residual blocks of two convolutions.
      kernel: side of the kernel of each convolution in pixels, an odd number.
      pooling: what remains of 2 x 2 pixels at the end of a stage, their maximum or their average.
      dense: units of each dense layer after the stages; () for no such layer.
      residual: whether each block is added to its input (He et al. 2016, arXiv 1512.03385).
      norm: "batch" for batch normalisation after each convolution. Training uses the statistics of
        the whole batch, over all devices; evaluation uses running means.
      padding: "same" keeps height and width in a convolution; "valid" makes both smaller by
        kernel - 1, and is not for residual blocks.
    """

    outputs: int
    channels: tuple[int, ...] = (32, 64, 128)
    blocks: int = 1
    kernel: int = 3
    pooling: Literal["max", "average"] = "max"
    dense: tuple[int, ...] = (128,)
    residual: bool = False
    norm: Literal["none", "batch"] = "none"
    padding: Literal["same", "valid"] = added("same")

    def __post_init__(self) -> None:
        sizes = {"channels": self.channels, "blocks": (self.blocks,), "dense": self.dense}
        for name, values in sizes.items():
            if any(value < 1 for value in values):
                raise ValueError(f"cnn: {name} must be positive, got {getattr(self, name)}")
        if not self.channels:
            raise ValueError("cnn: channels must name at least one stage; mlp has none")
        check_choice(self.pooling, ("max", "average"), "cnn: pooling")
        check_choice(self.norm, ("none", "batch"), "cnn: norm")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"cnn: kernel must be odd, got {self.kernel}")
        check_choice(self.padding, ("same", "valid"), "cnn: padding")
        if self.padding == "valid" and self.residual:
            raise ValueError(
                'cnn: padding="valid" makes maps smaller, and residual=True adds them to their '
                "input; take one of the two"
            )
        if self.padding == "valid" and self.kernel == 1:
            raise ValueError('cnn: padding="valid" would do nothing: kernel=1 needs no padding')
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        stages, least = len(self.channels), self._least_size()
        if x.ndim != 3 or min(x.shape[:2]) < least:
            raise ValueError(
                f"cnn reads images (height, width, channels); {stages} stages of "
                f'kernel={self.kernel} and padding="{self.padding}" reduce height and width to '
                f"less than 1 unless both are at least {least}. Got an example of shape {x.shape}"
            )
        steps = stages + len(self.dense) + 1
        x = draw(x, Site("input", Kind.INPUT, input_axes(x.ndim)))
        for i, width in enumerate(self.channels):
            scope = draw.scope(f"stage_{i}")
            for j in range(self.blocks):
                number = i * self.blocks + j + 1
                depth = number / (stages * self.blocks)
                last = j == self.blocks - 1
                block = _Block(
                    width,
                    self.kernel,
                    self.pooling if last else None,
                    self.residual,
                    self.norm == "batch",
                    depth,
                    self.padding,
                    name=f"stage_{i}_block_{j}",
                )
                x = block(x, scope.scope(f"block_{j}"))
            x = scope(x, Site("map", Kind.FEATURE_MAP, _MAP, (i + 1) / steps))
        x = x.reshape(-1)
        for k, width in enumerate(self.dense):
            scope, depth = draw.scope(f"dense_{k}"), (stages + k + 1) / steps
            x = nn.relu(Dense(width, depth, name=f"dense_{k}")(x, scope))
            x = scope(x, Site("hidden", Kind.HIDDEN, ("feature",), depth))
        return Dense(self.outputs, 1.0, name="head")(x, draw.scope("head"))

    def _least_size(self) -> int:
        """Of height and width, so that the last map is not empty."""
        size, lost = 1, self.blocks * (self.kernel - 1) if self.padding == "valid" else 0
        for _ in self.channels:
            size = 2 * size + lost
        return size


class _Block(nn.Module):
    """One convolution, or one residual block, and the pooling if it is the last of its stage."""

    width: int
    kernel: int
    pooling: str | None
    residual: bool
    batch_norm: bool
    depth: float
    padding: Literal["same", "valid"]

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        if self.residual:
            y = nn.relu(self._conv(x, draw, "conv_0"))
            y = self._conv(y, draw, "conv_1")
            y = draw(y, Site("branch", Kind.BRANCH, _MAP, self.depth))
            if x.shape[-1] != self.width:
                x = Conv(self.width, 1, name="shortcut")(x)
            x = x + y
        else:
            x = self._conv(x, draw, "conv")
        # ReLU after a maximum is the same as before it, on a quarter of the values.
        if self.pooling == "max":
            return nn.relu(pool(x, "max"))
        return nn.relu(x) if self.pooling is None else pool(nn.relu(x), self.pooling)

    def _conv(self, x: Array, draw: Draw, name: str) -> Array:
        bias = not self.batch_norm
        x = Conv(self.width, self.kernel, bias, self.padding, name=name)(x)
        return BatchNorm(name=f"{name}_norm")(x, draw.weight) if self.batch_norm else x
