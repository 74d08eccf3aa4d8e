"""What the labels or targets of a data set are: classes, one of two, or real numbers."""

from collections.abc import Callable

import numpy as np

from dropjax.data.dataset import DataError

# As many values or fewer, all whole: floats that look like classes.
_FEW = 20
Splits = dict[str, np.ndarray]


def targets(y: Splits, task: str, say: Callable[[str], None]) -> tuple[Splits, str, int]:
    """Checks and converts what is to be predicted.

    Args:
      y: by split, of which one is "train"; real numbers.
      task: one of `TASKS`, or "auto": binary for bool or the integers 0 and 1, classification for
        other integers, regression for floats.
      say: is told where floats look like classes.

    Returns:
      Converted y, the task, and a model's outputs.

    Raises:
      DataError: the values cannot be what the task needs.
    """
    train = y["train"]
    for split, array in y.items():
        if _kind(array) != _kind(train):
            raise DataError(
                f"y_{split} is {array.dtype} and y_train {train.dtype}; they must be of one kind"
            )
    chosen = _task(train) if task == "auto" else task
    if chosen == "regression":
        if task == "auto":
            _refuse_one_hot(train)
            values = np.unique(train)
            if len(values) <= _FEW and np.all(values == np.round(values)):
                say(
                    f"y_train is {train.dtype} and so taken as regression, but has only "
                    f"{len(values)} values, all whole. For classes say task=classification."
                )
        return _regression(y), chosen, 1 if train.ndim == 1 else train.shape[1]
    labels = {split: _labels(f"y_{split}", array, chosen) for split, array in y.items()}
    if chosen == "binary":
        _check_binary(labels)
        outputs = 1
    else:
        outputs = _check_classes(labels, asked=task != "auto")
    return {split: array.astype(np.int32) for split, array in labels.items()}, chosen, outputs


def as_float32(name: str, array: np.ndarray) -> np.ndarray:
    """An array as float32.

    Raises:
      DataError: a value is not finite, or too large for float32.
    """
    with np.errstate(over="ignore"):
        converted = np.asarray(array, np.float32)
    wrong = ~np.isfinite(converted)
    if count := int(wrong.sum()):
        row = int(np.argmax(wrong.reshape(len(array), -1).any(axis=1)))
        raise DataError(
            f"{name} has {count} NaN or infinite values (as float32), the first in row {row}; "
            "leave such rows out or fill them in"
        )
    return converted


def _kind(array: np.ndarray) -> str:
    return {"b": "bool", "i": "integer", "u": "integer", "f": "float"}[array.dtype.kind]


def _task(train: np.ndarray) -> str:
    if _kind(train) == "float":
        return "regression"
    two = _kind(train) == "bool" or np.array_equal(np.unique(train), [0, 1])
    return "binary" if two else "classification"


def _regression(y: Splits) -> Splits:
    train = y["train"]
    for split, array in y.items():
        if array.ndim > 2 or array.shape[1:] != train.shape[1:]:
            raise DataError(
                f"y_{split} has shape {array.shape} and y_train {train.shape}; for regression it "
                "must be (examples,) or (examples, targets), and the same targets in each"
            )
    return {split: as_float32(f"y_{split}", array) for split, array in y.items()}


def _refuse_one_hot(y: np.ndarray) -> None:
    if y.ndim == 2 and y.shape[1] > 1 and np.all((y == 0) | (y == 1)) and np.all(y.sum(1) == 1):
        raise DataError(
            f"y_train, {y.shape}, is one-hot; give the classes themselves: y.argmax(axis=1)"
        )


def _labels(name: str, y: np.ndarray, task: str) -> np.ndarray:
    """(examples,), int64."""
    _refuse_one_hot(y)
    if y.size != len(y):
        raise DataError(
            f"{name} has shape {y.shape}; for {task} it must be (examples,). Several targets an "
            "example need task=regression."
        )
    y = y.reshape(-1)
    if _kind(y) == "float":
        as_float32(name, y)
        if not np.all(y == np.round(y)):
            raise DataError(
                f"{name} has values that are not whole, such as {y[y != np.round(y)][0]}; "
                f"task={task} needs classes, or say task=regression"
            )
    with np.errstate(invalid="ignore"):
        return y.astype(np.int64)


def _check_binary(labels: Splits) -> None:
    for split, y in labels.items():
        if other := sorted({*np.unique(y).tolist()} - {0, 1}):
            raise DataError(
                f"y_{split} has {other[0]}; task=binary needs 0 and 1 only, so relabel, or say "
                "task=classification"
            )
    if len(found := np.unique(labels["train"])) < 2:
        raise DataError(f"y_train has the label {found[0]} only; both 0 and 1 are needed")


def _check_classes(labels: Splits, *, asked: bool) -> int:
    found = np.unique(labels["train"])
    low, classes = int(found[0]), int(found[-1]) + 1
    for split, y in labels.items():
        if y.min() < 0:
            raise DataError(
                f"y_{split} has the label {y.min()}; classes are numbered from 0 to classes - 1, "
                "so relabel, or say task=regression"
            )
    if classes > len(labels["train"]) / 2 and not asked:
        raise DataError(
            f"y_train would have {classes} classes for {len(labels['train'])} examples: is it "
            "task=regression? For classes say task=classification."
        )
    if len(found) < classes:
        if np.array_equal(found, np.arange(low, classes)):
            advice = f"labels go from {low} to {classes - 1}: subtract {low}"
        else:
            gap = int(np.argmax(found != np.arange(len(found))))
            advice = (
                f"class {gap} of 0 to {classes - 1} never occurs ({classes - len(found)} do not): "
                "relabel"
            )
        raise DataError(f"y_train: {advice}, so that every class occurs; or say task=regression")
    if classes < 2:
        raise DataError("y_train has the label 0 only; two classes are needed at least")
    for split, y in labels.items():
        if y.max() >= classes:
            raise DataError(
                f"y_{split} has the label {y.max()}, which is not among y_train's 0 to "
                f"{classes - 1}"
            )
    return classes
