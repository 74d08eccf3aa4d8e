"""Strength: the number in [0, 1] that multiplies every rate, constant or scheduled."""

import functools
from collections.abc import Callable, Hashable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Strength: TypeAlias = float | Callable[[jax.Array], jax.typing.ArrayLike]
"""A number, or a function of the step such as any optax schedule."""

_BLOCK = 2**20  # steps looked at together


def strength_at(strength: Strength, step: jax.Array) -> jax.Array:
    """The strength at a step, as float32."""
    value = strength(step) if callable(strength) else strength
    return jnp.asarray(value, jnp.float32)


def compiled_strength_at(strength: Strength, steps: jax.Array) -> jax.Array:
    """As `strength_at`, rounded as in training: op by op a schedule could be rounded otherwise.

    Compiled once for each schedule.

    Args:
      strength: a number, or a function of the step.
      steps: one, (), or several, (steps,).
    """
    if isinstance(strength, Hashable):
        return _compiled(strength, steps)
    return jax.jit(functools.partial(_at, strength))(steps)


def _at(strength: Strength, steps: jax.Array) -> jax.Array:
    of_one = functools.partial(strength_at, strength)
    return jax.vmap(of_one)(steps) if steps.ndim else of_one(steps)


_compiled = jax.jit(_at, static_argnums=0)


def check_strength(
    strength: Strength, steps: int, name: str = "strength", at_most: float = 1.0
) -> None:
    """Refuses a strength that leaves [0, 1] in the steps 0, ..., steps - 1, or never leaves 0.

    Args:
      strength: a number, or a function of the step.
      steps: how many there are.
      name: what the caller calls it.
      at_most: the largest value allowed; infinity for any finite one.

    Raises:
      ValueError: it does; the message names the first wrong step.
    """
    if steps >= 2**31:
        raise ValueError(f"{steps} steps are more than can be counted, 2**31 - 1")
    last = max(steps, 1) if callable(strength) else 1
    # A grid of a thousand constants is not compiled.
    at = compiled_strength_at if callable(strength) else _at
    most = 0.0
    for start in range(0, last, _BLOCK):
        values = np.asarray(at(strength, jnp.arange(start, min(start + _BLOCK, last))))
        wrong = np.flatnonzero(~((values >= 0) & (values <= at_most) & np.isfinite(values)))
        if wrong.size:
            step = start + wrong[0]
            allowed = "[0, 1]" if at_most == 1 else f"[0, {at_most:g})"
            raise ValueError(
                f"{name} must stay in {allowed}; it is {values[wrong[0]]:g} at step {step}"
            )
        most = max(most, float(values.max()))
    if most == 0 and callable(strength):
        raise ValueError(f"{name} is a schedule that never leaves 0; no scheme would do anything")
