"""The training step, compiled into chunks of steps, and the loop over chunks.

A chunk is one compiled loop whose first and last step are arguments. So one program serves chunks
of any length: a shorter last chunk compiles nothing, and where chunks end changes no bit of the
result. What happens between chunks is up to the caller.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax.core.plan import no_weights
from dropjax.core.scheme import Weights
from dropjax.ops.keys import check_key
from dropjax.train.decay import check_spares_learned
from dropjax.train.devices import (
    check_batch_size,
    check_count,
    check_devices,
    parallel,
    replicate,
)
from dropjax.train.keys import noise_key_of, order_of, step_key_of, steps_per_epoch
from dropjax.train.objectives import Objective, loss_per_nat
from dropjax.train.replay import Replay
from dropjax.train.step import Examples, Problem, State, Step, on_one_device

Array = jax.Array


class Program:
    """A compiled training problem.

    Args:
      problem: what is trained.
      examples: the training set.
      key: the run's key. The order of the data and the noise come from it apart (`train.keys`), so
        that runs of two schemes with one key see the same batches.
      batch_size: of the whole batch, which is split over the devices.
      devices: where to train. Default: all devices of all processes; each process then has to run
        the same program with the same arguments.

    Raises:
      ValueError: the batch does not divide over the devices, or there are no examples.
      TypeError: an argument is not what it should be.
    """

    def __init__(
        self,
        problem: Problem,
        examples: Examples,
        *,
        key: Array,
        batch_size: int,
        devices: Sequence[Any] | None = None,
    ) -> None:
        check_key(key)
        self.devices = check_devices(devices)
        self.batch_size = batch_size
        check_batch_size(batch_size, len(self.devices))
        if not len(examples):
            raise ValueError("there are no training examples")
        self.examples = len(examples)
        self.steps_per_epoch = steps_per_epoch(len(examples), batch_size)
        self.step = Step(problem, len(examples), batch_size, self.devices)
        self._key = key
        self._targets, self._outputs = examples.y, None
        self._data = replicate(jax.tree.map(jnp.asarray, (examples.x, examples.y)), self.devices)
        self._noise_key = replicate(noise_key_of(key), self.devices)
        self._orders: dict[int, Array] = {}
        self._chunk = parallel(self._steps, self.devices, donate=(0,))
        self._weights, self._report = jax.jit(self._weights_of), jax.jit(self._report_of)

    @property
    def problem(self) -> Problem:
        """What is trained; with its sites, after `check` or `init` has found them."""
        return self.step.problem

    def check(
        self,
        params: Any,
        mutable: Any = None,
        *,
        targets: tuple[Any, np.ndarray | None] | None = None,
    ) -> list[str]:
        """Traces the model and its metrics, and checks the targets. Nothing is computed.

        Args:
          params: the model's parameters.
          mutable: its mutable variables, if it is stateful.
          targets: the arguments of `check_targets`; None for the training set's.

        Returns:
          The names of the metrics.

        Raises:
          ValueError: the scheme would do nothing at the model's sites; `mutable` is given although
            the problem is not stateful, or is not given although it is; no metric is called "loss",
            or one is no scalar; the objective refuses a target; the optimiser decays what the
            scheme learns.
          TypeError: the metrics are no dictionary of numbers; parameters are no floats.
        """
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            _check_parameter(leaf, "params" + jax.tree_util.keystr(path))
        if (mutable is not None) != self.problem.stateful:
            raise ValueError(f"stateful={self.problem.stateful}, but mutable={mutable!r}")
        mutable = {} if mutable is None else mutable
        self.step = self.step.with_sites(self._example(), params, mutable)
        scheme = self.problem.scheme
        if scheme is not None:
            self.check_optimizer(self.problem.optimizer, params)
            scheme = scheme.bind(self._learned())
        x, y = jax.tree.map(lambda leaf: leaf[:1], self._data)
        problem, row, weight = self.problem, jnp.zeros(1, jnp.int32), jnp.ones(1)
        targets = (self._targets, None) if targets is None else targets

        def looking(outputs: Any, y: Any) -> dict[str, Array]:
            self._outputs = jax.tree.map(_shape, outputs)
            self.check_targets(*targets)
            return problem.metrics(outputs, y)

        step = dataclasses.replace(self.step, problem=dataclasses.replace(problem, metrics=looking))
        step_key = step_key_of(noise_key_of(self._key), 0)
        metrics, _ = jax.eval_shape(
            lambda: on_one_device(
                lambda: step.measure(scheme, params, mutable, x, y, row, weight, step_key, 0)
            )
        )
        unit = loss_per_nat(problem.metrics, self._outputs)
        self.step = dataclasses.replace(self.step, loss_per_nat=unit)
        return sorted(metrics)

    def check_optimizer(self, optimizer: optax.GradientTransformation, params: Any) -> None:
        """Refuses an optimiser that decays what the scheme learns, if it learns anything.

        Args:
          optimizer: this problem's, or another that is to train it.
          params: the model's parameters.

        Raises:
          ValueError: it does.
        """
        scheme = self.problem.scheme
        if scheme is not None and scheme.learns:
            trained = {"params": params, "learned": self._learned()}
            check_spares_learned(optimizer, scheme, trained)

    def _learned(self) -> Any:
        """Values of the shapes of what the scheme learns."""
        return self.step.learned(self._key, no_weights(self.problem.sites or {}))

    def check_targets(self, y: Any, wanted: np.ndarray | None = None) -> None:
        """Checks targets, on the host, if the problem has an objective of `train.OBJECTIVES`.

        Args:
          y: (examples, ...).
          wanted: (examples,), True for targets that are trained on; None for all.

        Raises:
          ValueError, TypeError: see `train.objectives.Objective.check`.
        """
        if isinstance(self.problem.metrics, Objective):
            self.problem.metrics.check(self._outputs, y, wanted)

    def weights(self, params: Any, mutable: Any = None) -> Weights:
        """The weights at the model's LINEAR, WEIGHT and TABLE sites, by the sites' names."""
        mutable = {} if mutable is None else mutable
        return self._weights(params, mutable)

    def _weights_of(self, params: Any, mutable: Any) -> Weights:
        return on_one_device(lambda: self.step.weights(self._example(), params, mutable))

    def init(self, params: Any, mutable: Any = None) -> State:
        """The state before the first step.

        Args:
          params: the model's initial parameters.
          mutable: its mutable variables, if it is stateful.

        Raises:
          ValueError, TypeError: see `check`.
        """
        metrics = self.check(params, mutable)
        mutable = {} if mutable is None else mutable
        return self.place(self.step.state(self._key, self._example(), params, mutable, metrics))

    def place(self, state: State) -> State:
        """Copies a state to every device, so that training may overwrite it."""
        return replicate(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state), self.devices)

    def report(self, state: State) -> dict[str, dict[str, float]]:
        """Numbers that say what the scheme has learned, by site name; empty for most schemes."""
        scheme = self.problem.scheme
        if scheme is None or not scheme.learns:
            return {}
        params, learned = state.trained
        weights = self.weights(params, state.mutable if self.problem.stateful else None)
        return jax.tree.map(float, self._report(learned, weights))

    def _report_of(self, learned: Any, weights: Weights) -> Any:
        assert self.problem.scheme is not None
        return self.problem.scheme.bind(learned).report(self.problem.sites or {}, weights)

    def replay(self, learned: Any = None) -> Replay:
        """The batches and the noise of any step, drawn again without training.

        Args:
          learned: what the scheme had learned before the step that is asked for, if it learns:
            `state.trained.learned`.

        Raises:
          ValueError: the model takes a batch, so that its noise belongs to no single example.
        """
        problem = self.problem
        if problem.batched:
            raise ValueError(
                "a batched model's noise belongs to no single example: each device gives it one "
                "key, train.keys.batch_key_of(key of the step, device)"
            )
        return Replay(
            self._key,
            self.examples,
            self.batch_size,
            problem.scheme,
            problem.sites,
            problem.strength,
            learned,
        )

    def run(self, state: State, start: int, stop: int) -> State:
        """Trains steps `start` to `stop` - 1, all of one epoch. `state` is used up.

        Args:
          state: after `start` steps.
          start: its step.
          stop: at most the end of the epoch.
        """
        epoch, window = self.window(start, stop)
        return self._chunk(state, self._noise_key, self._data, self._order(epoch), *window)

    def window(self, start: int, stop: int) -> tuple[int, tuple[Array, Array, Array]]:
        """The epoch of steps `start` to `stop` - 1; and, on the devices, both and its first step.

        Raises:
          ValueError: the steps are not all of one epoch.
        """
        epoch = start // self.steps_per_epoch
        first = epoch * self.steps_per_epoch
        if not start < stop <= first + self.steps_per_epoch:
            raise ValueError(f"steps {start} to {stop} are not a part of one epoch")
        numbers = (jnp.int32(start), jnp.int32(stop), jnp.int32(first))
        return epoch, replicate(numbers, self.devices)

    def _example(self) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], self._data[0])

    def _order(self, epoch: int) -> Array:
        """The rows of the training set in the order of one epoch."""
        if epoch not in self._orders:
            order = order_of(self._key, epoch, self.examples)
            self._orders = {epoch: replicate(order, self.devices)}
        return self._orders[epoch]

    def _steps(
        self,
        device: Array,
        state: State,
        noise_key: Array,
        data: tuple[Any, Any],
        order: Array,
        start: Array,
        stop: Array,
        first: Array,
    ) -> State:
        def step(number: Array, state: State) -> State:
            return self.step(number, state, noise_key, data, order, first, device)

        return jax.lax.fori_loop(start, stop, step, state)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A part of an epoch that was trained without a break.

    Args:
      state: after its last step. Its arrays are used up when the next chunk is trained.
      step: how many steps were done in all.
      steps: how many of them in this chunk.
      epoch: the epoch that it is a part of, from 0.
      ends_epoch: whether it was the last of its epoch.
      seconds: how long it took.
    """

    state: State
    step: int
    steps: int
    epoch: int
    ends_epoch: bool
    seconds: float


class Compiled(Protocol):
    """What `chunks` trains: a `Program`, or `Lanes`."""

    steps_per_epoch: int

    def run(self, state: State, start: int, stop: int) -> State:
        """Trains steps `start` to `stop` - 1, all of one epoch."""
        ...


def chunks(
    program: Compiled, state: State, *, epochs: int, seconds: float = 1.0
) -> Iterator[Chunk]:
    """Trains from `state` to the end of the last epoch, and yields after every chunk.

    Args:
      program: what is trained.
      state: where to start. Its arrays are used up.
      epochs: how many in all; those that were done before `state` count.
      seconds: about how long a chunk should take. Its number of steps follows from how long earlier
        ones took. No result depends on it. A chunk always ends where an epoch ends.

    Returns:
      A `Chunk` after each. The first one is a single step, which shows soon that training runs.

    Raises:
      TypeError: epochs is no whole number.
      ValueError: it is less than 1.
    """
    check_epochs(epochs)
    return _chunks(program, state, epochs, seconds)


def check_epochs(epochs: int) -> None:
    """Refuses a number of epochs that is no whole number from 1 on.

    Raises:
      TypeError: epochs is no whole number.
      ValueError: it is less than 1.
    """
    if check_count(epochs, "epochs") < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")


def _chunks(program: Compiled, state: State, epochs: int, seconds: float) -> Iterator[Chunk]:
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


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _check_parameter(leaf: Any, name: str) -> None:
    """Refuses what has no gradient. JAX would do so later, without naming the parameter."""
    what = getattr(leaf, "dtype", type(leaf).__name__)
    if not isinstance(leaf, (float, complex)) and not (
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ):
        raise TypeError(f"{name} must be an array of floats, to be trained; got {what}")
