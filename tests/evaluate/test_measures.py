"""One law for all measures: predictions that are not finite have none."""

import math

import numpy as np
import pytest

from dropjax import evaluate

OF_CLASSES = [evaluate.accuracy, evaluate.nll, evaluate.expected_calibration_error]
OF_NUMBERS = [evaluate.rmse, evaluate.mae, evaluate.r2]
Y = np.array([0, 1, 0, 0])


def log_probabilities() -> np.ndarray:
    return np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]))


def test_these_are_all_measures_and_the_first_is_the_one_to_compare_by():
    of_classes = list(zip(("accuracy", "nll", "ece"), OF_CLASSES, strict=True))
    of_numbers = list(zip(("rmse", "mae", "r2"), OF_NUMBERS, strict=True))
    tasks = {task: list(measures.items()) for task, measures in evaluate.MEASURES.items()}
    assert tasks == {"classification": of_classes, "binary": of_classes, "regression": of_numbers}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "bad", [[math.nan, -0.1], [math.nan] * 2, [0.0, math.inf], [-math.inf] * 2]
)
@pytest.mark.parametrize("measure", OF_CLASSES)
def test_no_measure_of_classes_takes_a_class_from_what_is_no_prediction(measure, bad, dtype):
    for row in range(len(Y)):
        log_p = log_probabilities().astype(dtype)
        assert math.isfinite(measure(log_p, Y))
        log_p[row] = bad
        assert math.isnan(measure(log_p, Y))


@pytest.mark.parametrize("measure", OF_CLASSES)
def test_an_impossible_class_is_a_prediction(measure):
    log_p = log_probabilities()
    log_p[0] = [0, -math.inf]
    assert math.isfinite(measure(log_p, Y))
    log_p[0] = [-math.inf, 0]  # and is the label: an error like others, but for its likelihood
    assert measure(log_p, Y) == math.inf if measure is evaluate.nll else 0 < measure(log_p, Y) < 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("measure", OF_NUMBERS)
def test_no_measure_of_numbers_is_one_of_what_is_not_finite(measure, bad):
    y = np.arange(6.0).reshape(3, 2)
    for at in range(y.size):
        p = y + 0.5
        assert math.isfinite(measure(p, y))
        p.flat[at] = bad
        assert math.isnan(measure(p, y))
