"""Early stopping: training ends when a measure no longer gains, and its best weights are kept.

After each epoch `Stopping.look` is given the value of a measure. It works for a single run, and for
lanes, whose values are an array: each lane stops by itself and keeps its own best weights.

Source: Prechelt 1998, "Early stopping - but when?" (LNCS 1524), for the criterion: no gain in a
number of epochs.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.train.devices import check_count
from dropjax.train.step import State

Array = jax.Array


class Best(NamedTuple):
    """The best epoch so far; of lanes each array has an axis of lanes in front.

    Args:
      weights: the evaluated weights then: {"params": ..., "learned": ..., "mutable": ...}.
      value: the measure's; NaN before the first epoch, or if it was NaN in all.
      step: how many steps were done then.
      waited: epochs since then.
      stopped_at: the step at which training stopped; -1 while it goes on.
    """

    weights: dict[str, Any]
    value: Array
    step: Array
    waited: Array
    stopped_at: Array


@dataclasses.dataclass(frozen=True)
class Stopping:
    """When training stops.

    Args:
      patience: the number of epochs in a row without a gain after which training stops, at least 1.
      min_gain: an epoch counts as better if the measure is better than the best one so far by more
        than this; at least 0.
      higher: whether higher values are better, as of an accuracy; of a loss lower ones are.

    Raises:
      ValueError, TypeError: a number is out of range.
    """

    patience: int
    min_gain: float = 0.0
    higher: bool = False

    def __post_init__(self) -> None:
        if check_count(self.patience, "patience") < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}")
        if not isinstance(self.min_gain, (int, float)) or not 0 <= self.min_gain < float("inf"):
            raise ValueError(f"min_gain must be a number from 0 on, got {self.min_gain!r}")

    def begin(self, state: State, lanes: int | None = None) -> Best:
        """Before the first epoch.

        Args:
          state: where training begins.
          lanes: how many it has; None for that of a single run.
        """
        shape = () if lanes is None else (lanes,)
        none = jnp.full(shape, -1, jnp.int32)
        weights = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state.evaluated())
        value = jnp.full(shape, jnp.nan, jnp.float32)
        return Best(weights, value, none * 0, none * 0, none)

    def look(self, best: Best, state: State, value: Any) -> Best:
        """After an epoch.

        Args:
          best: before it.
          state: after it.
          value: of the measure, of the weights `state.evaluated()`; (lanes,) of lanes. NaN is no
            gain.
        """
        return _look(self, best, state.evaluated(), state.step, jnp.asarray(value, jnp.float32))


def weights_of(best: Best | None, state: State) -> dict[str, Any]:
    """The weights to evaluate, as `State.evaluated`: the best ones, or the newest if none is best.

    Args:
      best: None where training does not stop early.
      state: the last one, of a run or of lanes.
    """
    if best is None:
        return state.evaluated()
    has, newest = best.step > 0, state.evaluated()
    return jax.tree.map(lambda old, new: _choose(has, old, new), best.weights, newest)


def step_of(best: Best | None, state: State) -> Array:
    """How many steps made the weights of `weights_of`; (lanes,) of lanes, or ()."""
    return state.step if best is None else jnp.where(best.step > 0, best.step, state.step)


def diverged_at(best: Best | None, state: State) -> np.ndarray:
    """The first step whose loss was not finite, or -1; (lanes,) of lanes.

    Steps after a lane has stopped do not count: alone it would not have done them.
    """
    at = np.asarray(state.diverged_at)
    if best is None:
        return at
    end = np.asarray(best.stopped_at)
    return np.where((end >= 0) & (at >= end), -1, at)


def stopped(best: Best) -> np.ndarray:
    """Whether training has stopped; (lanes,) of lanes."""
    return np.asarray(best.stopped_at) >= 0


def _updated(rule: Stopping, best: Best, weights: Any, step: Array, value: Array) -> Best:
    gain = value - best.value if rule.higher else best.value - value
    going = best.stopped_at < 0
    better = going & ((gain > rule.min_gain) | (jnp.isnan(best.value) & ~jnp.isnan(value)))
    waited = jnp.where(better, 0, best.waited + going.astype(jnp.int32))
    ends = going & (waited >= rule.patience)

    return Best(
        jax.tree.map(lambda new, old: _choose(better, new, old), weights, best.weights),
        jnp.where(better, value, best.value),
        jnp.where(better, step, best.step),
        waited,
        jnp.where(ends, step, best.stopped_at),
    )


def _choose(condition: Array, yes: Array, no: Array) -> Array:
    """Of lanes, `condition` is (lanes,), and the others have more axes."""
    return jnp.where(jnp.expand_dims(condition, tuple(range(condition.ndim, yes.ndim))), yes, no)


_look = jax.jit(_updated, static_argnums=0, donate_argnums=1)
