"""Training in one call, for models and data of one's own."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dropjax.train.program import Program, check_epochs, chunks
from dropjax.train.step import Examples, Problem, State
from dropjax.train.stopping import Stopping, stopped, weights_of


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained model.

    Args:
      params: the model's parameters: their average if the problem has one, and with early stopping
        those of the best epoch.
      learned: what the scheme has learned; empty for most.
      mutable: the model's mutable variables; {} for most.
      history: for each epoch a dictionary with the means of the training metrics.
      diverged_at: the first step whose loss was infinite or NaN; -1 if there was none. `fit` raises
        an error instead; of several lanes only that one is lost.
      best_step: with early stopping, how many steps were done when the best epoch ended; None
        without.
    """

    params: Any
    learned: Any
    mutable: Any
    history: list[dict[str, float]]
    diverged_at: int = -1
    best_step: int | None = None


def fit(
    problem: Problem,
    params: Any,
    x: Any,
    y: Any,
    *,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    mutable: Any = None,
    devices: Sequence[Any] | None = None,
    after_epoch: Callable[[int, State], bool | None] | None = None,
    stopping: Stopping | None = None,
    monitor: Callable[[State], Any] | None = None,
) -> Fitted:
    """Trains a model.

    Args:
      problem: what is trained.
      params: the initial parameters.
      x: (examples, ...), or a tree of such arrays.
      y: (examples, ...).
      key: the run's key, from which the order of the data and all noise come.
      epochs: passes over the data.
      batch_size: examples in a step, over all devices.
      mutable: the initial mutable variables, if the problem is stateful.
      devices: where to train; all by default.
      after_epoch: called with each epoch's number, from 1, and the state: `state.trained.params`
        are the model's parameters, `state.trained.learned` what the scheme has learned,
        `state.mutable` the mutable variables, `state.means()` the epoch's metrics. The state's
        arrays are used up afterwards: copy what you keep. Training ends if it returns True.
      stopping: ends training when the measure `monitor` no longer gains, and keeps the weights of
        the best epoch; None to train all epochs.
      monitor: called after each epoch with the state; returns the measure of the weights
        `state.evaluated()`, for example their loss on validation data.

    Raises:
      ValueError: the problem does not fit the data; the objective refuses a target; the scheme
        would do nothing; one of `stopping` and `monitor` is given without the other.
      TypeError: an argument is not what it should be.
      FloatingPointError: the loss became infinite or NaN.
    """
    check_epochs(epochs)
    check_monitor(stopping, monitor)
    program = Program(problem, Examples(x, y), key=key, batch_size=batch_size, devices=devices)
    history, state = [], program.init(params, mutable)
    best = stopping and stopping.begin(state)
    for chunk in chunks(program, state, epochs=epochs):
        state = chunk.state
        if int(state.diverged_at) >= 0:
            raise FloatingPointError(f"the loss is not finite at step {int(state.diverged_at)}")
        if chunk.ends_epoch:
            history.append(state.means())
            if stopping is not None and best is not None and monitor is not None:
                best = stopping.look(best, state, monitor(state))
            ends = after_epoch is not None and says_stop(after_epoch(chunk.epoch + 1, state))
            if ends or (best is not None and stopped(best)):
                break
    weights = weights_of(best, state)
    return Fitted(**weights, history=history, best_step=None if best is None else int(best.step))


def check_monitor(stopping: Stopping | None, monitor: Any) -> None:
    """Refuses early stopping without a measure, and a measure that nothing looks at.

    Raises:
      ValueError: one is given without the other.
    """
    if (stopping is None) != (monitor is None):
        given, needed = ("stopping", "monitor") if monitor is None else ("monitor", "stopping")
        raise ValueError(f"{given} would do nothing without {needed}; give both or none")


def says_stop(answer: Any) -> bool:
    """Whether `after_epoch` has returned True: that of Python, NumPy or JAX."""
    if isinstance(answer, (np.ndarray, np.generic, jax.Array)):
        return answer.shape == () and answer.dtype == np.bool_ and bool(answer)
    return answer is True
