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
from dropjax.train.checkpoint import tree_hash
from dropjax.train.keys import eval_key_of, init_key_of
from dropjax.train.optax_spec import optimizer_of
from experiments.measure import finite, losses, measures, undefined, why_diverged
from experiments.setup import Resolved, launching, traced, values_of

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
    config = dataclasses.asdict(resolved.config)
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
        key, example = init_key_of(first.key), first.dataset.x_train[0]
        with launching():
            params, mutable, sites = traced(self.network, key, example)
            plan.check(self.network.scheme, sites, first.config.model)
            self.site_table = plan.table(self.network.scheme, sites)
            problem = first.problem(sites, bool(mutable))
            for name in ("strength", "penalty"):
                if _constant(getattr(first.config, name)) is not None:  # each lane has its own
                    problem = dataclasses.replace(problem, **{name: 1.0})
            self.strength = problem.strength

            def init(key: Array) -> Any:
                made, mutable = self.network.init(key, example)
                return (made, mutable) if problem.stateful else made

            try:
                self.lanes = Lanes(
                    problem,
                    init,
                    first.examples(first.whole),
                    [_lane(cell) for cell in cells],
                    batch_size=first.config.batch_size,
                    optimizer=functools.partial(optimizer_of, first.config.optimizer),
                )
            except Exception as error:  # whatever a scheme of the user's own does wrong
                raise ValueError(
                    f"{self.network.scheme} on {first.config.model} cannot be run: "
                    f"{type(error).__name__}: {error}"
                ) from error
        self.steps = first.config.epochs * self.lanes.steps_per_epoch
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))

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
        results = self._results(lanes, cells, state)
        seconds = time.perf_counter() - began
        return [
            {"result": result, "history": own, "lanes": len(cells), "seconds": seconds}
            for result, own in zip(results, history, strict=True)
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
        diverged = _diverged(state)
        for i, means in enumerate(lanes.means(state)):
            if diverged[i]:
                continue
            record: dict[str, Any] = {"step": step, "epoch": epoch}
            record |= {f"train_{name}": value for name, value in means.items()}
            if validation is not None:
                record |= losses(cells[i].dataset, validation[i])
            history[i].append(finite(record))

    def _results(self, lanes: Lanes, cells: Sequence[Resolved], state: State) -> list[Made]:
        whole, config, step = self.whole, self.first.config, int(state.step)
        x_train = whole.x_train
        if self.first.rows is not None:
            x_train = np.stack([cell.dataset.x_train for cell in cells])
        on = {"train": x_train, "validation": whole.x_validation, "test": whole.x_test}
        predictions = {
            f"{part}_": self._predictions(lanes, cells, state, step, x)
            for part, x in on.items()
            if len(getattr(whole, f"y_{part}"))
        }
        if config.mc_samples:
            predictions["mc_test_"] = self._sampled(lanes, cells, state, step)
        reports = lanes.report(state)
        made, all_diverged = [], _diverged(state)
        for i, cell in enumerate(cells):
            own = lanes.alone(state, i)
            targets = {
                "train_": cell.dataset.y_train,
                "validation_": whole.y_validation,
                "test_": whole.y_test,
                "mc_test_": whole.y_test,
            }
            task = cell.dataset.task
            broken = [
                prefix.removesuffix("_")
                for prefix, of in predictions.items()
                if not all_diverged[i] and undefined(task, of[i], targets[prefix])
            ]
            diverged = bool(all_diverged[i] or broken)
            result: Made = {"status": "diverged" if diverged else "completed"}
            if diverged:
                at = int(own.diverged_at)
                result |= {"diverged_at": at, "error": why_diverged(at, step - 1, broken)}
            result |= {
                "task": task,
                "parameters": self.parameters,
                "param_hash": tree_hash(own.params),
                "learned": reports[i],
            }
            for prefix, y in targets.items():
                found = predictions.get(prefix)
                found = None if diverged or found is None else found[i]
                result |= measures(task, prefix, found, y)
            made.append(finite(result))
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
        keys = jnp.stack([eval_key_of(cell.key) for cell in cells])
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


def _diverged(state: State) -> np.ndarray:
    """(lanes,), where a loss was not finite, or the last update left parameters that are not."""
    bad = np.asarray(state.diverged_at) >= 0
    for leaf in jax.tree.leaves(state.params):
        bad |= ~np.asarray(jnp.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim))))
    return bad


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
