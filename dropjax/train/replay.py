"""Batches and noise of past steps again, without training; see `train.keys` for their keys."""

import dataclasses
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike as Numbers

from dropjax.core.draw import Draw, sampled
from dropjax.core.keys import Keys
from dropjax.core.noise import Arrays, arrays, select
from dropjax.core.scheme import Scheme, Sites
from dropjax.core.strength import Strength, compiled_strength_at
from dropjax.ops.keys import check_key
from dropjax.train.keys import (
    keys_of,
    noise_key_of,
    order_of,
    positions,
    step_key_of,
    steps_per_epoch,
)

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
    """The batches and the noise of training, drawn again from the run's key.

    Nothing is trained and no data is read. A mask is the one that training drew, bit for bit. If a
    schedule changes the rate, the rate is computed again, and on another platform or version its
    last bit may differ: then one element of a mask in some 10 million differs.

    Args:
      key: the run's key.
      examples: how many the training data have.
      batch_size: of the whole batch. It decides which rows are together; masks do not depend on it.
      scheme: None for a model that takes a key.
      sites: the model's, from `core.plan.record`; needed by `noise` alone.
      strength: multiplies every rate: a number, or a function of the step.
      learned: what a scheme that learns had learned before the step that is asked for.
      steps: how many steps training had; None for no limit.
    """

    key: Array
    examples: int
    batch_size: int
    scheme: Scheme | None = None
    sites: Sites | None = None
    strength: Strength = 1.0
    learned: Any = None
    steps: int | None = None
    _orders: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("examples", "batch_size"):
            if _integer(getattr(self, name), name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        object.__setattr__(self, "key", check_key(self.key))

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.examples, self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """The rows of the training data in the batch of a step, in their order.

        The epoch's last batch has fewer where the batch size does not divide the examples.

        Args:
          step: from 0.

        Raises:
          ValueError: there is no such step.
          TypeError: it is no integer.
        """
        epoch, number = divmod(self._checked_step(step), self.steps_per_epoch)
        at = np.asarray(positions(number, self.batch_size))
        return self._order(epoch)[at[at < self.examples]]

    def step_of(self, row: int, epoch: int) -> int:
        """The step of an epoch in which an example was seen, which happens once in each epoch.

        Args:
          row: of the training data.
          epoch: from 0.

        Raises:
          ValueError: there is no such row, or no such epoch.
        """
        row, epoch = self._checked_row(row), _integer(epoch, "epoch")
        self._checked_step(epoch * self.steps_per_epoch)
        (position,) = np.flatnonzero(self._order(epoch) == row)
        return epoch * self.steps_per_epoch + int(position) // self.batch_size

    def keys(self, step: int, row: int) -> Keys:
        """The keys of an example in a step. A model that takes a key was given `keys.example`.

        Args:
          step: from 0.
          row: of the training data; one of `batch(step)`.

        Raises:
          ValueError: there is no such step, or the row was not in its batch.
        """
        return keys_of(self.key, *self._checked(step, row))

    def scheme_at(self, step: int) -> Scheme:
        """The scheme as it was in a step: rates times the strength, with its learned values.

        Raises:
          ValueError: there is no scheme or no such step; the scheme learns, and `learned` is None.
        """
        scheme, step = self._scheme(), self._checked_step(step)
        scaled = scheme.scaled(compiled_strength_at(self.strength, jnp.int32(step)))
        if not scheme.learns:
            return scaled
        if self.learned is None:
            raise ValueError(
                f"the noise of {scheme} depends on what it had learned before step {step}, which "
                "seed and step do not tell: give it as learned=..."
            )
        return scaled.bind(self.learned)

    def draw(self, step: int, row: int) -> Draw:
        """The draw under which the model saw an example in a step.

        `draw.noise(site, shape)` is the noise at a site, and `draw(x, site)` applies it to a value.
        Called with this draw, the model computes what it computed for the example.

        Raises:
          ValueError: see `keys` and `scheme_at`.
        """
        return sampled(self.scheme_at(step), self.keys(step, row))

    def noise(self, step: int, rows: Numbers, *, at: str = "") -> Arrays:
        """The noise of examples in a step, as NumPy arrays: which sub-network each of them saw.

        Args:
          step: from 0.
          rows: one row of `batch(step)`, or several of them.
          at: a regular expression that is searched for in the names of sites; empty for all on
            which the scheme acts.

        Returns:
          By site name a tuple with the noise of each scheme of the chain that acts there. Masks are
          booleans, True where a value was kept. Noise has size 1 along axes that it is shared over
          and, of several rows, a leading axis of them.

        Raises:
          ValueError: see `keys`, `scheme_at` and `core.noise.arrays`; `at` names no site that the
            scheme acts on; the sites are not known.
        """
        scheme = self.scheme_at(step)
        if self.sites is None:
            raise ValueError("which sites are there? They are known after Program.init or check")
        sites = select(self._scheme(), self.sites, at)
        for row in np.atleast_1d(np.asarray(rows)):
            self._checked(step, row)
        return arrays(scheme, step_key_of(noise_key_of(self.key), step), rows, sites)

    def _scheme(self) -> Scheme:
        if self.scheme is None:
            raise ValueError("there is no scheme, so no draw: the model takes keys(step, row)")
        return self.scheme

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = np.asarray(order_of(self.key, epoch, self.examples))
        return self._orders[epoch]

    def _checked_step(self, step: int) -> int:
        step, end = _integer(step, "step"), 2**31 - 1 if self.steps is None else self.steps
        if not 0 <= step < end:
            raise ValueError(f"there is no step {step}: they go from 0 to {end - 1}")
        return step

    def _checked_row(self, row: int) -> int:
        row = _integer(row, "row")
        if not 0 <= row < self.examples:
            raise ValueError(
                f"there is no row {row} in the training data: they go from 0 to {self.examples - 1}"
            )
        return row

    def _checked(self, step: int, row: int) -> tuple[int, int]:
        step, row = self._checked_step(step), self._checked_row(row)
        batch = self.batch(step)
        if row in batch:
            return step, row
        near = [*np.sort(batch[batch < row])[-1:], *np.sort(batch[batch > row])[:1]]
        raise ValueError(
            f"row {row} was not in the batch of step {step}, where the nearest are "
            f"{' and '.join(map(str, near))}; in that epoch it was in step "
            f"{self.step_of(row, step // self.steps_per_epoch)}"
        )


def _integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
