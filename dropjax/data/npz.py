"""A data set of one's own, from the arrays of an .npz file."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dropjax.data import targets
from dropjax.data.dataset import DataError, Dataset

NEEDED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_validation", "y_validation")
# Below this a uint8 image is more likely on another scale than very dark.
_DARK = 64
# What zipfile and numpy raise for damaged bytes; MemoryError for a header that claims too much.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def npz(path: Path, task: str, say: Callable[[str], None]) -> Dataset:
    """A data set from a file with x_train, y_train, x_test and y_test.

    Args:
      path: of the file; x_validation and y_validation may be in it too.
      task: one of `TASKS`, or "auto": what y's dtype and values say.
      say: is told where the data may be meant otherwise than they are taken.

    Raises:
      DataError: the file is damaged, or an array is not what it should be.
    """
    try:
        arrays = _arrays(path)
        splits = [name[2:] for name in arrays if name.startswith("x_")]
        x = _examples({split: arrays[f"x_{split}"] for split in splits})
        y, task, outputs = targets.targets(
            {split: arrays[f"y_{split}"] for split in splits}, task, say
        )
        for split in splits:
            if len(x[split]) != len(y[split]):
                raise DataError(
                    f"x_{split} has {len(x[split])} examples and y_{split} {len(y[split])}; there "
                    "must be as many"
                )
    except DataError as error:
        raise DataError(f"dataset={path}: {error}") from error
    if x["train"].dtype == np.uint8 and x["train"].max() < _DARK:
        say(
            f"x_train: pixels are divided by 255, but none is above {x['train'].max()}. Give "
            "float32 if that is not their scale."
        )
    named: dict[str, Any] = {f"x_{split}": x[split] for split in splits}
    named |= {f"y_{split}": y[split] for split in splits}
    return Dataset(str(path), **named, task=task, outputs=outputs)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError("there is no such file")
    if not zipfile.is_zipfile(path):
        raise DataError("not an .npz file, or cut short; write it by numpy.savez")
    reading = "it"
    try:
        # Opened here: numpy would not close a file that it fails to read.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            _check_names(file.files)
            arrays = {}
            for reading in file.files:
                arrays[reading] = file[reading]
    except _DAMAGE as error:
        if str(error).startswith("Object arrays"):
            raise DataError(
                f"{reading} has Python objects in it, which are not read; numbers are needed"
            ) from error
        raise DataError(f"{reading} is damaged or cannot be read: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            found = getattr(array, "dtype", "no array")
            raise DataError(f"{name} is {found}; real numbers are needed")
        if array.ndim == 0 or array.size == 0:
            raise DataError(f"{name} has shape {array.shape}: it is empty or no array of examples")
    return arrays


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    unknown = [name for name in names if name not in NEEDED + OPTIONAL]
    lacking = [name for name in NEEDED if name not in names]
    if len(set(names) & set(OPTIONAL)) == 1:
        lacking += [name for name in OPTIONAL if name not in names]
    for problem, which in (("twice", twice), ("unknown", unknown), ("missing", lacking)):
        if which:
            raise DataError(
                f"{problem}: {', '.join(which)}. The file must have the arrays "
                f"{', '.join(NEEDED)}, and may have {' and '.join(OPTIONAL)}."
            )


def _examples(x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    train = x["train"]
    for split, array in x.items():
        if array.ndim < 2:
            raise DataError(
                f"x_{split} has shape {array.shape}; it needs two axes or more, of which the first "
                "is the example"
            )
        if array.shape[1:] != train.shape[1:]:
            raise DataError(
                f"an example of x_{split} has shape {array.shape[1:]}, one of x_train "
                f"{train.shape[1:]}; they must be the same"
            )
        if (array.dtype == np.uint8) != (train.dtype == np.uint8):
            raise DataError(
                f"x_{split} is {array.dtype} and x_train {train.dtype}: uint8 is divided by 255, "
                "so all or none must be"
            )
    if train.dtype == np.uint8 and train.ndim in (3, 4):
        return {split: array if array.ndim == 4 else array[..., None] for split, array in x.items()}
    return {split: targets.as_float32(f"x_{split}", array) for split, array in x.items()}
