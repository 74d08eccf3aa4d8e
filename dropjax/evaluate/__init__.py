"""Evaluation: prediction with and without noise, and measures of predictions."""

from dropjax.evaluate import moments
from dropjax.evaluate.predict import (
    NoNoiseError,
    map_examples,
    monte_carlo,
    monte_carlo_log_probabilities,
    monte_carlo_samples,
)
from dropjax.evaluate.regression import mae, r2, rmse
from dropjax.evaluate.uncertainty import accuracy, expected_calibration_error, nll
from dropjax.evaluate.weight_scaling import weight_scaling

_OF_CLASSES = {"accuracy": accuracy, "nll": nll, "ece": expected_calibration_error}
MEASURES = {
    "classification": _OF_CLASSES,
    "binary": _OF_CLASSES,
    "regression": {"rmse": rmse, "mae": mae, "r2": r2},
}
"""The measures of predictions, by the name of the task."""

__all__ = [
    "MEASURES",
    "NoNoiseError",
    "accuracy",
    "expected_calibration_error",
    "mae",
    "map_examples",
    "moments",
    "monte_carlo",
    "monte_carlo_log_probabilities",
    "monte_carlo_samples",
    "nll",
    "r2",
    "rmse",
    "weight_scaling",
]
