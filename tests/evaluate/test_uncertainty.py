"""The metrics against scikit-learn, and against a loop where that has none."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from dropjax.evaluate import accuracy, expected_calibration_error, nll

METRICS = [accuracy, nll, expected_calibration_error]


def predictions(examples=200, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.5), examples)
    # Labels that the predictions say something about, but not all.
    y = np.where(
        rng.uniform(size=examples) < 0.6, p.argmax(1), rng.integers(classes, size=examples)
    )
    return p, y


def ece_loop(p, y, bins):
    """Naeini et al. 2015: bins ((b - 1) / bins, b / bins], the first closed on both sides."""
    total = 0.0
    for b in range(1, bins + 1):
        inside = []
        for i in range(len(y)):
            confidence = p[i].max()
            if (b - 1) / bins < confidence <= b / bins or (b == 1 and confidence == 0):
                inside.append(i)
        if inside:
            correct = sum(p[i].argmax() == y[i] for i in inside) / len(inside)
            confidence = sum(p[i].max() for i in inside) / len(inside)
            total += len(inside) / len(y) * abs(correct - confidence)
    return total


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracy_and_nll_are_those_of_scikit_learn(seed, dtype):
    p, y = predictions(seed=seed)
    log_p = np.log(p).astype(dtype)
    assert accuracy(log_p, y) == accuracy_score(y, p.argmax(axis=1))
    np.testing.assert_allclose(nll(log_p, y), log_loss(y, p, labels=range(5)), rtol=1e-6)
    assert isinstance(accuracy(log_p, y), float) and isinstance(nll(log_p, y), float)


def test_nll_is_not_clipped():
    assert nll([[-1000.0, 0.0], [0.0, -1000.0]], [0, 0]) == 500
    assert nll([[0.0, -np.inf]], [0]) == 0
    assert nll([[0.0, -np.inf]], [1]) == np.inf


def test_means_are_taken_in_double():
    p, y = predictions(examples=1000)
    log_p = np.log(p).astype(np.float32)
    exact = -math.fsum(float(row[label]) for row, label in zip(log_p, y, strict=True)) / len(y)
    np.testing.assert_allclose(nll(log_p, y), exact, rtol=1e-13)


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
def test_calibration_error_is_the_loop(bins):
    for seed in range(3):
        p, y = predictions(seed=seed)
        actual = expected_calibration_error(np.log(p), y, bins=bins)
        np.testing.assert_allclose(actual, ece_loop(p, y, bins), rtol=1e-9)
    p, y = predictions()
    default = expected_calibration_error(np.log(p), y)
    assert default == expected_calibration_error(np.log(p), y, bins=15)


def test_an_edge_belongs_to_the_bin_below():
    # With two bins, confidence 1/2 goes with 0.4, not with 0.6: (1 + 0 - 0.9) / 3 + 0.4 / 3.
    p = np.array([[0.5, 0.25, 0.25], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])
    actual = expected_calibration_error(np.log(p), [0, 1, 0], bins=2)
    np.testing.assert_allclose(actual, (0.1 + 0.4) / 3, rtol=1e-9)


@pytest.mark.parametrize("log_certain", [0.0, 1e-7])
def test_confidence_1_is_in_the_last_bin(log_certain):
    # A float32 log-softmax may round to just above 0.
    certain = [[log_certain, -np.inf]]
    assert expected_calibration_error(certain * 4, [0, 0, 0, 0], bins=10) == pytest.approx(
        0, abs=1e-6
    )
    assert expected_calibration_error(certain * 4, [0, 0, 0, 1], bins=10) == pytest.approx(0.25)


def test_just_above_1_is_in_the_bin_of_what_is_just_below():
    log_p = [[1e-7, -np.inf], np.log([0.95, 0.05])]
    # One bin: |0 - 1 + 1 - 0.95| / 2; two would give (1 + 0.05) / 2.
    assert expected_calibration_error(log_p, [1, 0], bins=10) == pytest.approx(0.475, abs=1e-6)


def test_opposite_gaps_cancel_within_a_bin_and_add_between_bins():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    log_p, y = np.log(p), [0, 1, 0, 0]
    # Bin (0.8, 0.9]: 0.5 - 0.9; bin (0.5, 0.6]: 1 - 0.6.
    assert expected_calibration_error(log_p, y, bins=10) == pytest.approx(0.4)
    assert expected_calibration_error(log_p, y, bins=1) == pytest.approx(0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "log_p_shape, y_shape", [((4,), (4,)), ((4, 2), (3,)), ((4, 2), (4, 2)), ((0, 2), (0,))]
)
def test_shapes_that_do_not_fit_are_refused(metric, log_p_shape, y_shape):
    with pytest.raises(ValueError, match=r"expected log-probabilities \(examples, classes\)"):
        metric(np.zeros(log_p_shape), np.zeros(y_shape, int))


@pytest.mark.parametrize("bins", [0, -1])
def test_no_bins_are_refused(bins):
    with pytest.raises(ValueError, match=f"bins must be at least 1, got {bins}"):
        expected_calibration_error(np.zeros((1, 1)), [0], bins=bins)
