"""Checks of arguments that the statistics share."""

from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def as_numbers(values: Any, name: str) -> np.ndarray:
    """An array in float64, of what is numbers and nothing else."""
    wanted = f"{name} must be numbers (n,)"
    if isinstance(values, Mapping):
        raise TypeError(
            f"{wanted}, got a {type(values).__name__}; give its values, in the same order of seeds "
            "for both schemes: [results[seed] for seed in seeds]"
        )
    if isinstance(values, Set):
        raise TypeError(f"{wanted}, got a {type(values).__name__}, which has no order; give a list")
    if isinstance(values, Iterator):
        raise TypeError(f"{wanted}, got a {type(values).__name__}; make a list of it: list(...)")
    if np.ma.is_masked(values):
        raise ValueError(f"{wanted}, got a masked array; leave out what is masked")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{wanted}, got values of different shapes") from error
    if array.dtype.kind in "USMmc":
        found = "text" if array.dtype.kind in "US" else str(array.dtype)
        raise TypeError(f"{wanted}, got {found}")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{wanted}, got {_first_odd(array)}") from error


def check_values(values: ArrayLike, name: str) -> np.ndarray:
    """Values (n,) in float64, n at least 1, all finite."""
    array = as_numbers(values, name)
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
    try:
        inside = 0 < level < 1
    except (TypeError, ValueError):
        inside = False
    if not inside:
        raise ValueError(f"level must be above 0 and below 1, such as 0.95, got {level!r}")
    return float(level)


def alpha_of(level: float) -> float:
    """1 - level, checked, without the rounding of that difference."""
    return float(f"{1 - check_level(level):.12g}")


def check_count(count: int, name: str) -> int:
    """An integer of at least 1."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"{name} must be an integer and at least 1, got {count!r}")
    return int(count)


def _first_odd(array: np.ndarray) -> str:
    """The first value that is no number, or what was given instead of values."""
    for where, value in enumerate(array.tolist() if array.ndim else []):
        try:
            float(value)
        except (TypeError, ValueError):
            return f"{value!r} at index {where}"
    return f"a value of type {type(array.ravel()[0]).__name__}"
