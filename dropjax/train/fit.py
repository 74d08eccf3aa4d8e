"""Training in one call, for models and data of one's own."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dropjax.train.program import Program, check_epochs, chunks
from dropjax.train.step import Examples, Problem, State


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained model.

    Args:
      params: the model's parameters.
      learned: what the scheme has learned; empty for most.
      mutable: the model's mutable variables; {} for most.
      history: for each epoch a dictionary with the means of the training metrics.
      diverged_at: the first step whose loss was infinite or NaN; -1 if there was none. `fit` raises
        an error instead; of several lanes only that one is lost.
    """

    params: Any
    learned: Any
    mutable: Any
    history: list[dict[str, float]]
    diverged_at: int = -1


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

    Raises:
      ValueError: the problem does not fit the data; the objective refuses a target; the scheme
        would do nothing.
      TypeError: an argument is not what it should be.
      FloatingPointError: the loss became infinite or NaN.
    """
    check_epochs(epochs)
    program = Program(problem, Examples(x, y), key=key, batch_size=batch_size, devices=devices)
    history, state = [], program.init(params, mutable)
    for chunk in chunks(program, state, epochs=epochs):
        state = chunk.state
        if int(state.diverged_at) >= 0:
            raise FloatingPointError(f"the loss is not finite at step {int(state.diverged_at)}")
        if chunk.ends_epoch:
            history.append(state.means())
            if after_epoch is not None and says_stop(after_epoch(chunk.epoch + 1, state)):
                break
    return Fitted(state.trained.params, state.trained.learned, state.mutable, history)


def says_stop(answer: Any) -> bool:
    """Whether `after_epoch` has returned True: that of Python, NumPy or JAX."""
    if isinstance(answer, (np.ndarray, np.generic, jax.Array)):
        return answer.shape == () and answer.dtype == np.bool_ and bool(answer)
    return answer is True
