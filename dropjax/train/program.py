"""The training step, compiled into chunks of steps.

A chunk is one compiled loop whose first and last step are arguments. So one program serves every
chunk length: a short last chunk compiles nothing, and where chunks end can change no bit.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dropjax.core.draw import Draw, sampled
from dropjax.core.keys import Keys
from dropjax.core.scheme import Scheme, Sites
from dropjax.core.strength import Strength, strength_at
from dropjax.ops.keys import derive
from dropjax.train.devices import check_batch_size, parallel, replicate, sum_over

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained.

    Args:
      apply: (params, x, draw) -> outputs, for one example.
      metrics: (outputs, y) -> scalars by name, for one example; "loss" is minimised.
      scheme: the dropout scheme.
      sites: the model's sites, from `core.plan.record`.
      optimizer: an optax optimiser; it trains the model's parameters and what the scheme learns.
      strength: multiplies every rate; a number, or a function of the step.
    """

    apply: Callable[[Any, Any, Draw], Any]
    metrics: Callable[[Any, Any], dict[str, Array]]
    scheme: Scheme
    sites: Sites
    optimizer: optax.GradientTransformation
    strength: Strength = 1.0


@dataclasses.dataclass(frozen=True)
class Examples:
    """A data set held on the devices: x (examples, ...) and y (examples, ...)."""

    x: Any
    y: Any

    def __len__(self) -> int:
        return len(self.x)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that training changes, and so all that a checkpoint holds: no key is among it.

    Args:
      step: steps done.
      params: {"params": the model's, "learned": the scheme's}.
      opt_state: the optimiser's.
      totals: sums over the epoch's examples so far of each metric, and of their weight.
      diverged_at: the first step whose loss was not finite; -1 if there was none.
    """

    step: Array
    params: dict[str, Any]
    opt_state: Any
    totals: dict[str, Array]
    diverged_at: Array

    def means(self) -> dict[str, float]:
        """The epoch's mean of each metric so far."""
        totals = {name: float(value) for name, value in self.totals.items()}
        weight = totals.pop("weight")
        return {name: total / weight for name, total in totals.items()} if weight else {}


class Program:
    """A compiled training problem.

    Args:
      problem: what is trained.
      examples: the training set.
      key: the run's key. Data order and noise come from it under names of their own, so that two
        schemes with one key see the same batches from the same initial weights.
      batch_size: of the global batch, split over the devices.
      devices: where to train; all local ones by default.

    Raises:
      ValueError: the batch does not divide over the devices, or there are no examples.
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
        self.problem, self.batch_size = problem, batch_size
        self.devices = tuple(devices or jax.local_devices())
        check_batch_size(batch_size, len(self.devices))
        if not len(examples):
            raise ValueError("there are no training examples")
        self.examples = len(examples)
        self.steps_per_epoch = -(-len(examples) // batch_size)
        self._key = key
        self._data = replicate((jnp.asarray(examples.x), jnp.asarray(examples.y)), self.devices)
        self._noise_key = replicate(derive(key, "noise"), self.devices)
        self._order_key = derive(key, "data")
        self._orders: dict[int, Array] = {}
        self._chunk = parallel(self._steps, self.devices, donate=(0,))

    def init(self, params: Any) -> State:
        """The state before the first step.

        Args:
          params: the model's initial parameters.
        """
        learned = self.problem.scheme.init_learned(derive(self._key, "learned"), self.problem.sites)
        both = {"params": params, "learned": learned}
        x, y = jax.tree.map(lambda leaf: leaf[0], self._data)
        metrics = jax.eval_shape(
            lambda: self._example(self.problem.scheme.bind(learned), params, x, y, self._noise_key)
        )
        return self.place(
            State(
                step=jnp.zeros((), jnp.int32),
                params=both,
                opt_state=self.problem.optimizer.init(both),
                totals=dict.fromkeys([*metrics, "weight"], jnp.zeros((), jnp.float32)),
                diverged_at=jnp.full((), -1, jnp.int32),
            )
        )

    def place(self, state: State) -> State:
        """A state with each leaf in a buffer of its own on every device, ready to be donated."""
        return replicate(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state), self.devices)

    def run(self, state: State, start: int, stop: int) -> State:
        """Trains steps `start` to `stop` - 1, all of one epoch. `state` is used up.

        Args:
          state: after `start` steps.
          start: its step.
          stop: at most the end of the epoch.
        """
        epoch = start // self.steps_per_epoch
        first = epoch * self.steps_per_epoch
        if not start < stop <= first + self.steps_per_epoch:
            raise ValueError(f"steps {start} to {stop} are not a part of one epoch")
        window = replicate((jnp.int32(start), jnp.int32(stop), jnp.int32(first)), self.devices)
        return self._chunk(state, self._noise_key, self._data, self._order(epoch), *window)

    def _order(self, epoch: int) -> Array:
        """The rows of the training set in the order of one epoch."""
        if epoch not in self._orders:
            order = jax.random.permutation(derive(self._order_key, epoch), self.examples)
            self._orders = {epoch: replicate(order, self.devices)}
        return self._orders[epoch]

    def _example(self, scheme: Scheme, params: Any, x: Any, y: Any, keys: Any) -> dict[str, Array]:
        return self.problem.metrics(self.problem.apply(params, x, sampled(scheme, keys)), y)

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
        problem = self.problem
        share = self.batch_size // len(self.devices)

        def step(number: Array, state: State) -> State:
            position = (number - first) * self.batch_size + device * share + jnp.arange(share)
            # The epoch's last batch may be smaller: rows past the end weigh nothing.
            weight = (position < self.examples).astype(jnp.float32)
            rows = order[jnp.minimum(position, self.examples - 1)]
            x, y = jax.tree.map(lambda leaf: leaf[rows], data)
            batch_weight = sum_over(self.devices, weight.sum())
            step_key = derive(noise_key, number)
            scheme = problem.scheme.scaled(strength_at(problem.strength, number))

            def objective(both: dict[str, Any]) -> tuple[Array, dict[str, Array]]:
                bound = scheme.bind(both["learned"])

                def one(x: Any, y: Any, row: Array) -> dict[str, Array]:
                    return self._example(bound, both["params"], x, y, Keys.of(step_key, row))

                metrics = jax.vmap(one)(x, y, rows)
                sums = jax.tree.map(lambda values: jnp.sum(weight * values), metrics)
                penalty = bound.penalty(problem.sites, both["params"]) / self.examples
                return sums["loss"] / batch_weight + penalty / len(self.devices), sums

            gradients, sums = jax.grad(objective, has_aux=True)(state.params)
            gradients, sums = sum_over(self.devices, (gradients, sums))
            with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
                updates, opt_state = problem.optimizer.update(
                    gradients, state.opt_state, state.params
                )
            # Of one dtype whatever the metrics are: x64 mode makes these float64.
            sums = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), sums)
            sums["weight"] = batch_weight
            fresh = number == first
            bad = (state.diverged_at < 0) & ~jnp.isfinite(sums["loss"])
            return State(
                step=number + 1,
                params=optax.apply_updates(state.params, updates),  # type: ignore[arg-type]
                opt_state=opt_state,
                totals={
                    name: jnp.where(fresh, 0, total) + sums[name]
                    for name, total in state.totals.items()
                },
                diverged_at=jnp.where(bad, number, state.diverged_at),
            )

        return jax.lax.fori_loop(start, stop, step, state)
