"""What is measured of predictions, under the names that results have."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dropjax import evaluate
from dropjax.data import Dataset


def measures(task: str, prefix: str, predictions: Any, y: Any) -> dict[str, float | None]:
    """What a task measures, by name.

    Args:
      task: one of `evaluate.MEASURES`.
      prefix: of the names: "test_" gives "test_accuracy".
      predictions: as `runs.Network.prediction` returns them, with a leading axis of examples; None
        for none, and every measure is None.
      y: what is right.
    """

    def value(measure: Callable[..., float]) -> float | None:
        # NaN and infinity are no JSON: the R2 of targets that do not vary, say.
        return None if predictions is None else finite(measure(predictions, y))

    return {prefix + name: value(measure) for name, measure in evaluate.MEASURES[task].items()}


def undefined(task: str, predictions: Any, y: Any) -> bool:
    """Whether some predictions are not finite, so that they are no result.

    Args:
      task, predictions, y: as of `measures`.
    """
    first = next(iter(evaluate.MEASURES[task].values()))  # it is NaN for these alone
    return math.isnan(first(predictions, y))


def why_diverged(diverged_at: int, last: int, parts: Sequence[str]) -> str:
    """What became infinite or NaN in a run.

    Args:
      diverged_at: the first step whose loss was not finite; -1 if there was none.
      last: the last step that was done, from 0.
      parts: of the data, whose predictions are `undefined`; if there are none and no loss either,
        the last update left parameters that are not finite.
    """
    if diverged_at >= 0:
        return f"the loss is not finite at step {diverged_at}"
    what = f"predictions for {', '.join(parts)}" if parts else "parameters"
    return f"{what} are not finite after step {last}"


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


def finite(value: Any) -> Any:
    """A value without numbers that JSON has not: infinity and NaN are None, in whatever holds them.

    Args:
      value: of numbers, texts, lists and dictionaries.
    """
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
