"""Metrics of predicted numbers, in float64.

All take predictions and targets, (examples,) or (examples, targets). Where a prediction is infinite
or NaN, every metric is NaN.
"""

import math

import numpy as np
from numpy.typing import ArrayLike


def _checked(predictions: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    if y.ndim and len(y) and p.size == y.size and p.shape[:1] == y.shape[:1]:
        if not np.isfinite(p).all():
            p = np.full_like(p, math.nan)
        return p.reshape(len(y), -1), y.reshape(len(y), -1)
    raise ValueError(f"expected as many predictions as targets, got {p.shape} and {y.shape}")


def rmse(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Root of the mean squared error over examples and targets, in the targets' unit."""
    p, y = _checked(predictions, targets)
    return float(np.sqrt(np.mean((p - y) ** 2)))


def mae(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Mean absolute error over examples and targets, in the targets' unit."""
    p, y = _checked(predictions, targets)
    return float(np.mean(np.abs(p - y)))


def r2(predictions: ArrayLike, targets: ArrayLike) -> float:
    """The fraction of the targets' variance that is explained, averaged over targets.

    1 is perfect, 0 as good as the targets' mean; NaN if a target does not vary.
    """
    p, y = _checked(predictions, targets)
    if np.any(np.ptp(y, axis=0) == 0):  # exact, which a sum of squares around a mean is not
        return math.nan
    total = np.sum((y - y.mean(axis=0)) ** 2, axis=0)
    return float(np.mean(1 - np.sum((p - y) ** 2, axis=0) / total))
