"""Real numbers of a file as float32, without losing what tells them apart."""

from collections.abc import Callable

import numpy as np

from dropjax.data.dataset import DataError

# A spread below this part of the mean keeps fewer than 14 of a float32's 24 bits.
_NARROW = 2.0**-10
# One below this part is taken for noise of rounding in float64: it has 8 of its 52 bits.
_ROUNDING = 2.0**-44
# So many columns are named.
_SHOWN = 5


def origin_of(train: np.ndarray, axis: int | None) -> np.ndarray:
    """What to take off numbers before they become float32, (columns,) or (), float64.

    It is their mean where float32 would cut numbers that lie close together far from 0, such as
    times in seconds since 1970; 0 everywhere else, so that they become the nearest float32.

    Args:
      train: of the training data, (examples, ...), any real dtype.
      axis: 0 for an origin of each column, None for one of all entries.
    """
    if np.can_cast(train.dtype, np.float32):
        return np.zeros(())
    wide = np.asarray(train, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = wide.mean(axis), wide.std(axis)
        needed = (spread < _NARROW * abs(mean)) & (spread > _ROUNDING * abs(mean))
        needed &= (wide != wide.astype(np.float32)).any(axis)
    return np.where(needed, mean, 0.0) if needed.any() else np.zeros(())


def as_float32(name: str, array: np.ndarray, origin: np.ndarray | float = 0.0) -> np.ndarray:
    """An array less an origin, as float32.

    Raises:
      DataError: a value is not finite, or too large for float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.any(origin):
            array = np.asarray(array, np.float64) - origin
        converted = np.asarray(array, np.float32)
    wrong = ~np.isfinite(converted)
    if count := int(wrong.sum()):
        row = int(np.argmax(wrong.reshape(len(array), -1).any(axis=1)))
        raise DataError(
            f"{name} has {count} NaN or infinite values (as float32), the first in row {row}; "
            "leave such rows out or fill them in"
        )
    return converted


def say_lost(
    name: str,
    array: np.ndarray,
    converted: np.ndarray,
    axis: int | None,
    say: Callable[[str], None],
) -> None:
    """Says which columns vary in a file, but do not as float32."""
    varies = array.max(axis) != array.min(axis)
    lost = np.atleast_1d(varies & (converted.max(axis) == converted.min(axis)))
    columns = np.flatnonzero(lost).tolist()
    if not columns:
        return
    where, several = name, False
    if axis == 0 and lost.size > 1:
        shown = columns if len(columns) <= _SHOWN + 1 else columns[:_SHOWN]
        where = ", ".join(map(str, shown))
        where += f" and {len(columns) - len(shown)} others" * (shown != columns)
        several = len(columns) > 1
        where = f"column{'s' * several} {where} of {name}"
    verb, be = ("vary", "are") if several else ("varies", "is")
    say(
        f"{where} {verb} too little for float32, and {be} taken as constant. If the differences "
        "matter, subtract the mean and multiply by a constant in the file."
    )
