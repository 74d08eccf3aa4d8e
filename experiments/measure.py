"""What is measured of predictions, under the names that results have."""

import math
from collections.abc import Callable
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
        found = None if predictions is None else measure(predictions, y)
        # NaN and infinity are no JSON: the R2 of targets that do not vary, say.
        return found if found is not None and math.isfinite(found) else None

    return {prefix + name: value(measure) for name, measure in evaluate.MEASURES[task].items()}


def losses(dataset: Dataset, predictions: Any) -> dict[str, float]:
    """The validation loss, in the unit of the training loss, and what is watched beside it."""
    y = dataset.y_validation
    if dataset.task != "regression":
        loss = evaluate.nll(predictions, y)
        return {"validation_loss": loss, "validation_accuracy": evaluate.accuracy(predictions, y)}
    scale = np.broadcast_to(dataset.target_scale, np.shape(predictions)[1:])
    standardised = (np.asarray(predictions, np.float64).reshape(len(y), -1)) / scale
    loss = evaluate.rmse(standardised, y.reshape(len(y), -1) / scale) ** 2
    return {"validation_loss": loss, "validation_rmse": evaluate.rmse(predictions, y)}
