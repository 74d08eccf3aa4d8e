"""The Flax layers that the models are made of.

Those with sites take a draw, and all take one example.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from dropjax.core.batch import mean_over_batch
from dropjax.core.draw import Draw
from dropjax.core.scheme import dense
from dropjax.core.site import Kind, Site
from dropjax.nn.convolution import conv
from dropjax.nn.recurrent import RecurrentCell

Array = jax.Array


class Dense(nn.Module):
    """A dense layer, its own LINEAR site "linear": x (..., inputs) -> (..., features).

    Attributes:
      features: outputs.
      depth: the site's depth.
    """

    features: int
    depth: float = 0.0

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        init = nn.initializers
        w = self.param("kernel", init.glorot_uniform(), (x.shape[-1], self.features))
        b = self.param("bias", init.zeros, (self.features,))
        return draw.linear(x, w, b, Site("linear", Kind.LINEAR, ("input", "output"), self.depth))


class Conv(nn.Module):
    """A convolution: x (height, width, inputs) -> (..., features).

    Attributes:
      features: output channels.
      kernel: height and width of the kernel, odd.
      bias: whether it has one.
      padding: "same" keeps height and width, by zeros around the image; "valid" has no zeros, and
        makes both smaller by kernel - 1.
    """

    features: int
    kernel: int = 3
    bias: bool = True
    padding: Literal["same", "valid"] = "same"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        w = self.param("kernel", nn.initializers.he_normal(), shape)
        y = conv(x, w, padding=self.padding)
        if not self.bias:
            return y
        b = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + b.reshape((1,) * (y.ndim - 1) + b.shape)


class BatchNorm(nn.Module):
    """Batch normalisation over the global batch of training, by running means elsewhere.

    It trains where "batch_stats" is mutable, as in `dropjax.train`, under the axes `BATCH_AXES`.
    What fills up an epoch's last, smaller batch is left out of the statistics, by `weight`.
    Source: Ioffe & Szegedy 2015 (arXiv 1502.03167).

    Attributes:
      momentum: of the running means.
    """

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Array, weight: Array | None = None) -> Array:
        training = self.is_mutable_collection("batch_stats") and not self.is_initializing()
        return _Norm(self.momentum, training, name="norm")(x, weight)


class _Norm(nn.Module):
    """x (..., features) by mean and variance of each feature: flax.linen.BatchNorm with weights.

    Its variables are Flax's, by name and shape, and without weights its numbers are, to the bit.
    Flax's has a mask for arrays, but none over mapped axes.

    Attributes:
      momentum: of the running means.
      training: whether mean and variance are the batch's.
    """

    momentum: float
    training: bool

    @nn.compact
    def __call__(self, x: Array, weight: Array | None) -> Array:
        size, init = x.shape[-1:], nn.initializers
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, size, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, size, jnp.float32)
        mean, var = running_mean.value, running_var.value
        if self.training:
            mean, var = self._statistics(x, weight)
            old = self.momentum
            running_mean.value = old * running_mean.value + (1 - old) * mean
            running_var.value = old * running_var.value + (1 - old) * var
        axes, around = tuple(range(x.ndim - 1)), (1,) * (x.ndim - 1) + size
        mean, var = jnp.expand_dims(mean, axes), jnp.expand_dims(var, axes)
        scale = self.param("scale", init.ones, size, jnp.float32)
        y = (x - mean) * (jax.lax.rsqrt(var + 1e-5) * scale.reshape(around))
        return y + self.param("bias", init.zeros, size, jnp.float32).reshape(around)

    def _statistics(self, x: Array, weight: Array | None) -> tuple[Array, Array]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes, square = tuple(range(x.ndim - 1)), jnp.square(wide)
        moments = mean_over_batch(jnp.stack([wide.mean(axes), square.mean(axes)]), weight)
        mean, square = moments[0], moments[1]
        return mean, jnp.maximum(0.0, square - jnp.square(mean))


class LayerNorm(nn.Module):
    """Layer normalisation over the features, with scale and bias: x (..., features).

    Source: Ba, Kiros, Hinton 2016 (arXiv 1607.06450).
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        with jax.numpy_rank_promotion("allow"):  # Flax's own code
            return nn.LayerNorm(name="norm")(x)


class Attention(nn.Module):
    """Self-attention of one sequence: x (steps, features) -> (steps, features).

    Sites: "query/linear", "key/linear", "value/linear" and "out/linear", its dense layers;
    "weights" (the attention weights, after the softmax); "heads" (the output of each head, before
    they are joined).

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.

    Attributes:
      heads: how many; they share out the features.
      depth: the depth of its sites.
    """

    heads: int
    depth: float = 0.0

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        steps, width = x.shape

        def dense(name: str, x: Array) -> Array:
            return Dense(width, self.depth, name=name)(x, draw.scope(name))

        def split(name: str) -> Array:
            return dense(name, x).reshape(steps, self.heads, -1).transpose(1, 0, 2)

        query, key, value = split("query"), split("key"), split("value")
        logits = jnp.einsum("hqf,hkf->hqk", query, key) / jnp.asarray(
            math.sqrt(query.shape[-1]), x.dtype
        )
        weights = jax.nn.softmax(logits)
        axes = ("head", "query", "key")
        weights = draw(weights, Site("weights", Kind.ATTENTION, axes, self.depth))
        y = jnp.einsum("hqk,hkf->hqf", weights, value)
        y = draw(y, Site("heads", Kind.HEADS, ("head", "time", "feature"), self.depth))
        return dense("out", y.transpose(1, 0, 2).reshape(steps, width))


class Embed(nn.Module):
    """Looks up tokens: integers (steps,) -> (steps, features).

    Its sites are "table", the table before tokens are looked up, and "embedded", what was found.

    Attributes:
      tokens: how many types there are.
      features: of each.
    """

    tokens: int
    features: int

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        table = self.param("table", nn.initializers.normal(1.0), (self.tokens, self.features))
        table = draw(table, Site("table", Kind.TABLE, ("token", "feature")))
        # A table of NumPy's, as loaded, cannot be read at what JAX traces.
        found = jnp.asarray(table)[x]
        return draw(found, Site("embedded", Kind.EMBED, ("time", "feature")))


def _hidden_kernel(key: Array, shape: tuple[int, int]) -> Array:
    """An orthogonal matrix for each gate."""
    width, gates = shape[0], shape[1] // shape[0]
    init = nn.initializers.orthogonal()
    blocks = [init(jax.random.fold_in(key, g), (width, width)) for g in range(gates)]
    return jnp.concatenate(blocks, axis=1)


class Recurrent(nn.Module):
    """One recurrent layer: x (steps, features) -> hidden states (steps, width).

    Noise is asked for before the scan and applied, row by row, inside: no key enters the loop.
    Masks are drawn where they are applied, and none is kept for the backward pass.

    Attributes:
      cell: the cell.
      width: units.
      untied: each gate sees its own noise, on x (steps, gates, features) and on the hidden state.
        The product with x then costs as many times as much as there are gates.
      depth: the depth of its sites.
    """

    cell: RecurrentCell
    width: int
    untied: bool = False
    depth: float = 0.0

    @nn.compact
    def __call__(self, x: Array, draw: Draw) -> Array:
        cell, width, steps = self.cell, self.width, x.shape[0]
        shape = (width, cell.gates * width)

        def bias(key: Array, size: tuple[int]) -> Array:
            del key
            b = jnp.zeros(size)
            if cell.forget_gate is None:
                return b
            start = cell.forget_gate * width
            return b.at[start : start + width].set(1.0)

        w_x = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], shape[1]))
        b = self.param("bias", bias, (shape[1],))
        w_h = self.param("recurrent_kernel", _hidden_kernel, shape)
        b_h = None
        if cell.hidden_bias:
            b_h = self.param("recurrent_bias", nn.initializers.zeros, (shape[1],))

        def site(name: str, kind: Kind, axes: tuple[str, ...]) -> Site:
            return Site(name, kind, axes, self.depth)

        weight_axes, state_axes = ("input", "output"), ("time", "feature")
        from_input = draw.linear(x, w_x, b, site("linear", Kind.LINEAR, weight_axes))
        w_h = draw(w_h, site("recurrent_kernel", Kind.WEIGHT, weight_axes))
        if self.untied:
            from_input = _own_gate(from_input, cell.gates)
            recurrent = site("recurrent", Kind.RECURRENT, ("time", "gate", "feature"))
            hidden_noise = draw.noise(recurrent, (steps, cell.gates, width))
        else:
            recurrent = site("recurrent", Kind.RECURRENT, state_axes)
            hidden_noise = draw.noise(recurrent, (steps, width))
        update = site("update", Kind.UPDATE, state_axes)
        update_noise = draw.noise(update, (steps, width)) if cell.has_update else ()
        readout = site("readout", Kind.READOUT, state_axes)
        readout_noise = draw.noise(readout, (steps, width)) if cell.has_readout else ()
        states = [site(name, Kind.STATE, state_axes) for name in cell.states]
        state_noise = [draw.noise(state, (steps, width)) for state in states]

        def from_hidden(h_tm1: Array, t: Array) -> Array:
            if not self.untied:
                return dense(draw.apply(draw.at(hidden_noise, t), h_tm1, recurrent), w_h, b_h)
            gates = jnp.broadcast_to(h_tm1[None], (cell.gates, width))
            gates = draw.apply(draw.at(hidden_noise, t), gates, recurrent)
            kernels = w_h.reshape(width, cell.gates, width)
            y = jnp.einsum("gi,igo->go", gates, kernels).reshape(-1)
            return y if b_h is None else y + b_h

        def step(previous: tuple[Array, ...], at_t: tuple[Array, Array]):
            t, from_input_t = at_t

            def write(candidate: Array) -> Array:
                return draw.apply(draw.at(update_noise, t), candidate, update)

            def read(memory: Array) -> Array:
                return draw.apply(draw.at(readout_noise, t), memory, readout)

            hidden = from_hidden(previous[0], t)
            proposed = cell.step(from_input_t, hidden, previous, write, read)
            new = tuple(
                draw.apply(draw.at(noise, t), x_t, state, x_tm1)
                for noise, x_t, state, x_tm1 in zip(
                    state_noise, proposed, states, previous, strict=True
                )
            )
            return new, new[0]

        start = tuple(jnp.zeros(width, from_input.dtype) for _ in states)
        _, outputs = jax.lax.scan(step, start, (jnp.arange(steps), from_input))
        return outputs


def _own_gate(y: Array, gates: int) -> Array:
    """Of (steps, gates, gates * width): for each gate the part that its own input has made."""
    steps, _, wide = y.shape
    parts = y.reshape(steps, gates, gates, wide // gates)
    own = jnp.arange(gates)
    return parts[:, own, own].reshape(steps, wide)
