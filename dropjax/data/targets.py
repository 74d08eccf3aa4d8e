"""What the labels or targets of a data set are: classes, one of two, or real numbers."""

import dataclasses
from collections.abc import Callable

import numpy as np

from dropjax.data import numbers
from dropjax.data.dataset import DataError

# As many values or fewer, all whole: floats that look like classes.
_FEW = 20
# So many names of classes are printed.
_SHOWN = 5
Splits = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Targets:
    """What is to be predicted: y by split, and what `Dataset` says of it."""

    y: Splits
    task: str
    outputs: int
    classes: tuple[str, ...]
    origin: np.ndarray


def targets(
    y: Splits, task: str, say: Callable[[str], None], classes: np.ndarray | None = None
) -> Targets:
    """Checks and converts what is to be predicted.

    Args:
      y: by split, of which one is "train"; real numbers, or text: the names of classes.
      task: one of `TASKS`, or "auto": binary for bool, the integers 0 and 1 and two names,
        classification for other integers and names, regression for floats.
      say: is told where floats look like classes.
      classes: the names of the classes by label, text; None for those that y has, if it is text,
        in alphabetical order.

    Raises:
      DataError: the values cannot be what the task needs.
    """
    for split, array in y.items():
        if _kind(array) != _kind(y["train"]):
            raise DataError(
                f"y_{split} is {array.dtype} and y_train {y['train'].dtype}; they must be of one "
                "kind"
            )
    names = None if classes is None else _names("classes", classes)
    if names and len(set(names)) < len(names):
        raise DataError(f"classes has a name twice: {', '.join(names)}")
    if _kind(y["train"]) == "text":
        y, names = _labels_of_names(y, names, task)
    train = y["train"]
    chosen = _task(train) if task == "auto" else task
    if chosen == "regression":
        if names:
            raise DataError("classes are names of labels, and the task is regression; leave it out")
        if task == "auto":
            _refuse_one_hot(train)
            values = np.unique(train)
            if len(values) <= _FEW and np.all(values == np.round(values)):
                say(
                    f"y_train is {train.dtype} and so taken as regression, but has only "
                    f"{len(values)} values, all whole. For classes say task=classification."
                )
        y, origin = _regression(y, say)
        return Targets(y, chosen, 1 if train.ndim == 1 else train.shape[1], (), origin)
    labels = {split: _labels(f"y_{split}", array, chosen) for split, array in y.items()}
    if chosen == "binary":
        _check_binary(labels)
        outputs = 1
    else:
        outputs = _check_classes(labels, asked=task != "auto" or classes is not None)
    labelled = 2 if chosen == "binary" else outputs
    if names and len(names) != labelled:
        raise DataError(f"classes has {len(names)} names, and y_train {labelled} classes")
    converted = {split: array.astype(np.int32) for split, array in labels.items()}
    return Targets(converted, chosen, outputs, names or (), np.zeros(()))


def _names(where: str, text: np.ndarray) -> tuple[str, ...]:
    """Text as names that can be printed in a line."""
    try:
        names = [n.decode() if isinstance(n, bytes) else n for n in text.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{where} has bytes that are no UTF-8: {error}") from error
    for row, name in enumerate(names):
        if not name.strip() or not name.isprintable():
            raise DataError(
                f"{where} has {name!r} in row {row}: a name of a class must be text that can be "
                "printed in a line"
            )
    return tuple(names)


def _labels_of_names(
    y: Splits, classes: tuple[str, ...] | None, task: str
) -> tuple[Splits, tuple[str, ...]]:
    """Labels for names of classes, and the classes."""
    if task == "regression":
        raise DataError("y_train is text, the names of classes; task=regression needs numbers")
    for split, array in y.items():
        if array.size != len(array):
            raise DataError(f"y_{split} has shape {array.shape}; names must be (examples,)")
    named = {split: _names(f"y_{split}", array) for split, array in y.items()}
    known = classes or tuple(sorted(set(named["train"])))
    label = {name: number for number, name in enumerate(known)}
    whose = "y_train's" if classes is None else "the names in classes"
    for split, names in named.items():
        if other := sorted(set(names) - set(known)):
            raise DataError(f"y_{split} has the class {other[0]!r}, which is not among {whose}")
    if len(known) < 2:
        raise DataError(f"y_train has the class {', '.join(known)} only; two are needed at least")
    if task == "binary" and len(known) > 2:
        where = "y_train" if classes is None else "classes"
        raise DataError(
            f"{where} has {len(known)} classes ({', '.join(map(repr, known[:_SHOWN]))}"
            f"{', ...' * (len(known) > _SHOWN)}); task=binary needs two, so say "
            "task=classification, or leave the others out"
        )
    return {split: np.array([label[n] for n in names]) for split, names in named.items()}, known


def _kind(array: np.ndarray) -> str:
    kinds = {"b": "bool", "i": "integer", "u": "integer", "f": "float", "U": "text", "S": "text"}
    return kinds[array.dtype.kind]


def _task(train: np.ndarray) -> str:
    if _kind(train) == "float":
        return "regression"
    two = _kind(train) == "bool" or np.array_equal(np.unique(train), [0, 1])
    return "binary" if two else "classification"


def _regression(y: Splits, say: Callable[[str], None]) -> tuple[Splits, np.ndarray]:
    train = y["train"]
    for split, array in y.items():
        if array.ndim > 2:
            raise DataError(
                f"y_{split} has shape {array.shape}; for regression it must be (examples,) or "
                "(examples, targets)"
            )
        if array.shape[1:] != train.shape[1:]:
            raise DataError(
                f"y_{split} has shape {array.shape} and y_train {train.shape}; for regression it "
                "must be (examples,) or (examples, targets), and the same targets in each"
            )
    origin = numbers.origin_of(train, axis=0)
    converted = {s: numbers.as_float32(f"y_{s}", array, origin) for s, array in y.items()}
    numbers.say_lost("y_train", train, converted["train"], 0, say)
    return converted, origin


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
        numbers.as_float32(name, y)
        if not np.all(y == np.round(y)):
            raise DataError(
                f"{name} has values that are not whole, such as {y[y != np.round(y)][0]}; "
                f"task={task} needs classes, or say task=regression"
            )
    # 2**63 is the first that int64 has not; -2**63 is, and is refused later, as it is negative.
    beyond = (y >= np.float64(2**63)) | (y < np.float64(-(2**63)))
    if beyond.any():
        raise DataError(
            f"{name} has the label {y[beyond][0]}; classes are numbered from 0 to classes - 1, so "
            "relabel, or say task=regression"
        )
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
        if len(found) == classes - low:
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
