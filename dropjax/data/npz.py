"""A data set of one's own, from the arrays of an .npz file."""

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from dropjax.data import numbers, targets
from dropjax.data.dataset import DataError, Dataset

NEEDED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_validation", "y_validation")
UNSPLIT = ("x", "y")
CLASSES = "classes"
MOST_BYTES = 2**31
"""What the arrays of a file that is smaller than that may have together."""

# Below this a uint8 image is more likely on another scale than very dark.
_DARK = 64
# Axes of so many entries are channels of pictures, and no height or width.
_CHANNELS = (1, 3, 4)
# What zipfile and numpy raise for damaged bytes.
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


class _Header(NamedTuple):
    """What an array says of itself before its data."""

    shape: tuple[int, ...]
    dtype: np.dtype


def npz(path: Path, task: str, say: Callable[[str], None]) -> Dataset:
    """A data set from a file with x_train, y_train, x_test and y_test, or with x and y.

    All that the arrays' headers say is checked before any data is read.

    Args:
      path: of the file; x_validation and y_validation may be in it too, and `classes`, the names
        of the classes by label.
      task: one of `TASKS`, or "auto": what y's dtype and values say.
      say: is told where the data may be meant otherwise than they are taken.

    Returns:
      The data; of a file with x and y without test split, which `Dataset.with_test` cuts.

    Raises:
      DataError: the file is damaged, larger than `MOST_BYTES` unpacked, or an array is not what it
        should be.
    """
    try:
        headers = _headers(path)
        _check_names(list(headers))
        for name, header in headers.items():
            _check_header(name, header)
        renamed = {name: f"{name}_train" if name in UNSPLIT else name for name in headers}
        _check_shapes({renamed[name]: header for name, header in headers.items()})
        arrays = {renamed[name]: array for name, array in _arrays(path, list(headers)).items()}
        splits = [name[2:] for name in arrays if name.startswith("x_")]
        x, origin = _examples({split: arrays[f"x_{split}"] for split in splits}, say)
        y = targets.targets(
            {split: arrays[f"y_{split}"] for split in splits}, task, say, arrays.get(CLASSES)
        )
    except DataError as error:
        raise DataError(f"dataset={path}: {error}") from error
    if x["train"].dtype == np.uint8 and x["train"].max() < _DARK:
        say(
            f"x_train: pixels are divided by 255, but none is above {x['train'].max()}. Give "
            "float32 if that is not their scale."
        )
    x.setdefault("test", x["train"][:0])
    y.y.setdefault("test", y.y["train"][:0])
    named: dict[str, Any] = {f"x_{split}": array for split, array in x.items()}
    named |= {f"y_{split}": array for split, array in y.y.items()}
    return Dataset(
        str(path),
        **named,
        task=y.task,
        outputs=y.outputs,
        origin=origin,
        target_origin=y.origin,
        integers=all(arrays[f"x_{split}"].dtype.kind in "iu" for split in splits),
        classes=y.classes,
    )


def _headers(path: Path) -> dict[str, _Header]:
    """The headers of a file's arrays; none claims more than there is, or than may be."""
    if not path.is_file():
        raise DataError("there is no such file")
    if not zipfile.is_zipfile(path):
        raise DataError("not an .npz file, or cut short; write it by numpy.savez")
    reading, found = "it", {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_names([member.filename.removesuffix(".npy") for member in members])
            for member in members:
                reading = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    header = _read_header(reading, file)
                    size = file.tell() + math.prod(header.shape) * header.dtype.itemsize
                if size != member.file_size:
                    raise ValueError(
                        f"its header is one for {size} bytes, and it has {member.file_size}"
                    )
                found[reading] = header
            unpacked, packed = sum(m.file_size for m in members), path.stat().st_size
    except _DAMAGE as error:
        raise DataError(f"{reading} is damaged or cannot be read: {error}") from error
    # What is not compressed is no larger than the file, whose size its owner sees.
    if unpacked > max(MOST_BYTES, packed):
        raise DataError(
            f"the file has {packed / 1e6:,.1f} MB, its arrays unpacked {unpacked / 1e6:,.1f} MB, "
            f"which is more than {MOST_BYTES / 1e6:,.1f} MB, the most that is unpacked. If it is "
            "to be read all the same, write it by numpy.savez, which does not compress."
        )
    return found


def _read_header(name: str, file: IO[bytes]) -> _Header:
    magic = file.read(len(np.lib.format.MAGIC_PREFIX) + 2)
    if not magic.startswith(np.lib.format.MAGIC_PREFIX):
        raise DataError(f"{name} is no array; real numbers are needed")
    version = tuple(magic[-2:])
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[arg-type]
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)  # type: ignore[arg-type]
    else:
        raise ValueError(f"it has the format {version}, not one for numbers")
    if dtype.hasobject:
        raise DataError(f"{name} has Python objects in it, which are not read; numbers are needed")
    return _Header(shape, dtype)


def _arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    reading = "it"
    try:
        # Opened here: numpy would not close a file that it fails to read.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {}
            for reading in names:
                arrays[reading] = file[reading]
    except _DAMAGE as error:
        raise DataError(f"{reading} is damaged or cannot be read: {error}") from error
    return arrays


def _check_names(names: list[str]) -> None:
    needed = UNSPLIT if set(names) & set(UNSPLIT) else NEEDED
    twice = sorted({name for name in names if names.count(name) > 1})
    unknown = [name for name in names if name not in (*needed, *OPTIONAL, CLASSES)]
    lacking = [name for name in needed if name not in names]
    if len(set(names) & set(OPTIONAL)) == 1:
        lacking += [name for name in OPTIONAL if name not in names]
    for problem, which in (("twice", twice), ("unknown", unknown), ("missing", lacking)):
        if which:
            raise DataError(
                f"{problem}: {', '.join(which)}. The file must have the arrays "
                f"{', '.join(NEEDED)}, or {' and '.join(UNSPLIT)}, of which a test split is cut, "
                f"and may have {' and '.join(OPTIONAL)}, and {CLASSES}, the classes' names."
            )


def _check_header(name: str, header: _Header) -> None:
    shape, dtype = header
    text = dtype.kind in "US"
    if name == CLASSES:
        if not text or len(shape) != 1:
            raise DataError(
                f"classes is {dtype} of shape {shape}; it must be text of shape (classes,)"
            )
    elif dtype.kind not in "biuf" and not (text and name.startswith("y")):
        or_names = ", or names of classes" if name.startswith("y") else ""
        raise DataError(f"{name} is {dtype}; real numbers are needed{or_names}")
    if not shape or 0 in shape:
        raise DataError(f"{name} has shape {shape}: it is empty or no array of examples")


def _check_shapes(headers: dict[str, _Header]) -> None:
    """Refuses examples that differ from those for training, and pictures in another order."""
    train = headers["x_train"]
    for split in (name[2:] for name in headers if name.startswith("x_")):
        x, y = headers[f"x_{split}"], headers[f"y_{split}"]
        if len(x.shape) < 2:
            raise DataError(
                f"x_{split} has shape {x.shape}; it needs two axes or more, of which the first "
                "is the example"
            )
        if x.shape[1:] != train.shape[1:]:
            raise DataError(
                f"an example of x_{split} has shape {x.shape[1:]}, one of x_train "
                f"{train.shape[1:]}; they must be the same"
            )
        if (x.dtype == np.uint8) != (train.dtype == np.uint8):
            raise DataError(
                f"x_{split} is {x.dtype} and x_train {train.dtype}: uint8 is divided by 255, "
                "so all or none must be"
            )
        if x.shape[0] != y.shape[0]:
            raise DataError(
                f"x_{split} has {x.shape[0]} examples and y_{split} {y.shape[0]}; there "
                "must be as many"
            )
    if len(train.shape) == 4 and train.shape[1] in _CHANNELS:
        _, channels, height, width = train.shape
        if min(height, width) > max(_CHANNELS):
            raise DataError(
                f"x_train has shape {train.shape}, which looks like PyTorch's order, (examples, "
                "channels, height, width). Pictures must be (examples, height, width, channels): "
                "x.transpose(0, 2, 3, 1). If they are none, join two of the axes: "
                f"x.reshape(-1, {channels}, {height * width})."
            )


def _examples(
    x: dict[str, np.ndarray], say: Callable[[str], None]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Pictures with channels, or float32; and the origin of these."""
    train = x["train"]
    if train.dtype == np.uint8 and train.ndim in (3, 4):
        channels = {s: array if array.ndim == 4 else array[..., None] for s, array in x.items()}
        return channels, np.zeros(())
    axis = 0 if train.ndim == 2 else None
    origin = numbers.origin_of(train, axis)
    converted = {s: numbers.as_float32(f"x_{s}", array, origin) for s, array in x.items()}
    numbers.say_lost("x_train", train, converted["train"], axis, say)
    return converted, origin
