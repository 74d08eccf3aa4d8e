"""Flax linen layers that declare their sites."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dropjax.core.draw import Draw
from dropjax.core.scheme import dense
from dropjax.core.site import Kind, Site
from dropjax.nn.recurrent import Cell

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
      depth: the depth of its sites.
    """

    cell: Cell
    width: int
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
        recurrent = site("recurrent", Kind.RECURRENT, state_axes)
        hidden_noise = draw.noise(recurrent, (steps, width))
        states = [site(name, Kind.STATE, state_axes) for name in cell.states]
        state_noise = [draw.noise(state, (steps, width)) for state in states]

        def step(previous: tuple[Array, ...], at_t: tuple[Array, Array]):
            t, from_input_t = at_t
            h_tm1 = draw.apply(draw.at(hidden_noise, t), previous[0], recurrent)
            proposed = cell.step(from_input_t, dense(h_tm1, w_h, b_h), previous)
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
