"""Trains the cells of an ablation side by side, and measures them as single runs are measured."""

import dataclasses
import functools
import json
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core import plan
from dropjax.core.scheme import Scheme
from dropjax.runs import Network
from dropjax.train import Best, Lane, Lanes, State, chunks
from dropjax.train.optax_spec import optimizer_of
from dropjax.train.stopping import diverged_at, step_of, stopped, weights_of
from experiments import results
from experiments.flags import DECLARED, Config, Flags
from experiments.setup import Resolved, can_be_run, launching, values_of

Array = jax.Array
Made = dict[str, Any]
"""What a cell has made: its "result", its "history", and how many "lanes" it was trained among."""

_EVALUATED = 1000
"""Examples that are evaluated at a time."""


def alike(resolved: Resolved) -> str:
    """What cells must have in common to be trained in one program: all but numbers.

    Args:
      resolved: a cell.
    """
    config = vars(resolved.config)
    numbers = ["seed", "dropout", "rate", *numbers_of(resolved.config)]
    numbers += [name for name in ("strength", "penalty") if _constant(config[name]) is not None]
    scheme, network = resolved.network.scheme, resolved.network
    shapes = [str(np.shape(leaf)) for leaf in jax.tree.leaves(scheme)]
    statistics = ("shift", "scale", "target_shift", "target_scale")
    return json.dumps(
        {
            "flags": {k: v for k, v in config.items() if k not in numbers},
            "scheme": [str(jax.tree.structure(scheme)), *shapes],
            # Those of a table are of the part of it that is trained on.
            "statistics": [np.asarray(getattr(network, name)).tolist() for name in statistics],
        },
        sort_keys=True,
    )


def numbers_of(config: Config) -> list[str]:
    """The flags whose values are numbers of a lane. One at its default is off: another program."""
    return [
        name
        for name, declared in DECLARED.items()
        if declared.lane
        and isinstance(value := getattr(config, name), (int, float))
        and value != getattr(Flags, name)
    ]


def _constant(text: str) -> float | None:
    """The number that a text of --strength or --penalty is, if it is no schedule."""
    try:
        return float(text)
    except ValueError:
        return None


class Trainer:
    """One compiled program for cells that are `alike`.

    Args:
      cells: at least one.

    Raises:
      LaunchError: the scheme meets no site of the model, or the cell cannot be run.
    """

    def __init__(self, cells: Sequence[Resolved]) -> None:
        first = cells[0]
        self.first, self.network, self.whole = first, first.network, first.whole
        model = first.config.model
        with launching():
            _, mutable, sites = first.traced()
            plan.check(self.network.scheme, sites, model)
            self.site_table = plan.table(self.network.scheme, sites)
            problem = first.problem(sites, bool(mutable))
            for name in ("strength", "penalty"):
                if _constant(getattr(first.config, name)) is not None:  # each lane has its own
                    problem = dataclasses.replace(problem, **{name: 1.0})
            self.strength, self._learning_rate = problem.strength, first.learning_rate

            def init(key: Array) -> Any:
                params, mutable = self.network.init(key, first.dataset.x_train[0])
                return (params, mutable) if problem.stateful else params

            with can_be_run(self.network.scheme, model):
                self.lanes = Lanes(
                    problem,
                    init,
                    first.examples(first.whole),
                    [_lane(cell) for cell in cells],
                    batch_size=first.config.batch_size,
                    optimizer=self._optimizer,
                )
        self.steps = first.config.epochs * self.lanes.steps_per_epoch

    def _optimizer(self, **numbers: Any) -> Any:
        """A lane's optimiser. A schedule of the learning rate is the same for all."""
        return optimizer_of(
            self.first.config.optimizer, **{"learning_rate": self._learning_rate} | numbers
        )

    def run(self, cells: Sequence[Resolved], advance: Callable[[int], None]) -> list[Made]:
        """Trains and measures cells.

        Args:
          cells: all at once. For another number of them than last time it compiles anew.
          advance: is told after each chunk how many steps it had.
        """
        began = time.perf_counter()
        lanes = self.lanes.with_lanes([_lane(cell) for cell in cells])
        history: list[list[dict[str, Any]]] = [[] for _ in cells]
        state, stopping = lanes.init(), self.first.stopping
        best = stopping and stopping.begin(state, len(cells))
        for chunk in chunks(lanes, state, epochs=self.first.config.epochs):
            state = chunk.state
            advance(chunk.steps)
            if not chunk.ends_epoch:
                continue
            over = np.zeros(len(cells), bool) if best is None else stopped(best)
            records = self._records(lanes, cells, state, chunk.step, chunk.epoch + 1)
            broken = results.diverged(state)
            for own, record, ended in zip(history, records, over | broken, strict=True):
                own += [] if ended else [results.finite(record)]
            if stopping is not None and best is not None:
                name = f"validation_{self.first.config.monitor}"
                best = stopping.look(best, state, [record[name] for record in records])
                if stopped(best).all():
                    advance(self.steps - chunk.step)
                    break
        measured = self._results(lanes, cells, state, best)
        seconds = time.perf_counter() - began
        return [
            {"result": result, "history": own, "lanes": len(cells), "seconds": seconds}
            for result, own in zip(measured, history, strict=True)
        ]

    def _records(
        self, lanes: Lanes, cells: Sequence[Resolved], state: State, step: int, epoch: int
    ) -> list[dict[str, Any]]:
        """The record of an epoch, of each cell."""
        dataset, validation = self.whole, None
        if len(dataset.y_validation):
            validation = self._predictions(lanes, cells, state, step, dataset.x_validation)
        return [
            results.epoch_record(
                cells[i].dataset, step, epoch, means, None if validation is None else validation[i]
            )
            for i, means in enumerate(lanes.means(state))
        ]

    def _results(
        self, lanes: Lanes, cells: Sequence[Resolved], state: State, best: Best | None
    ) -> list[Made]:
        whole, config = self.whole, self.first.config
        step = step_of(best, state)
        at = jnp.asarray(diverged_at(best, state))
        state = dataclasses.replace(state.with_weights(weights_of(best, state)), diverged_at=at)
        x_train = whole.x_train
        if self.first.rows is not None:
            x_train = np.stack([cell.dataset.x_train for cell in cells])
        inputs = {"train": x_train, "validation": whole.x_validation, "test": whole.x_test}
        predictions = {
            part: self._predictions(lanes, cells, state, step, x)
            for part, x in inputs.items()
            if len(getattr(whole, f"y_{part}"))
        }
        if config.mc_samples:
            predictions["mc_test"] = self._sampled(lanes, cells, state, step)
        learned, broken, made = lanes.report(state), results.diverged(state), []
        for i, cell in enumerate(cells):
            alone = lanes.alone(state, i)
            own = {part: predicted[i] for part, predicted in predictions.items()}
            status = results.status(cell, alone, own, broken=bool(broken[i]))
            own_best = best and jax.tree.map(operator.itemgetter(i), best)
            result = status | results.trained(cell, alone, learned[i]) | results.stopped(own_best)
            result |= results.measures(cell, own if status["status"] == "completed" else {})
            made.append(results.finite(result))
        return made

    def _predictions(
        self, lanes: Lanes, cells: Sequence[Resolved], state: State, step: Any, x: np.ndarray
    ) -> np.ndarray:
        """(lanes, examples, ...); x may be shared, or a stack with that of each lane."""
        own = x.ndim > self.whole.x_test.ndim
        values = self._values(lanes, state, step)
        # As many at a time over all lanes as a single run takes, or as in training.
        size = max(_EVALUATED // len(cells), self.first.config.batch_size)
        return np.asarray(self._predict(lanes.schemes, values, x, own, size))

    def _sampled(
        self, lanes: Lanes, cells: Sequence[Resolved], state: State, step: Any
    ) -> np.ndarray:
        keys = jnp.stack([cell.eval_key for cell in cells])
        values = self._values(lanes, state, step)
        return np.asarray(self._monte_carlo(lanes.schemes, values, keys, self.whole.x_test))

    def _values(self, lanes: Lanes, state: State, step: Any) -> dict[str, Any]:
        values = values_of(state.evaluated(), self.strength, step)
        own = jnp.asarray([lane.strength for lane in lanes.lanes], jnp.float32)
        return values | {"strength": own * values["strength"]}

    @functools.cached_property
    def _predict(self) -> Callable[..., Any]:
        def predict(schemes: Scheme, values: Any, x: Array, own: bool, size: int) -> Any:
            def of_lane(scheme: Scheme, values: Any, x: Array) -> Any:
                return self._under(scheme).predictions(values, x, batch_size=size)

            return jax.vmap(of_lane, in_axes=(0, 0, 0 if own else None))(schemes, values, x)

        return jax.jit(predict, static_argnums=(3, 4))

    @functools.cached_property
    def _monte_carlo(self) -> Callable[..., Any]:
        config = self.first.config

        def sample(scheme: Scheme, values: Any, key: Array, x: Array) -> Any:
            return self._under(scheme).monte_carlo(
                values, x, key, samples=config.mc_samples, batch_size=config.batch_size
            )

        return jax.jit(jax.vmap(sample, in_axes=(0, 0, 0, None)))

    def _under(self, scheme: Scheme) -> Network:
        return dataclasses.replace(self.network, scheme=scheme)


def _lane(cell: Resolved) -> Lane:
    config, numbers = cell.config, numbers_of(cell.config)
    constants = {name: _constant(getattr(config, name)) for name in ("strength", "penalty")}
    return Lane(
        cell.key,
        cell.network.scheme,
        {name: getattr(config, name) for name in ("learning_rate", "clip") if name in numbers},
        rows=cell.rows,
        parts=cell.parts(),
        **{name: value for name, value in constants.items() if value is not None},
    )
