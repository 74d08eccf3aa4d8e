"""Recurrent cells as pure steps, so that noise can enter between the pieces.

A step takes the gates' two halves apart: what comes from the input (hoisted out of the scan, with
the bias in it) and what comes from the previous hidden state. States are tuples whose first entry
is the hidden state, the cell's output.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
States = tuple[Array, ...]
Perturb = Callable[[Array], Array]


class RecurrentCell(NamedTuple):
    """A recurrent cell.

    Args:
      gates: how many blocks of `width` the pre-activations have.
      states: a name for each entry of the state, the hidden state first.
      step: (from_input, from_hidden, state, write, read) -> new state; the first two are
        (..., gates * width), `write` puts noise on what is about to be written into memory, and
        `read` on what is read out of it.
      has_update: whether it writes into a memory, and so uses `write`.
      has_readout: whether its memory is another state than the hidden one, and so uses `read`.
      forget_gate: which block is the forget gate, whose bias starts at 1; None if there is none.
      hidden_bias: whether the part from the hidden state needs a bias of its own.
    """

    gates: int
    states: tuple[str, ...]
    step: Callable[[Array, Array, States, Perturb, Perturb], States]
    has_update: bool = True
    has_readout: bool = False
    forget_gate: int | None = None
    hidden_bias: bool = False


def elman(
    from_input: Array, from_hidden: Array, state: States, write: Perturb, read: Perturb
) -> States:
    """h_t = tanh(W x_t + U h_tm1 + b). Source: Elman 1990, "Finding Structure in Time"."""
    del state, write, read  # it has no memory
    return (jnp.tanh(from_input + from_hidden),)


def lstm(
    from_input: Array, from_hidden: Array, state: States, write: Perturb, read: Perturb
) -> States:
    """Gates i, f, g, o; c_t = f c_tm1 + i write(g); h_t = o read(tanh(c_t)).

    Source: Hochreiter & Schmidhuber 1997; the forget gate: Gers, Schmidhuber, Cummins 2000.
    """
    _, c_tm1 = state
    i, f, g, o = jnp.split(from_input + from_hidden, 4, axis=-1)
    c_t = jax.nn.sigmoid(f) * c_tm1 + jax.nn.sigmoid(i) * write(jnp.tanh(g))
    return jax.nn.sigmoid(o) * read(jnp.tanh(c_t)), c_t


def gru(
    from_input: Array, from_hidden: Array, state: States, write: Perturb, read: Perturb
) -> States:
    """Gates r, z, n; n = tanh(W x_t + r (U h_tm1 + b)); h_t = (1 - z) write(n) + z h_tm1.

    Source: Cho et al. 2014 (arXiv 1406.1078), with the reset gate after the product, as cuDNN,
    PyTorch, Keras and Flax have it. z h_tm1 is the true previous state, without noise.
    """
    del read  # its memory is the hidden state
    (h_tm1,) = state
    r_x, z_x, n_x = jnp.split(from_input, 3, axis=-1)
    r_h, z_h, n_h = jnp.split(from_hidden, 3, axis=-1)
    z = jax.nn.sigmoid(z_x + z_h)
    n = jnp.tanh(n_x + jax.nn.sigmoid(r_x + r_h) * n_h)
    return ((1 - z) * write(n) + z * h_tm1,)


CELLS = {
    "elman": RecurrentCell(1, ("state",), elman, has_update=False),
    "gru": RecurrentCell(3, ("state",), gru, hidden_bias=True),
    "lstm": RecurrentCell(4, ("state", "cell"), lstm, has_readout=True, forget_gate=1),
}
