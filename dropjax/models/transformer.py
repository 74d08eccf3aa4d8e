"""A transformer that classifies an image from its patches, or a sequence from its steps.

Sites: "input", "embed/linear" and "embedded" (patches or steps, with their positions), or, of a
sequence of tokens, "embed/table" and "embed/embedded" (without); "tokens" (with their positions:
any may be left out); for each layer i those of `models.layers.Attention` as
"layer_i/attention/...", and "layer_i/attention/branch" (before it is added);
"layer_i/mlp/in/linear", "layer_i/mlp/hidden", "layer_i/mlp/out/linear", "layer_i/mlp/branch",
"layer_i/layer" (the output of the layer, with its input as fallback); "head/linear".

A layer has two residual branches, so the l-th of all is at depth l / (2 * layers), as what leads
up to it is.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from dropjax.core.draw import Draw
from dropjax.core.site import Kind, Site, input_axes
from dropjax.models.layers import Attention, Dense, Embed, LayerNorm
from dropjax.ops.checks import check_choice

Array = jax.Array

_SEQUENCE = ("time", "feature")


class Transformer(nn.Module):
    """Pre-norm blocks of attention and a two-layer MLP, and a dense head.

    x is an image (height, width, channels), cut into patches; a sequence (steps, features); or,
    with `vocabulary`, a sequence of tokens (steps,), integers. Returns (outputs,).

    Source: Vaswani et al. 2017 (arXiv 1706.03762); on patches Dosovitskiy et al. 2021 (arXiv
    2010.11929), here small.

    Attributes:
      outputs: size of the output.
      width: features of each token; a multiple of `heads`.
      layers: number of layers.
      heads: attention heads in each layer.
      hidden: units in the MLP of each layer.
      patch: side of a patch in pixels. Height and width of an image must be multiples of it; for
        other data it has no meaning.
      pooling: what the head reads: the "mean" of the tokens, or a learned "token" beside them.
      vocabulary: number of different tokens; 0 if the examples are not tokens.
    """

    outputs: int
    width: int = 64
    layers: int = 2
    heads: int = 4
    hidden: int = 128
    patch: int = 4
    pooling: Literal["mean", "token"] = "mean"
    vocabulary: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"transformer: {name} must be positive, got {getattr(self, name)}")
        if self.vocabulary < 0:
            raise ValueError(f"transformer: vocabulary must be 0 or more, got {self.vocabulary}")
        if self.width % self.heads:
            raise ValueError(
                f"transformer: width must be a multiple of heads={self.heads}, got {self.width}"
            )
        check_choice(self.pooling, ("mean", "token"), "transformer: pooling")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        x = self._embedded(x, draw)
        position = self.param("position", nn.initializers.normal(0.02), x.shape)
        x = x + position
        if not self.vocabulary:
            x = draw(x, Site("embedded", Kind.EMBED, _SEQUENCE))
        x = draw(x, Site("tokens", Kind.TOKENS, _SEQUENCE))
        if self.pooling == "token":
            token = self.param("token", nn.initializers.normal(0.02), (1, self.width))
            x = jnp.concatenate([token, x])
        for i in range(self.layers):
            # Each layer has two residual branches, its attention and its MLP.
            depths = (2 * i + 1) / (2 * self.layers), (i + 1) / self.layers
            block = _Layer(self.heads, self.hidden, depths, name=f"layer_{i}")
            x = block(x, draw.scope(f"layer_{i}"))
        x = LayerNorm(name="norm")(x)
        x = x[0] if self.pooling == "token" else x.mean(0)
        return Dense(self.outputs, 1.0, name="head")(x, draw.scope("head"))

    def _embedded(self, x: Array, draw: Draw) -> Array:
        if self.vocabulary:
            if x.ndim != 1 or not jnp.issubdtype(x.dtype, jnp.integer):
                raise ValueError(
                    f"transformer: with vocabulary={self.vocabulary} an example is a sequence of "
                    f"integers; got {x.dtype}{list(x.shape)}"
                )
            return Embed(self.vocabulary, self.width, name="embed")(x, draw.scope("embed"))
        if x.ndim not in (2, 3):
            raise ValueError(
                "transformer reads images (height, width, channels), sequences (steps, features) "
                f"or, with vocabulary=..., tokens (steps,); got an example of shape {x.shape}"
            )
        x = draw(x, Site("input", Kind.INPUT, input_axes(x.ndim)))
        rows = self._patches(x) if x.ndim == 3 else x
        return Dense(self.width, 0.0, name="embed")(rows, draw.scope("embed"))

    def _patches(self, x: Array) -> Array:
        """(height, width, channels) -> (patches, features), row by row."""
        height, width, channels = x.shape
        side = self.patch
        if height % side or width % side:
            raise ValueError(
                f"transformer: patch={side} does not divide the image, {height} x {width}"
            )
        x = x.reshape(height // side, side, width // side, side, channels)
        return x.transpose(0, 2, 1, 3, 4).reshape(-1, side * side * channels)


class _Layer(nn.Module):
    """Attention and an MLP, each added to what it was given after normalisation."""

    heads: int
    hidden: int
    depths: tuple[float, float]

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        start, (depth, end) = x, self.depths
        scope = draw.scope("attention")
        y = LayerNorm(name="norm_attention")(x)
        y = Attention(self.heads, depth, name="attention")(y, scope)
        x = x + scope(y, Site("branch", Kind.BRANCH, _SEQUENCE, depth))
        scope = draw.scope("mlp")
        y = LayerNorm(name="norm_mlp")(x)
        y = nn.gelu(Dense(self.hidden, end, name="mlp_in")(y, scope.scope("in")))
        y = scope(y, Site("hidden", Kind.HIDDEN, _SEQUENCE, end))
        y = Dense(x.shape[-1], end, name="mlp_out")(y, scope.scope("out"))
        x = x + scope(y, Site("branch", Kind.BRANCH, _SEQUENCE, end))
        return draw(x, Site("layer", Kind.LAYER, _SEQUENCE, end), start)
