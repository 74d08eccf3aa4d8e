"""Strength: the number in [0, 1] that multiplies every rate, constant or scheduled."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Strength: TypeAlias = float | Callable[[jax.Array], jax.typing.ArrayLike]
"""A number, or a function of the step such as any optax schedule."""


def strength_at(strength: Strength, step: jax.Array) -> jax.Array:
    """The strength at a step, as float32."""
    value = strength(step) if callable(strength) else strength
    return jnp.asarray(value, jnp.float32)


def check_strength(strength: Strength, steps: int) -> None:
    """Refuses a strength that leaves [0, 1] at any of the steps 0, ..., steps - 1.

    Raises:
      ValueError: it does; the message names the first such step.
    """
    at = jax.vmap(lambda step: strength_at(strength, step))
    values = np.asarray(at(jnp.arange(max(steps, 1))))
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if wrong.size:
        raise ValueError(
            f"strength must stay in [0, 1]; it is {values[wrong[0]]:g} at step {wrong[0]}"
        )
