"""Trains the cells of an ablation side by side, and measures them as single runs are measured."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core import plan
from dropjax.core.scheme import Scheme
from dropjax.runs import Network
from dropjax.train import Lane, Lanes, State, chunks
from dropjax.train.optax_spec import optimizer_of
from experiments import results
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
    numbers = ["seed", "dropout", "rate", "learning_rate"]
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
            self.strength = problem.strength

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
                    optimizer=functools.partial(optimizer_of, first.config.optimizer),
                )
        self.steps = first.config.epochs * self.lanes.steps_per_epoch

    def run(self, cells: Sequence[Resolved], advance: Callable[[int], None]) -> list[Made]:
        """Trains and measures cells.

        Args:
          cells: all at once. For another number of them than last time it compiles anew.
          advance: is told after each chunk how many steps it had.
        """
        began = time.perf_counter()
        lanes = self.lanes.with_lanes([_lane(cell) for cell in cells])
        history: list[list[dict[str, Any]]] = [[] for _ in cells]
        state = lanes.init()
        for chunk in chunks(lanes, state, epochs=self.first.config.epochs):
            state = chunk.state
            advance(chunk.steps)
            if chunk.ends_epoch:
                self._note(lanes, cells, state, chunk.step, chunk.epoch + 1, history)
        measured = self._results(lanes, cells, state)
        seconds = time.perf_counter() - began
        return [
            {"result": result, "history": own, "lanes": len(cells), "seconds": seconds}
            for result, own in zip(measured, history, strict=True)
        ]

    def _note(
        self,
        lanes: Lanes,
        cells: Sequence[Resolved],
        state: State,
        step: int,
        epoch: int,
        history: list[list[dict[str, Any]]],
    ) -> None:
        """Adds an epoch's record to the histories of the cells that have not diverged."""
        dataset, validation = self.whole, None
        if len(dataset.y_validation):
            validation = self._predictions(lanes, cells, state, step, dataset.x_validation)
        diverged = results.diverged(state)
        for i, means in enumerate(lanes.means(state)):
            if not diverged[i]:
                own = None if validation is None else validation[i]
                record = results.epoch_record(cells[i].dataset, step, epoch, means, own)
                history[i].append(results.finite(record))

    def _results(self, lanes: Lanes, cells: Sequence[Resolved], state: State) -> list[Made]:
        whole, config, step = self.whole, self.first.config, int(state.step)
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
            result = status | results.trained(cell, alone, learned[i])
            result |= results.measures(cell, own if status["status"] == "completed" else {})
            made.append(results.finite(result))
        return made

    def _predictions(
        self, lanes: Lanes, cells: Sequence[Resolved], state: State, step: int, x: np.ndarray
    ) -> np.ndarray:
        """(lanes, examples, ...); x may be shared, or a stack with that of each lane."""
        own = x.ndim > self.whole.x_test.ndim
        values = self._values(lanes, state, step)
        # As many at a time over all lanes as a single run takes, or as in training.
        size = max(_EVALUATED // len(cells), self.first.config.batch_size)
        return np.asarray(self._predict(lanes.schemes, values, x, own, size))

    def _sampled(
        self, lanes: Lanes, cells: Sequence[Resolved], state: State, step: int
    ) -> np.ndarray:
        keys = jnp.stack([cell.eval_key for cell in cells])
        values = self._values(lanes, state, step)
        return np.asarray(self._monte_carlo(lanes.schemes, values, keys, self.whole.x_test))

    def _values(self, lanes: Lanes, state: State, step: int) -> dict[str, Any]:
        values = values_of(state, self.strength, step)
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
    config = cell.config
    constants = {name: _constant(getattr(config, name)) for name in ("strength", "penalty")}
    return Lane(
        cell.key,
        cell.network.scheme,
        {"learning_rate": config.learning_rate},
        rows=cell.rows,
        **{name: value for name, value in constants.items() if value is not None},
    )
