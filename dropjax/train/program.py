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
from jax.typing import ArrayLike

from dropjax.core.draw import Draw, sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import check, no_weights, record, weights
from dropjax.core.scheme import Scheme, Sites, Weights
from dropjax.core.site import BATCH_AXES
from dropjax.core.strength import Strength, strength_at
from dropjax.ops.keys import derive
from dropjax.train.devices import check_batch_size, mean_over, parallel, replicate, sum_over
from dropjax.train.replay import (
    Replay,
    batch_key_of,
    noise_key_of,
    order_of,
    positions,
    step_key_of,
    steps_per_epoch,
)

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained: the contract between anyone's model and the loop.

    The model is a function in one of these forms:

      apply(params, x, draw) -> outputs: of one example, with a scheme. All promises hold: noise
        belongs to an example, whatever the batch size and the number of devices.
      apply(params, x, key) -> outputs: of one example, without a scheme: the model calls what it
        likes with the example's key. The same promises.
      apply(params, xs, key) -> outputs: of a device's part of the batch, with `batched`, one key
        for all of it: for models that exist already. Noise then depends on the batch size and on
        the number of devices, and the last, smaller batch is filled up with examples of no weight.

    With `stateful` each of them takes a fourth argument, the model's mutable variables, and returns
    (outputs, new variables). Those are averages over the batch, such as batch normalisation's: of
    one example, the function runs under the mapped axes `dropjax.core.site.BATCH_AXES`, and has to
    average over them by itself (as `flax.linen.BatchNorm(axis_name=...)` does), so that they are
    the same for all; of a batch, the devices' are averaged here.

    Args:
      apply: the model.
      metrics: (outputs, y) -> a dictionary of scalars, of one example always; "loss" is minimised.
      scheme: the dropout scheme; None for a model that takes a key.
      optimizer: an optax optimiser; it trains the model's parameters and what the scheme learns.
      sites: the model's sites, from `core.plan.record`; None to find them when training starts.
      strength: multiplies every rate; a number, or a function of the step.
      penalty: multiplies the penalty of a scheme that learns: a number, or a function of the step,
        to warm it up. The penalty is divided by the number of training examples in any case.
      batched: whether `apply` takes a batch.
      stateful: whether it has mutable variables.

    Raises:
      ValueError: a batched model with a scheme, whose noise is that of one example; or a strength
        without a scheme.
      TypeError: the scheme is none.
    """

    apply: Callable[..., Any]
    metrics: Callable[[Any, Any], dict[str, Array]]
    scheme: Scheme | None
    optimizer: optax.GradientTransformation
    sites: Sites | None = None
    strength: Strength = 1.0
    penalty: Strength = 1.0
    batched: bool = False
    stateful: bool = False

    def __post_init__(self) -> None:
        if self.batched and self.scheme is not None:
            raise ValueError(
                "batched=True with a scheme: a draw is for one example. Write the model for one, "
                "or give it keys instead (scheme=None)"
            )
        if self.scheme is not None and not isinstance(self.scheme, Scheme):
            raise TypeError(
                "scheme must be a scheme, such as dropjax.schemes.parse('bernoulli(rate=0.5)'), or "
                f"None; got {self.scheme!r}"
            )
        if self.scheme is None and self.strength != 1.0:
            raise ValueError("strength would do nothing: there is no scheme")
        if self.penalty != 1.0 and (self.scheme is None or not self.scheme.penalises):
            raise ValueError("penalty would do nothing: the scheme adds nothing to the loss")


@dataclasses.dataclass(frozen=True)
class Examples:
    """A data set held on the devices: x (examples, ...) and y (examples, ...), or trees of such.

    Raises:
      ValueError: the lengths differ.
    """

    x: Any
    y: Any

    def __post_init__(self) -> None:
        lengths = {len(leaf) for leaf in jax.tree.leaves((self.x, self.y))}
        if len(lengths) != 1:
            raise ValueError(f"x and y must have equal lengths, got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.x)[0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that training changes, and so all that a checkpoint holds: no key is among it.

    Args:
      step: steps done.
      params: {"params": the model's, "learned": the scheme's}.
      opt_state: the optimiser's.
      mutable: the model's mutable variables; {} for most.
      totals: sums over the epoch's examples so far of each metric, and of their weight.
      diverged_at: the first step whose loss was not finite; -1 if there was none.
    """

    step: Array
    params: dict[str, Any]
    opt_state: Any
    mutable: Any
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
      devices: where to train; by default all, those of other processes among them, which then run
        the same program with the same arguments.

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
        self.devices = tuple(devices or jax.devices())
        check_batch_size(batch_size, len(self.devices))
        if not len(examples):
            raise ValueError("there are no training examples")
        self.examples = len(examples)
        self.steps_per_epoch = steps_per_epoch(len(examples), batch_size)
        self._key = key
        self._data = replicate(jax.tree.map(jnp.asarray, (examples.x, examples.y)), self.devices)
        self._noise_key = replicate(noise_key_of(key), self.devices)
        self._orders: dict[int, Array] = {}
        self._chunk = parallel(self._steps, self.devices, donate=(0,))

    def check(self, params: Any, mutable: Any = None) -> list[str]:
        """Traces the model and its metrics, and computes nothing.

        Args:
          params: the model's parameters.
          mutable: its mutable variables, if it is stateful.

        Returns:
          The names of the metrics.

        Raises:
          ValueError: the scheme would do nothing at the sites that were found; `mutable` is given
            to a model that is not stateful, or not to one that is; no metric is called "loss".
          TypeError: the metrics are no dictionary.
        """
        if (mutable is not None) != self.problem.stateful:
            raise ValueError(f"stateful={self.problem.stateful}, but mutable={mutable!r}")
        mutable = {} if mutable is None else mutable
        scheme = self.problem.scheme
        if scheme is not None and self.problem.sites is None:
            self.problem = dataclasses.replace(self.problem, sites=self._sites(params, mutable))
        if scheme is not None:
            scheme = scheme.bind(self._learned(no_weights(self.problem.sites or {})))
        x, y = jax.tree.map(lambda leaf: leaf[:1], self._data)
        metrics, _ = jax.eval_shape(
            lambda: _on_one_device(
                lambda: self._measure(
                    scheme, params, mutable, x, y, jnp.zeros(1, jnp.int32), self._noise_key, 0
                )
            )
        )
        if not isinstance(metrics, dict):
            raise TypeError(f"metrics must return a dictionary of scalars, got {metrics}")
        if "loss" not in metrics:
            raise ValueError(f"metrics must return a scalar named 'loss', got {sorted(metrics)}")
        return sorted(metrics)

    def _learned(self, found: Weights) -> Any:
        scheme = self.problem.scheme
        if scheme is None:
            return {}
        return scheme.init_learned(derive(self._key, "learned"), self.problem.sites or {}, found)

    def weights(self, params: Any, mutable: Any = None) -> Weights:
        """The weights at the model's LINEAR, WEIGHT and TABLE sites, by the sites' names."""
        mutable = {} if mutable is None else mutable
        find = jax.jit(lambda: _on_one_device(lambda: self._weights(params, mutable)))
        return find()

    def _weights(self, params: Any, mutable: Any) -> Weights:
        problem = self.problem
        # Any values do: what becomes of the example is thrown away.
        x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), self._data[0])
        state = (mutable,) if problem.stateful else ()

        def one(_: Array) -> Weights:
            return weights(lambda draw: problem.apply(params, x, draw, *state))

        return jax.vmap(one, out_axes=None, axis_name=BATCH_AXES[0])(jnp.arange(1))

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
        scheme = self.problem.scheme
        learns = scheme is not None and scheme.learns
        learned = self._learned(self.weights(params, mutable) if learns else {})
        both = {"params": params, "learned": learned}
        return self.place(
            State(
                step=jnp.zeros((), jnp.int32),
                params=both,
                opt_state=self.problem.optimizer.init(both),
                mutable=mutable,
                totals=dict.fromkeys([*metrics, "weight"], jnp.zeros((), jnp.float32)),
                diverged_at=jnp.full((), -1, jnp.int32),
            )
        )

    def place(self, state: State) -> State:
        """A state with each leaf in a buffer of its own on every device, ready to be donated."""
        return replicate(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state), self.devices)

    def report(self, state: State) -> dict[str, dict[str, float]]:
        """What the scheme has learned, in numbers, by site name; empty for most schemes."""
        scheme, sites = self.problem.scheme, self.problem.sites or {}
        if scheme is None or not scheme.learns:
            return {}
        params, learned = state.params["params"], state.params["learned"]
        found = self.weights(params, state.mutable if self.problem.stateful else None)
        numbers = jax.jit(lambda learned: scheme.bind(learned).report(sites, found))(learned)
        return jax.tree.map(float, numbers)

    def replay(self, learned: Any = None) -> Replay:
        """The batches and the noise of any step, without training.

        Args:
          learned: what the scheme had learned before the step that is asked for, if it learns:
            `state.params["learned"]`.

        Raises:
          ValueError: the model is batched, and its noise not that of an example.
        """
        problem = self.problem
        if problem.batched:
            raise ValueError(
                "a batched model's noise is no example's: each device gave it one key, "
                "train.replay.batch_key_of the step's"
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
        epoch = start // self.steps_per_epoch
        first = epoch * self.steps_per_epoch
        if not start < stop <= first + self.steps_per_epoch:
            raise ValueError(f"steps {start} to {stop} are not a part of one epoch")
        window = replicate((jnp.int32(start), jnp.int32(stop), jnp.int32(first)), self.devices)
        return self._chunk(state, self._noise_key, self._data, self._order(epoch), *window)

    def _order(self, epoch: int) -> Array:
        """The rows of the training set in the order of one epoch."""
        if epoch not in self._orders:
            order = order_of(self._key, epoch, self.examples)
            self._orders = {epoch: replicate(order, self.devices)}
        return self._orders[epoch]

    def _sites(self, params: Any, mutable: Any) -> Sites:
        problem, x = self.problem, jax.tree.map(lambda leaf: leaf[0], self._data[0])
        state = (mutable,) if problem.stateful else ()

        def call(draw: Draw) -> Any:
            def over_one() -> Any:
                one = jax.vmap(
                    lambda _: problem.apply(params, x, draw, *state), axis_name=BATCH_AXES[0]
                )
                return one(jnp.arange(1))

            return _on_one_device(over_one)

        sites = record(call)
        assert problem.scheme is not None
        check(problem.scheme, sites)
        return sites

    def _measure(
        self,
        scheme: Scheme | None,
        params: Any,
        mutable: Any,
        x: Any,
        y: Any,
        rows: Array,
        step_key: Array,
        device: ArrayLike,
    ) -> tuple[dict[str, Array], Any]:
        """The metrics of each of a device's examples, and the new mutable variables."""
        problem = self.problem

        def call(x: Any, noise: Any) -> tuple[Any, Any]:
            if problem.stateful:
                return problem.apply(params, x, noise, mutable)
            return problem.apply(params, x, noise), mutable

        if problem.batched:
            outputs, new = call(x, batch_key_of(step_key, device))
            return jax.vmap(problem.metrics)(outputs, y), new

        def one(x: Any, y: Any, row: Array) -> tuple[dict[str, Array], Any]:
            keys = Keys.of(step_key, row)
            outputs, new = call(x, keys.example if scheme is None else sampled(scheme, keys))
            return problem.metrics(outputs, y), new

        over_examples = jax.vmap(one, out_axes=(0, None), axis_name=BATCH_AXES[0])
        return over_examples(x, y, rows)

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

        def step(number: Array, state: State) -> State:
            position = positions(number - first, self.batch_size, device, len(self.devices))
            # The epoch's last batch may be smaller: rows past the end weigh nothing. They are other
            # examples, not copies of one, for the sake of statistics over the batch.
            weight = (position < self.examples).astype(jnp.float32)
            rows = order[position % self.examples]
            x, y = jax.tree.map(lambda leaf: leaf[rows], data)
            batch_weight = sum_over(self.devices, weight.sum())
            step_key = step_key_of(noise_key, number)
            scheme = problem.scheme
            if scheme is not None:
                scheme = scheme.scaled(strength_at(problem.strength, number))

            def objective(both: dict[str, Any]) -> tuple[Array, Any]:
                bound, params = scheme and scheme.bind(both["learned"]), both["params"]
                metrics, new = self._measure(
                    bound, params, state.mutable, x, y, rows, step_key, device
                )
                sums = jax.tree.map(lambda values: jnp.sum(weight * values), metrics)
                loss = sums["loss"] / batch_weight
                if bound is not None and bound.penalises:
                    found = self._weights(params, state.mutable)
                    penalty = bound.penalty(problem.sites or {}, found)
                    penalty = penalty * strength_at(problem.penalty, number) / self.examples
                    loss = loss + penalty / len(self.devices)
                return loss, (sums, new)

            gradients, (sums, mutable) = jax.grad(objective, has_aux=True)(state.params)
            gradients, sums = sum_over(self.devices, (gradients, sums))
            mutable = mean_over(self.devices, mutable)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
                updates, opt_state = problem.optimizer.update(
                    gradients, state.opt_state, state.params
                )
            if scheme is not None:
                updates = updates | {"learned": scheme.trained(updates["learned"])}  # type: ignore[operator]
            # Of one dtype whatever the metrics are: x64 mode makes these float64.
            sums = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), sums)
            sums["weight"] = batch_weight
            fresh = number == first
            bad = (state.diverged_at < 0) & ~jnp.isfinite(sums["loss"])
            return State(
                step=number + 1,
                params=optax.apply_updates(state.params, updates),  # type: ignore[arg-type]
                opt_state=opt_state,
                mutable=mutable,
                totals={
                    name: jnp.where(fresh, 0, total) + sums[name]
                    for name, total in state.totals.items()
                },
                diverged_at=jnp.where(bad, number, state.diverged_at),
            )

        return jax.lax.fori_loop(start, stop, step, state)


def _on_one_device(function: Callable[[], Any]) -> Any:
    """Calls a function under the axis of the devices, of which there is one, for its shapes."""
    mapped = jax.vmap(lambda _: function(), axis_name=BATCH_AXES[1])(jnp.arange(1))
    return jax.tree.map(lambda leaf: leaf[0], mapped)
