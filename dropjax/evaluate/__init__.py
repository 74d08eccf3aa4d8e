"""Evaluation: deterministic and Monte-Carlo prediction, and metrics of the two."""

from dropjax.evaluate.predict import map_examples, monte_carlo, monte_carlo_log_probabilities
from dropjax.evaluate.uncertainty import accuracy, expected_calibration_error, nll

__all__ = [
    "accuracy",
    "expected_calibration_error",
    "map_examples",
    "monte_carlo",
    "monte_carlo_log_probabilities",
    "nll",
]
