"""Metrics of predicted class probabilities, in float64.

All take log-probabilities (examples, classes) and labels (examples,). An impossible class has -inf.
Where an example has NaN, +inf or no possible class, it has no prediction, and every metric is NaN.
"""

import math

import numpy as np
from numpy.typing import ArrayLike


def _checked(log_probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    log_p, y = np.asarray(log_probabilities, np.float64), np.asarray(labels)
    if log_p.ndim != 2 or y.shape != log_p.shape[:1] or not len(y):
        raise ValueError(
            "expected log-probabilities (examples, classes) and labels (examples,), got "
            f"{log_p.shape} and {y.shape}"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= log_p.shape[1]:
        raise ValueError(f"labels must be integers in [0, {log_p.shape[1]})")
    return log_p, y


def _some_undefined(log_p: np.ndarray) -> bool:
    """Whether an example has no prediction; `argmax` would then name a class all the same."""
    return not np.isfinite(log_p.max(axis=1)).all()


def accuracy(log_probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The fraction of examples whose most probable class is the label."""
    log_p, y = _checked(log_probabilities, labels)
    if _some_undefined(log_p):
        return math.nan
    return float(np.mean(log_p.argmax(axis=1) == y))


def nll(log_probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood of the labels, in nats; infinite if a label is impossible."""
    log_p, y = _checked(log_probabilities, labels)
    if _some_undefined(log_p):
        return math.nan
    return float(-np.mean(log_p[np.arange(len(y)), y]))


def expected_calibration_error(
    log_probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15
) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins.

    Examples are put in `bins` bins of equal width by the probability of their most probable class,
    each bin closed on the right; the gaps |accuracy - mean confidence| are weighted by the number
    of examples.

    Source: Naeini, Cooper, Hauskrecht 2015 (AAAI); Guo et al. 2017 (arXiv 1706.04599), section 2.
    """
    log_p, y = _checked(log_probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if _some_undefined(log_p):
        return math.nan
    confidence = np.exp(log_p.max(axis=1))
    correct = log_p.argmax(axis=1) == y
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(y))
