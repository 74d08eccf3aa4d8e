"""The loop over chunks: what happens between them is up to the caller."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Protocol

import jax

from dropjax.train.devices import check_count
from dropjax.train.step import State


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What a chunk left behind.

    Args:
      state: after its last step; used up when the iteration goes on.
      step: steps done in all.
      steps: steps in this chunk.
      epoch: the epoch it belongs to, from 0.
      ends_epoch: whether it was the epoch's last.
      seconds: it took.
    """

    state: State
    step: int
    steps: int
    epoch: int
    ends_epoch: bool
    seconds: float


class Runs(Protocol):
    """What can be trained in chunks: a `Program`, or `Lanes`."""

    steps_per_epoch: int

    def run(self, state: State, start: int, stop: int) -> State:
        """Trains steps `start` to `stop` - 1, all of one epoch."""
        ...


def chunks(program: Runs, state: State, *, epochs: int, seconds: float = 1.0) -> Iterator[Chunk]:
    """Trains from `state` to the end of the last epoch, yielding after every chunk.

    Args:
      program: what to run.
      state: where to start; used up.
      epochs: how many in all, those already in `state` among them.
      seconds: about how long a chunk should take. Chunks are sized by the clock; no result
        depends on where they end, except that each epoch ends one.

    Returns:
      A `Chunk` each. A first one of a single step shows soon that training runs.

    Raises:
      TypeError: epochs is no whole number.
      ValueError: it is less than 1.
    """
    check_epochs(epochs)
    return _chunks(program, state, epochs, seconds)


def check_epochs(epochs: int) -> None:
    """Refuses to train for no time, or for a part of an epoch.

    Raises:
      TypeError: epochs is no whole number.
      ValueError: it is less than 1.
    """
    if check_count(epochs, "epochs") < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")


def _chunks(program: Runs, state: State, epochs: int, seconds: float) -> Iterator[Chunk]:
    step, size, warm = int(state.step), 1, False
    while step < epochs * program.steps_per_epoch:
        epoch = step // program.steps_per_epoch
        stop = min(step + size, (epoch + 1) * program.steps_per_epoch)
        began = time.perf_counter()
        state = program.run(state, step, stop)
        jax.block_until_ready(state)
        took = time.perf_counter() - began
        if warm:
            size = max(1, min(round((stop - step) * seconds / took), 8 * size))
        ends = stop % program.steps_per_epoch == 0
        yield Chunk(state, stop, stop - step, epoch, ends, took)
        # The first chunk's time is the compiler's.
        step, warm = stop, True
