"""Averages of the weights over training, which are evaluated in place of the last weights.

    problem = Problem(..., average=ema(decay=0.999))

An average begins with the initial weights. After each step it moves towards the new weights by a
share of the distance. Each function here makes the function of the step, from 0 on, that gives this
share. Running statistics of batch normalisation, and what a scheme learns, are averaged in the same
way.

Source: Polyak, Juditsky 1992, "Acceleration of stochastic approximation by averaging" (SIAM Journal
on Control and Optimization 30); Izmailov, Podoprikhin, Garipov, Vetrov, Wilson 2018, "Averaging
weights leads to wider optima and better generalization" (arXiv 1803.05407), for the last part of
training.
"""

import jax.numpy as jnp

from dropjax.core.literals import format_call
from dropjax.train.schedules import Schedule


def ema(decay: float = 0.999) -> Schedule:
    """An exponential moving average: the average keeps the share `decay` of itself in each step.

    In the first steps it keeps less, (1 + step) / (10 + step), so that the initial weights are soon
    forgotten.

    Args:
      decay: in (0, 1).

    Raises:
      ValueError: it is not.
    """
    if not isinstance(decay, (int, float)) or not 0 < decay < 1:
        raise ValueError(f"decay must be a number between 0 and 1, got {decay!r}")
    text = format_call("ema", {"decay": float(decay)})
    return Schedule(text, lambda step: 1 - jnp.minimum(decay, (1 + step) / (10 + step)))


def last(first: int) -> Schedule:
    """The plain mean of the weights after each step from `first` on; before, the newest weights.

    Args:
      first: the first step whose result is averaged, from 0 on.

    Raises:
      ValueError: it is no whole number, or below 0.

    Source: Izmailov et al. 2018, section 3.2, with an average after every step.
    """
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise ValueError(f"first must be a whole number from 0 on, got {first!r}")
    text = format_call("last", {"first": first})
    return Schedule(text, lambda step: 1 / jnp.maximum(step - first + 1, 1))
