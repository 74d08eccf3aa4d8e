"""Checks of arguments that the statistics share."""

import numpy as np
from numpy.typing import ArrayLike


def check_values(values: ArrayLike, name: str) -> np.ndarray:
    """Values (n,) in float64, n at least 1, all finite."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(
            f"{name} must be numbers (n,), a number a seed and at least one, got shape "
            f"{array.shape}"
        )
    if not np.all(np.isfinite(array)):
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} must be finite, got {array[where]} at index {where}; leave out the seeds of "
            "runs that diverged, in both schemes if they are paired"
        )
    return array


def check_level(level: float) -> float:
    """A confidence level inside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, such as 0.95, got {level!r}")
    return float(level)
