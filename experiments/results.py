"""What is measured of a run, whether it is trained alone or as a lane of an ablation: the record of
an epoch, whether it diverged, and the numbers of its result.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropjax import evaluate
from dropjax.data import Dataset
from dropjax.train import Best, State
from dropjax.train.checkpoint import tree_hash
from experiments.setup import Resolved

PARTS = ("train", "validation", "test")


def epoch_record(
    dataset: Dataset, step: int, epoch: int, means: Mapping[str, float], validation: Any
) -> dict[str, Any]:
    """What metrics.jsonl says of an epoch.

    Args:
      dataset: what is trained on.
      step: steps that were done.
      epoch: epochs that were done.
      means: of the epoch's steps, by name.
      validation: predictions for the validation data; None if there are none.
    """
    record = {"step": step, "epoch": epoch}
    record |= {f"train_{name}": value for name, value in means.items()}
    return record if validation is None else record | losses(dataset, validation)


def losses(dataset: Dataset, predictions: Any) -> dict[str, float]:
    """The validation loss, in the unit of the training loss, and what is watched beside it."""
    y = dataset.y_validation
    if dataset.task != "regression":
        loss = evaluate.nll(predictions, y)
        return {"validation_loss": loss, "validation_accuracy": evaluate.accuracy(predictions, y)}
    scale = np.broadcast_to(dataset.target_scale, np.shape(predictions)[1:])
    standardised = (np.asarray(predictions, np.float64).reshape(len(y), -1)) / scale
    loss = evaluate.rmse(standardised, y.reshape(len(y), -1) / scale)
    return {"validation_loss": loss * loss, "validation_rmse": evaluate.rmse(predictions, y)}


def diverged(state: State) -> np.ndarray:
    """Whether a loss was not finite, or the last update left parameters that are not.

    Args:
      state: of a run, or of lanes.

    Returns:
      A boolean; (lanes,) of lanes.
    """
    bad = np.asarray(state.diverged_at) >= 0
    for leaf in jax.tree.leaves(state.params):
        bad = bad | ~np.asarray(jnp.isfinite(leaf).all(axis=tuple(range(bad.ndim, leaf.ndim))))
    return bad


def targets(dataset: Dataset) -> dict[str, Any]:
    """The right values of each part that is measured; "mc_test" is "test" by Monte-Carlo."""
    return {part: getattr(dataset, f"y_{part}") for part in PARTS} | {"mc_test": dataset.y_test}


def status(
    run: Resolved, state: State, predictions: Mapping[str, Any], *, broken: bool
) -> dict[str, Any]:
    """Whether a run completed, or when and how it diverged.

    Args:
      run: which.
      state: its last one.
      predictions: for each part that was predicted.
      broken: whether its `state` is `diverged`.
    """
    measured, right = run.experiment.measures[run.dataset.task], targets(run.dataset)
    first = next(iter(measured.values()))  # NaN for predictions that are not finite
    parts = [
        part
        for part, predicted in predictions.items()
        if not broken and math.isnan(first(predicted, right[part]))
    ]
    if not broken and not parts:
        return {"status": "completed"}
    at, last = int(state.diverged_at), int(state.step) - 1
    if at >= 0:
        why = f"the loss is not finite at step {at}"
    else:
        what = f"predictions for {', '.join(parts)}" if parts else "parameters"
        why = f"{what} are not finite after step {last}"
    return {"status": "diverged", "diverged_at": at, "error": why}


def stopped(best: Best | None) -> dict[str, Any]:
    """What a result says of early stopping; nothing without.

    Args:
      best: of a run, or of one lane.

    Returns:
      "best_step": how many steps were done when the best epoch ended, 0 if there was none;
      "stopped_at": after how many steps training stopped, None if it did not.
    """
    if best is None:
        return {}
    at = int(best.stopped_at)
    return {"best_step": int(best.step), "stopped_at": None if at < 0 else at}


def trained(run: Resolved, state: State, learned: Any) -> dict[str, Any]:
    """What a result says of the trained network.

    Args:
      run: which.
      state: its last one.
      learned: what the scheme reports of it.
    """
    return {
        "task": run.dataset.task,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params["params"])),
        "param_hash": tree_hash(state.params),
        "learned": learned,
    }


def measures(run: Resolved, predictions: Mapping[str, Any]) -> dict[str, float | None]:
    """What is measured, under the names that results have, such as "test_accuracy".

    Args:
      run: which.
      predictions: for each part, as `Network.predictions` returns them. Every measure of a part
        that is missing is None.
    """

    def value(measure: Callable[..., float], part: str, y: Any) -> float | None:
        return finite(measure(predictions[part], y)) if part in predictions else None

    of_task = run.experiment.measures[run.dataset.task]
    return {
        f"{part}_{name}": value(measure, part, y)
        for part, y in targets(run.dataset).items()
        for name, measure in of_task.items()
    }


def finite(value: Any) -> Any:
    """A value whose numbers JSON has: infinity and NaN become None, in whatever holds them.

    Args:
      value: of numbers, texts, lists and dictionaries.
    """
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
