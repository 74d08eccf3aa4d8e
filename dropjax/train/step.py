"""What is trained, and one step of it as a pure function."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from dropjax.core.draw import Draw, sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import check, record, weights
from dropjax.core.scheme import Scheme, Sites, Weights
from dropjax.core.site import BATCH_AXES
from dropjax.core.strength import Strength, strength_at
from dropjax.train.devices import mean_over, sum_over
from dropjax.train.keys import (
    augment_key_of,
    batch_key_of,
    learned_key_of,
    mix_key_of,
    partner_of,
    positions,
    step_key_of,
)
from dropjax.train.objectives import checked_metrics

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
    average over them by itself, so that they are the same for all; of a batch, the devices' are
    averaged here. The last, smaller batch of an epoch is filled up with other examples.
    `dropjax.core.batch.mean_over_batch(value, weight)` averages over the axes without these, by the
    example's weight: `draw.weight`, or with `weighted` what a model of a key takes as its keyword
    `weight`.

    Args:
      apply: the model.
      metrics: (outputs, y) -> a dictionary of scalars, of one example always; "loss" is minimised.
        Those of `train.OBJECTIVES` look at all targets before training starts.
      scheme: the dropout scheme; None for a model that takes a key.
      optimizer: an optax optimiser of {"params": the model's parameters, "learned": what the scheme
        learns}. The second must be left out of weight decay: `optax.adamw(1e-3,
        mask=train.weights_alone)`.
      sites: the model's sites, from `core.plan.record`; None to find them when training starts.
      strength: multiplies every rate; a number, or a function of the step.
      penalty: multiplies the penalty of a scheme that learns: a number, or a function of the step,
        to warm it up. The penalty, in nats, is divided by the number of training examples in any
        case, and is in the unit of the loss: with an objective of `train.OBJECTIVES` 1 makes the
        sum the negative evidence lower bound (ELBO) of an example, up to a factor and a constant.
        The squared error of "regression" is 2 / targets times its negative log-likelihood at
        variance 1, and so the penalty is multiplied by that. With metrics of your own the loss is
        taken to be in nats: the factor is 1.
      regularizer: params -> a scalar that is added to the loss of each batch, such as
        `train.WeightPenalty(l2=1e-4)`; None for none.
      augment: (key, x) -> x, a random change of an example's input in training; its key is the
        example's own. None for none.
      mix: (key, x, other) -> (x, share), which mixes an example with another one of the training
        data, such as `train.augment.mixup(0.2)`. The metrics are those of the targets of both, in
        the shares `share` and 1 - `share`. None for none.
      project: params -> params, which is applied after each update, such as `train.MaxNorm(3.0)`;
        None for none.
      average: step -> the share by which an average moves to the new weights after that step, such
        as `train.ema(0.999)`. The average is what is to be evaluated (`State.evaluated`). None for
        no average.
      batched: whether `apply` takes a batch.
      stateful: whether it has mutable variables.
      weighted: whether a model of a key, of one example, takes the keyword `weight`: 1, or 0 for an
        example that only fills up the epoch's last batch.

    Raises:
      ValueError: a batched model with a scheme, whose noise is that of one example; a strength
        without a scheme, or outside [0, 1]; `weighted` where it would do nothing.
      TypeError: a part is not what it should be.
    """

    apply: Callable[..., Any]
    metrics: Callable[[Any, Any], dict[str, Array]]
    scheme: Scheme | None
    optimizer: optax.GradientTransformation
    sites: Sites | None = None
    strength: Strength = 1.0
    penalty: Strength = 1.0
    regularizer: Callable[[Any], Array] | None = None
    augment: Callable[[Array, Any], Any] | None = None
    mix: Callable[[Array, Any, Any], tuple[Any, Array]] | None = None
    project: Callable[[Any], Any] | None = None
    average: Callable[[Array], Array] | None = None
    batched: bool = False
    stateful: bool = False
    weighted: bool = False

    def __post_init__(self) -> None:
        if not callable(self.apply):
            raise TypeError(f"apply must be a function, got {self.apply!r}")
        if not callable(self.metrics):
            raise TypeError(
                "metrics must be a function (outputs, y) -> a dictionary of scalars, such as "
                f"train.OBJECTIVES['classification']; got {self.metrics!r}"
            )
        if not isinstance(self.optimizer, optax.GradientTransformation):
            raise TypeError(
                f"optimizer must be an optax optimiser such as optax.adam(1e-3), got "
                f"{self.optimizer!r}"
            )
        for name in ("regularizer", "augment", "mix", "project", "average"):
            if (value := getattr(self, name)) is not None and not callable(value):
                raise TypeError(f"{name} must be a function or None, got {value!r}")
        if self.weighted and (self.batched or self.scheme is not None):
            why = "a batched model has one key" if self.batched else "a draw has it: draw.weight"
            raise ValueError(f"weighted=True is for a model of one example and a key: {why}")
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
        for name, value, most in (
            ("strength", self.strength, 1.0),
            ("penalty", self.penalty, math.inf),
        ):
            if isinstance(value, (int, float)) and not 0 <= value <= most:
                raise ValueError(f"{name} must be in [0, {most:g}], got {value}")


@dataclasses.dataclass(frozen=True)
class Examples:
    """A data set: x (examples, ...) and y (examples, ...), arrays or trees of arrays.

    Raises:
      TypeError: x or y holds something else than arrays of numbers.
      ValueError: their lengths differ, or x holds no array.
    """

    x: Any
    y: Any

    def __post_init__(self) -> None:
        for name, tree in (("x", self.x), ("y", self.y)):
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                _check_data(leaf, name + jax.tree_util.keystr(path))
        if not jax.tree.leaves(self.x):
            raise ValueError(f"x must hold at least one array, got {self.x!r}")
        lengths = {len(leaf) for leaf in jax.tree.leaves((self.x, self.y))}
        if len(lengths) != 1:
            raise ValueError(f"x and y must have equal lengths, got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.x)[0])


def _check_data(leaf: Any, name: str) -> None:
    if not hasattr(leaf, "shape"):
        raise TypeError(
            f"{name} must be an array (examples, ...), got {type(leaf).__name__}; convert lists by "
            "numpy.asarray"
        )
    if not leaf.shape:
        raise TypeError(f"{name} must be an array (examples, ...), got a single value, {leaf!r}")
    if getattr(getattr(leaf, "dtype", None), "kind", "f") in "OSUMm":
        raise TypeError(f"{name} must hold numbers, got an array of {leaf.dtype}")


class Trained(NamedTuple):
    """What the optimiser trains.

    Args:
      params: the model's parameters.
      learned: what the scheme learns, by site name; {} for most.
    """

    params: Any
    learned: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that training changes, and so all that a checkpoint holds. No key is in it.

    Args:
      step: how many steps were done.
      params: `trained` as the optimiser sees it, one tree {"params": ..., "learned": ...}.
      opt_state: the optimiser's.
      mutable: the model's mutable variables; {} for most.
      totals: the sum of each metric, and of the weights, over the examples of the epoch so far.
      diverged_at: the first step whose loss was not finite; -1 if there was none.
      average: the average of {"params": ..., "learned": ..., "mutable": ...}; {} without
        `Problem.average`.
    """

    step: Array
    params: dict[str, Any]
    opt_state: Any
    mutable: Any
    totals: dict[str, Array]
    diverged_at: Array
    average: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def trained(self) -> Trained:
        """The model's parameters, and what the scheme has learned."""
        return Trained(**self.params)

    def evaluated(self) -> dict[str, Any]:
        """{"params": ..., "learned": ..., "mutable": ...}: the average, or without one the last."""
        return self.average or self.params | {"mutable": self.mutable}

    def with_weights(self, weights: dict[str, Any]) -> "State":
        """This state with other weights in the place of the last ones; there is no average then.

        Args:
          weights: as `evaluated` returns them.
        """
        own = {name: weights[name] for name in ("params", "learned")}
        return dataclasses.replace(self, params=own, mutable=weights["mutable"], average={})

    def means(self) -> dict[str, float]:
        """The epoch's mean of each metric so far."""
        totals = {name: float(value) for name, value in self.totals.items()}
        weight = totals.pop("weight")
        return {name: total / weight for name, total in totals.items()} if weight else {}


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step as pure functions, which the caller compiles.

    Args:
      problem: what is trained.
      examples: how many the training set has.
      batch_size: of the whole batch, over all devices.
      devices: those that share the batch, under the axis of `train.devices.parallel`.
      rows: (examples,), which rows of the data make up the training set; None for all.
      loss_per_nat: what a nat of the penalty adds to the loss; see `Problem.penalty`.
    """

    problem: Problem
    examples: int
    batch_size: int
    devices: tuple[Any, ...]
    rows: Array | None = None
    loss_per_nat: float = 1.0

    def with_sites(self, x: Any, params: Any, mutable: Any) -> "Step":
        """The same step, with the model's sites, which are found by tracing the model.

        Args:
          x: an example.
          params: the model's parameters.
          mutable: its mutable variables; {} for none.

        Raises:
          ValueError: the scheme would do nothing there.
        """
        problem = self.problem
        if problem.scheme is None or problem.sites is not None:
            return self
        state = (mutable,) if problem.stateful else ()

        def call(draw: Draw) -> Any:
            def on_a_batch_of_one() -> Any:
                on_batch = jax.vmap(
                    lambda _: problem.apply(params, x, draw, *state), axis_name=BATCH_AXES[0]
                )
                return on_batch(jnp.arange(1))

            return on_one_device(on_a_batch_of_one)

        sites = record(call)
        check(problem.scheme, sites)
        return dataclasses.replace(self, problem=dataclasses.replace(problem, sites=sites))

    def state(self, key: Array, x: Any, params: Any, mutable: Any, metrics: Sequence[str]) -> State:
        """The state before the first step.

        Args:
          key: the run's key.
          x: an example.
          params: the model's initial parameters.
          mutable: its mutable variables; {} for none.
          metrics: the names of its metrics.
        """
        scheme = self.problem.scheme
        learns = scheme is not None and scheme.learns
        weights = self.found_weights(x, params, mutable) if learns else {}
        trained = {"params": params, "learned": self.learned(key, weights)}
        return State(
            step=jnp.zeros((), jnp.int32),
            params=trained,
            opt_state=self.problem.optimizer.init(trained),
            mutable=mutable,
            totals=dict.fromkeys([*metrics, "weight"], jnp.zeros((), jnp.float32)),
            diverged_at=jnp.full((), -1, jnp.int32),
            average={} if self.problem.average is None else trained | {"mutable": mutable},
        )

    def learned(self, key: Array, weights: Weights) -> Any:
        """Initial values of what the scheme learns; {} if it learns nothing.

        Args:
          key: the run's key.
          weights: at the model's LINEAR, WEIGHT and TABLE sites.
        """
        scheme = self.problem.scheme
        if scheme is None:
            return {}
        return scheme.init_learned(learned_key_of(key), self.problem.sites or {}, weights)

    def weights(self, x: Any, params: Any, mutable: Any) -> Weights:
        """The weights at the model's LINEAR, WEIGHT and TABLE sites, by the sites' names."""
        problem = self.problem
        # Any example does: the model's outputs for it are thrown away.
        x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)
        state = (mutable,) if problem.stateful else ()

        def of_example(_: Array) -> Weights:
            return weights(lambda draw: problem.apply(params, x, draw, *state))

        return jax.vmap(of_example, out_axes=None, axis_name=BATCH_AXES[0])(jnp.arange(1))

    def found_weights(self, x: Any, params: Any, mutable: Any) -> Weights:
        """`weights` outside of a step, where no axis is mapped."""
        return jax.jit(lambda: on_one_device(lambda: self.weights(x, params, mutable)))()

    def measure(
        self,
        scheme: Scheme | None,
        params: Any,
        mutable: Any,
        x: Any,
        y: Any,
        rows: Array,
        weight: Array,
        step_key: Array,
        device: ArrayLike,
        data: tuple[Any, Any] | None = None,
    ) -> tuple[dict[str, Array], Any]:
        """The metrics of each of a device's examples, and the new mutable variables.

        Args:
          scheme: with what it has learned.
          params: the model's parameters.
          mutable: its mutable variables.
          x, y: the examples.
          rows: which rows of the training set they are.
          weight: of each, 1 or 0.
          step_key: the key of the step.
          device: which of the devices this is.
          data: x and y of all examples, of which some are mixed in; None for the same examples.

        Raises:
          ValueError, TypeError: the metrics are no dictionary of scalars, or have no loss.
        """
        problem = self.problem
        # Where every batch is full, a draw has no weight, and a mean over the batch is a plain one.
        fillers = self.examples % self.batch_size != 0

        def call(x: Any, noise: Any, **weight: Array) -> tuple[Any, Any]:
            if problem.stateful:
                return problem.apply(params, x, noise, mutable, **weight)
            return problem.apply(params, x, noise, **weight), mutable

        x, targets = self._changed(x, y, rows, step_key, data)

        def metrics(outputs: Any, targets: list[tuple[Any, Array]]) -> dict[str, Array]:
            (first, share), *others = [
                (checked_metrics(problem.metrics(outputs, y)), share) for y, share in targets
            ]
            if not others:
                return first
            ((second, rest),) = others
            return {name: share * first[name] + rest * second[name] for name in first}

        if problem.batched:
            outputs, new = call(x, batch_key_of(step_key, device))
            return jax.vmap(metrics)(outputs, targets), new

        def on_example(
            x: Any, targets: Any, row: Array, weight: Array
        ) -> tuple[dict[str, Array], Any]:
            keys = Keys.of(step_key, row)
            if scheme is not None:
                outputs, new = call(x, sampled(scheme, keys, weight=weight if fillers else None))
            elif problem.weighted:
                outputs, new = call(x, keys.example, weight=weight)
            else:
                outputs, new = call(x, keys.example)
            return metrics(outputs, targets), new

        over_examples = jax.vmap(on_example, out_axes=(0, None), axis_name=BATCH_AXES[0])
        return over_examples(x, targets, rows, weight)

    def _changed(
        self, x: Any, y: Any, rows: Array, step_key: Array, data: tuple[Any, Any] | None
    ) -> tuple[Any, list[tuple[Any, Array]]]:
        """The examples after their random changes, and their targets with the share of each."""
        problem = self.problem

        def augmented(x: Any, row: Array) -> Any:
            return (
                x if problem.augment is None else problem.augment(augment_key_of(step_key, row), x)
            )

        def mixed(x: Any, row: Array, other: Any, other_row: Array) -> tuple[Any, Array]:
            assert problem.mix is not None
            pair = augmented(x, row), augmented(other, other_row)
            return problem.mix(mix_key_of(step_key, row), *pair)

        if problem.mix is None:
            return jax.vmap(augmented)(x, rows), [(y, jnp.ones(len(rows)))]
        partners, others = rows, (x, y)
        if data is not None:
            partners = jax.vmap(lambda row: partner_of(mix_key_of(step_key, row), self.examples))(
                rows
            )
            others = self._rows_of(data, partners)
        x, share = jax.vmap(mixed)(x, rows, others[0], partners)
        return x, [(y, share), (others[1], 1 - share)]

    def _rows_of(self, data: tuple[Any, Any], rows: Array) -> tuple[Any, Any]:
        """The examples in these rows of the training set."""
        rows_of_data = rows if self.rows is None else self.rows[rows]
        return jax.tree.map(lambda leaf: leaf[rows_of_data], data)

    def __call__(
        self,
        number: Array,
        state: State,
        noise_key: Array,
        data: tuple[Any, Any],
        order: Array,
        first: Array,
        device: Array,
    ) -> State:
        """The state after one more step.

        Args:
          number: of the step.
          state: before it.
          noise_key: `noise_key_of` the run's key.
          data: x and y of all examples.
          order: the rows of the training set in the epoch's order.
          first: the number of the epoch's first step.
          device: which of the devices this is.
        """
        problem = self.problem
        position = positions(number - first, self.batch_size, device, len(self.devices))
        # The epoch's last batch may be smaller. It is filled up with other examples, which weigh
        # nothing. Copies of a single one would distort statistics over the batch.
        weight = (position < self.examples).astype(jnp.float32)
        rows = order[position % self.examples]
        x, y = self._rows_of(data, rows)
        batch_weight = sum_over(self.devices, weight.sum())
        step_key = step_key_of(noise_key, number)
        scheme = problem.scheme
        if scheme is not None:
            scheme = scheme.scaled(strength_at(problem.strength, number))

        def objective(trained: dict[str, Any]) -> tuple[Array, Any]:
            bound, params = scheme and scheme.bind(trained["learned"]), trained["params"]
            metrics, new = self.measure(
                bound, params, state.mutable, x, y, rows, weight, step_key, device, data
            )
            sums = jax.tree.map(lambda values: jnp.sum(weight * values), metrics)
            loss = sums["loss"] / batch_weight
            if bound is not None and bound.penalises:
                one_example = jax.tree.map(lambda leaf: leaf[0], x)
                weights = self.weights(one_example, params, state.mutable)
                penalty = bound.penalty(problem.sites or {}, weights)
                penalty = penalty * strength_at(problem.penalty, number) / self.examples
                if self.loss_per_nat != 1:
                    penalty = penalty * self.loss_per_nat
                loss = loss + penalty / len(self.devices)
            if problem.regularizer is not None:
                loss = loss + problem.regularizer(params) / len(self.devices)
            return loss, (sums, new)

        gradients, (sums, mutable) = jax.grad(objective, has_aux=True)(state.params)
        gradients, sums = sum_over(self.devices, (gradients, sums))
        mutable = mean_over(self.devices, mutable)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, opt_state = problem.optimizer.update(gradients, state.opt_state, state.params)
        if scheme is not None:
            updates = updates | {"learned": scheme.trained(updates["learned"])}  # type: ignore[operator]
        # Of one dtype, whatever the metrics have: in x64 mode that may be float64.
        sums = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), sums)
        sums["weight"] = batch_weight
        fresh = number == first
        bad = (state.diverged_at < 0) & ~jnp.isfinite(sums["loss"])
        params: Any = optax.apply_updates(state.params, updates)  # type: ignore[arg-type]
        if problem.project is not None:
            params = params | {"params": problem.project(params["params"])}
        average = state.average
        if problem.average is not None:
            share = problem.average(number)
            average = jax.tree.map(
                lambda old, new: _towards(old, new, share), average, params | {"mutable": mutable}
            )
        return State(
            step=number + 1,
            params=params,
            opt_state=opt_state,
            mutable=mutable,
            totals={
                name: jnp.where(fresh, 0, total) + sums[name]
                for name, total in state.totals.items()
            },
            diverged_at=jnp.where(bad, number, state.diverged_at),
            average=average,
        )


def _towards(old: Array, new: Array, share: Array) -> Array:
    """The average after a step. Of what is no number with a fraction there is no average."""
    if not jnp.issubdtype(new.dtype, jnp.inexact):
        return new
    return old + share.astype(new.dtype) * (new - old)


def on_one_device(function: Callable[[], Any]) -> Any:
    """Calls a function under the axis of devices, as `parallel` would on a single device."""
    mapped = jax.vmap(lambda _: function(), axis_name=BATCH_AXES[1])(jnp.arange(1))
    return jax.tree.map(lambda leaf: leaf[0], mapped)
