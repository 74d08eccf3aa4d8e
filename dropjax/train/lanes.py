"""Lanes: many runs of one problem, trained side by side in one compiled program.

Runs that differ in numbers alone (seed, rates, learning rate) do the same computation, so it is
compiled once and mapped over them: `jax.vmap` over lanes within `jax.pmap` over devices. A lane has
the initial weights, batches and masks that a run of its key has alone. Its results agree with that
run's up to rounding, as sums are taken in another order.

    problem = Problem(apply, metrics, parse("bernoulli(rate=0.5)"), optax.adam(1e-3))
    grid = [
        Lane(jax.random.key(seed), parse(f"bernoulli(rate={rate})"))
        for rate in (0.1, 0.3, 0.5)
        for seed in range(10)
    ]
    fits = lanes.fit(problem, init, x, y, lanes=grid, epochs=20, batch_size=32)
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax.core.plan import no_weights
from dropjax.core.scheme import Scheme
from dropjax.core.strength import Strength, strength_at
from dropjax.train.devices import check_count, parallel, replicate
from dropjax.train.fit import Fitted, check_monitor, says_stop
from dropjax.train.keys import init_key_of, order_of
from dropjax.train.lane import Lane, Stacked, checked_lanes, stack
from dropjax.train.program import Program, check_epochs, chunks
from dropjax.train.step import Examples, Problem, State, Step, Trained, on_one_device
from dropjax.train.stopping import Stopping, diverged_at, stopped, weights_of

Array = jax.Array
Optimizer = optax.GradientTransformation
Init = Callable[[Array], Any]

_MOST = 256
_CACHE = 8 * 2**20

# A lane's arrays have an axis of lanes in front; how many steps were done is the same for all.
_AXES = State(step=None, params=0, opt_state=0, mutable=0, totals=0, diverged_at=0, average=0)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class _Variables:
    """Makes a lane's initial parameters and mutable variables from its key."""

    init: Init
    stateful: bool

    def __call__(self, key: Array) -> tuple[Any, Any]:
        made = self.init(init_key_of(key))
        return made if self.stateful else (made, {})


class Lanes:
    """A compiled problem with several lanes, which is used as a `Program` is.

    Args:
      problem: what is trained. Its scheme is for lanes that have none of their own.
      init: key -> a lane's initial parameters or, if the problem is stateful, (parameters, mutable
        variables). It is given `derive(lane.key, "init")`.
      examples: the data, shared by all lanes.
      lanes: at least one.
      batch_size: of a lane's global batch, split over the devices.
      optimizer: makes a lane's optimiser, by `optimizer(**lane.numbers)`; None for the problem's.
      devices: where to train; all by default.

    Raises:
      ValueError: there is no lane; lanes differ in more than numbers, so that they would need
        different programs; numbers are given and no optimiser takes them; the scheme would do
        nothing.
    """

    def __init__(
        self,
        problem: Problem,
        init: Init,
        examples: Examples,
        lanes: Sequence[Lane],
        *,
        batch_size: int,
        optimizer: Callable[..., Optimizer] | None = None,
        devices: Sequence[Any] | None = None,
    ) -> None:
        if not callable(init):
            raise TypeError(
                f"init must be a function of a key that makes parameters, got {type(init).__name__}"
            )
        if optimizer is not None and not callable(optimizer):
            raise TypeError(
                "optimizer must be a function that makes a lane's optimiser of its numbers, such "
                f"as optax.adam; got {type(optimizer).__name__}"
            )
        self._scheme = problem.scheme
        self.lanes = checked_lanes(lanes, problem.scheme, optimizer, len(examples))
        first = self.lanes[0]
        own = problem.optimizer if optimizer is None else optimizer(**first.numbers)
        pattern = dataclasses.replace(
            problem, scheme=first.scheme, optimizer=own, **dict(first.parts)
        )
        some = examples if first.rows is None else _select(examples, first.rows)
        # It finds the sites and checks the problem. `_step` makes each lane's step from its step.
        self._program = Program(
            pattern, some, key=first.key, batch_size=batch_size, devices=devices
        )
        self.devices = self._program.devices
        self.steps_per_epoch = self._program.steps_per_epoch
        self._optimizer, self._variables = optimizer, _Variables(init, problem.stateful)
        # Only shapes matter for what is checked.
        params, mutable = self._zeros()
        self._rows_of_data = len(examples)
        self._targets = examples.y
        self._metrics = self._program.check(
            params, mutable if problem.stateful else None, targets=self._targets_of(self.lanes)
        )
        self._tried = {self._numbers(first)}
        self._check_optimizers()
        data = jax.tree.map(jnp.asarray, (examples.x, examples.y))
        # Only its shape matters.
        self._example = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), data[0])
        self._data = replicate(data, self.devices)
        self._stacked = replicate(stack(self.lanes), self.devices)
        self._orders: dict[int, Array] = {}
        self._start = jax.jit(self._starts)
        self._chunk = parallel(self._steps, self.devices, donate=(0,))
        self._report = jax.jit(jax.vmap(self._report_of))

    def with_lanes(self, lanes: Sequence[Lane]) -> "Lanes":
        """The same program for other lanes. It is compiled anew only if their number differs.

        Raises:
          ValueError: they differ in more than numbers, or there is none.
        """
        new = copy.copy(self)
        new.lanes = checked_lanes(
            lanes, self._scheme, self._optimizer, self._rows_of_data, like=self.lanes[0]
        )
        self._program.check_targets(*self._targets_of(new.lanes))
        new._check_optimizers()
        new._stacked, new._orders = replicate(stack(new.lanes), self.devices), {}
        return new

    @staticmethod
    def _numbers(lane: Lane) -> tuple[tuple[str, float], ...]:
        return tuple(sorted((name, float(value)) for name, value in lane.numbers.items()))

    def _check_optimizers(self) -> None:
        """`Program.check_optimizer` for each lane whose numbers were not checked before."""
        new = {self._numbers(lane) for lane in self.lanes} - self._tried
        if self._optimizer is None or not new:
            return
        params, _ = self._zeros()
        for numbers in sorted(new):
            self._program.check_optimizer(self._optimizer(**dict(numbers)), params)
        self._tried |= new

    def _targets_of(self, lanes: Sequence[Lane]) -> tuple[Any, np.ndarray | None]:
        """The targets, and which of them any of these lanes trains on."""
        if lanes[0].rows is None:
            return self._targets, None
        wanted = np.zeros(self._rows_of_data, bool)
        for lane in lanes:
            wanted[lane.rows] = True
        return self._targets, wanted

    def at_a_time(self) -> int:
        """How many lanes to train side by side: those that fast memory holds, from 1 to 256.

        On a CPU fast memory is a cache: lanes that do not fit in it together gain nothing, and
        large models are trained one by one, all by one program. On an accelerator it is half of
        the memory. The size is estimated from the state, its gradient, and what matrix products
        and convolutions return for a batch.
        """
        state = jax.eval_shape(self._starts, self._stacked)
        # The gradient and the update are as large as what is trained.
        each = (_bytes(state) + 2 * _bytes(state.trained)) / len(self) + self._bytes_of_outputs()
        device = self.devices[0]
        memory = device.memory_stats() if device.platform != "cpu" else None
        room = memory["bytes_limit"] / 2 if memory else _CACHE
        return int(min(max(room // each, 1), _MOST))

    def _zeros(self) -> tuple[Any, Any]:
        """Parameters and mutable variables of the right shapes."""
        shapes = jax.eval_shape(self._variables, self.lanes[0].key)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def _bytes_of_outputs(self) -> int:
        step, problem = self._program.step, self.problem
        params, mutable = self._zeros()
        rows = jnp.zeros(step.batch_size // len(self.devices), jnp.int32)
        x, y = jax.tree.map(lambda leaf: leaf[rows], self._data)
        weight = jnp.ones(len(rows))
        learned = step.learned(self.lanes[0].key, no_weights(problem.sites or {}))
        scheme = problem.scheme and problem.scheme.bind(learned)

        def measure(params: Any) -> Any:
            key = self.lanes[0].key
            return on_one_device(
                lambda: step.measure(scheme, params, mutable or {}, x, y, rows, weight, key, 0)
            )

        # They and what is computed from them are kept for the backward pass; so are the gradients
        # of both.
        return 4 * _bytes_of_products(jax.make_jaxpr(measure)(params).jaxpr)

    def __len__(self) -> int:
        return len(self.lanes)

    @property
    def problem(self) -> Problem:
        """What is trained, with its sites and the scheme of the first lane."""
        return self._program.problem

    @property
    def schemes(self) -> Scheme | None:
        """The lanes' schemes as one scheme, whose numbers are arrays (lanes, ...)."""
        return self._stacked.scheme

    def init(self) -> State:
        """The lanes' states before the first step."""
        states = self._start(self._stacked)
        return self.place(dataclasses.replace(states, step=states.step[0]))

    def place(self, state: State) -> State:
        """Copies the lanes' state to every device, so that training may overwrite it."""
        return self._program.place(state)

    def run(self, state: State, start: int, stop: int) -> State:
        """Trains steps `start` to `stop` - 1 of every lane, all of one epoch. `state` is used up.

        Args:
          state: of all lanes, after `start` steps.
          start: its step.
          stop: at most the end of the epoch.
        """
        epoch, window = self._program.window(start, stop)
        return self._chunk(state, self._stacked, self._data, self._order(epoch), *window)

    def means(self, state: State) -> list[dict[str, float]]:
        """The means of the metrics over the epoch so far, of each lane."""
        totals = jax.device_get(state.totals)
        return [
            dataclasses.replace(state, totals={k: v[i] for k, v in totals.items()}).means()
            for i in range(len(self))
        ]

    def alone(self, state: State, lane: int) -> State:
        """The state of one lane, as if it had been trained alone."""
        return _alone(state, lane)

    def report(self, state: State) -> list[dict[str, dict[str, float]]]:
        """What each lane's scheme has learned, in numbers, by site name; see `Program.report`."""
        scheme = self.problem.scheme
        if scheme is None or not scheme.learns:
            return [{} for _ in self.lanes]
        reports = jax.device_get(self._report(self._stacked, state.trained, state.mutable))
        return [jax.tree.map(float, _lane_of(reports, lane)) for lane in range(len(self))]

    def _report_of(self, own: Stacked, trained: Trained, mutable: Any) -> Any:
        assert own.scheme is not None
        weights = self._program.step.found_weights(self._example, trained.params, mutable)
        return own.scheme.bind(trained.learned).report(self.problem.sites or {}, weights)

    def _starts(self, stacked: Stacked) -> State:
        def start(own: Stacked) -> State:
            params, mutable = self._variables(own.key)
            step = self._step(own)
            return step.state(own.key, self._example, params, mutable, self._metrics)

        # One after another, each as if it were alone.
        return jax.lax.map(start, stacked)

    def _step(self, own: Stacked) -> Step:
        """The step of one lane, inside of a map over lanes."""
        problem = self.problem
        changes: dict[str, Any] = {"scheme": own.scheme, **own.parts}
        if self._optimizer is not None:
            changes["optimizer"] = self._optimizer(**own.numbers)
        if own.scheme is not None:
            changes["strength"] = _times(own.strength, problem.strength)
            if own.scheme.penalises:
                changes["penalty"] = _times(own.penalty, problem.penalty)
        problem = dataclasses.replace(problem, **changes)
        return dataclasses.replace(self._program.step, problem=problem, rows=own.rows)

    def _steps(
        self,
        device: Array,
        state: State,
        stacked: Stacked,
        data: tuple[Any, Any],
        orders: Array,
        start: Array,
        stop: Array,
        first: Array,
    ) -> State:
        def one_lane(number: Array, state: State, own: Stacked, order: Array) -> State:
            step = self._step(own)
            return step(number, state, own.noise_key, data, order, first, device)

        def all_lanes(number: Array, state: State) -> State:
            over_lanes = jax.vmap(one_lane, in_axes=(None, _AXES, 0, 0), out_axes=_AXES)
            return over_lanes(number, state, stacked, orders)

        if len(orders) > 1:
            return jax.lax.fori_loop(start, stop, all_lanes, state)
        # One lane needs no map, and XLA is slower with an axis of size 1 (measured on a CPU: matrix
        # products take 1.4 to 1.6 times as long).
        own, order = _lane_of((stacked, orders), 0)
        only = jax.lax.fori_loop(
            start, stop, lambda number, state: one_lane(number, state, own, order), _alone(state, 0)
        )
        return _together(only)

    def _order(self, epoch: int) -> Array:
        """Each lane's order of its training set in one epoch."""
        if epoch not in self._orders:
            keys, examples = self._stacked.key, self._program.examples
            self._orders = {
                epoch: replicate(_orders(keys, jnp.int32(epoch), examples), self.devices)
            }
        return self._orders[epoch]


def fit(
    problem: Problem,
    init: Init,
    x: Any,
    y: Any,
    *,
    lanes: Sequence[Lane],
    epochs: int,
    batch_size: int,
    optimizer: Callable[..., Optimizer] | None = None,
    at_a_time: int | None = None,
    devices: Sequence[Any] | None = None,
    after_epoch: Callable[[Lanes, int, State], bool | None] | None = None,
    stopping: Stopping | None = None,
    monitor: Callable[[Lanes, State], Any] | None = None,
) -> list[Fitted]:
    """Trains a model once for each lane.

    If the loss of a lane becomes infinite or NaN, its `diverged_at` says so; the others go on.

    Args:
      problem: what is trained; see `Lanes`.
      init: key -> initial parameters, or (parameters, mutable variables).
      x: (examples, ...), or a tree of such arrays.
      y: (examples, ...).
      lanes: the runs.
      epochs: passes over the data.
      batch_size: examples in a step of a lane.
      optimizer: makes a lane's optimiser of its numbers.
      at_a_time: how many lanes are trained side by side. Default: `Lanes.at_a_time`.
      devices: where to train; all by default.
      after_epoch: called with the lanes that are being trained, the epoch's number, from 1, and
        their state, whose arrays are used up afterwards. If it returns True, training of these
        lanes ends.
      stopping: as of `train.fit`, for each lane by itself: a lane that has stopped keeps its best
        weights, and its history ends there. Training ends when all lanes have stopped.
      monitor: called after each epoch with the lanes and their state; returns (lanes,) measures.

    Returns:
      A `Fitted` for each lane, in their order.

    Raises:
      ValueError, TypeError: the problem does not fit the data or the lanes.
    """
    check_epochs(epochs)
    check_monitor(stopping, monitor)
    program = Lanes(
        problem,
        init,
        Examples(x, y),
        lanes,
        batch_size=batch_size,
        optimizer=optimizer,
        devices=devices,
    )
    at_a_time = program.at_a_time() if at_a_time is None else at_a_time
    made: list[Fitted] = []
    for group, wanted in even_groups(lanes, at_a_time):
        program = program.with_lanes(group)
        state = program.init()
        best = stopping and stopping.begin(state, len(group))
        history: list[list[dict[str, float]]] = [[] for _ in group]
        for chunk in chunks(program, state, epochs=epochs):
            state = chunk.state
            if not chunk.ends_epoch:
                continue
            over = np.zeros(len(group), bool) if best is None else stopped(best)
            for own, means, ended in zip(history, program.means(state), over, strict=True):
                own += [] if ended else [means]
            if stopping is not None and best is not None and monitor is not None:
                best = stopping.look(best, state, monitor(program, state))
            ends = after_epoch is not None and says_stop(
                after_epoch(program, chunk.epoch + 1, state)
            )
            if ends or (best is not None and stopped(best).all()):
                break
        weights, broken = weights_of(best, state), diverged_at(best, state)
        for lane in range(wanted):
            step = None if best is None else int(best.step[lane])
            own, at = _lane_of(weights, lane), int(broken[lane])
            made.append(Fitted(**own, history=history[lane], diverged_at=at, best_step=step))
    return made


def even_groups(lanes: Sequence[Any], at_most: int) -> Iterator[tuple[list[Any], int]]:
    """Splits lanes into groups of one size, so that one program serves all groups.

    Args:
      lanes: at least one.
      at_most: how many in a group.

    Yields:
      A group, and how many of its members count: the last group is filled up with copies.

    Raises:
      TypeError: at_most is no whole number.
      ValueError: it is less than 1.
    """
    if check_count(at_most, "lanes at a time") < 1:
        raise ValueError(f"lanes at a time must be at least 1, got {at_most}")
    size = math.ceil(len(lanes) / math.ceil(len(lanes) / at_most))
    for start in range(0, len(lanes), size):
        group = list(lanes[start : start + size])
        yield group + group[:1] * (size - len(group)), len(group)


def _select(examples: Examples, rows: np.ndarray) -> Examples:
    return Examples(*jax.tree.map(lambda leaf: leaf[rows], (examples.x, examples.y)))


def _lane_of(tree: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def _alone(state: State, lane: int) -> State:
    # How many steps were done is the same for all, and has no axis of lanes.
    parts = _lane_of(dataclasses.replace(state, step=None), lane)  # type: ignore[arg-type]
    return dataclasses.replace(parts, step=state.step)


def _together(state: State) -> State:
    """The state of one lane, with an axis of lanes of size 1."""
    parts = jax.tree.map(lambda leaf: leaf[None], dataclasses.replace(state, step=None))  # type: ignore[arg-type]
    return dataclasses.replace(parts, step=state.step)


def _times(factor: Array, strength: Strength) -> Strength:
    return lambda step: factor * strength_at(strength, step)


@functools.partial(jax.jit, static_argnums=2)
def _orders(keys: Array, epoch: Array, examples: int) -> Array:
    return jax.vmap(lambda key: order_of(key, epoch, examples))(keys)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _bytes_of_products(jaxpr: Any) -> int:
    """Bytes that matrix products and convolutions return. XLA fuses elementwise work into them."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
        inner = [value for value in inner if hasattr(value, "eqns")]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(map(_bytes_of_products, inner))
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            total += sum(_bytes(variable.aval) for variable in equation.outvars)
    return total
