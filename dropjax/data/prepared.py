"""Data sets that tensorflow-datasets has prepared, read without TensorFlow."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from dropjax.data.dataset import DataError, Dataset

SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def places() -> list[Path]:
    """Where tensorflow-datasets prepares data sets: $TFDS_DATA_DIR, and a folder at home."""
    given = os.environ.get("TFDS_DATA_DIR")
    home = Path(os.path.expanduser("~")) / "tensorflow_datasets"
    return [Path(os.path.expanduser(given)), home] if given else [home]


def find(name: str, place: Path) -> Path | None:
    """The newest prepared version of a data set, one that can be read here before any other.

    Args:
      name: of the data set.
      place: a folder of data sets, or the folder of this one or of one of its versions.
    """
    found = []
    for pattern in (f"{name}/*", "*", "."):
        for path in place.glob(f"{pattern}/dataset_info.json"):
            version = path.resolve().parent.name
            if re.fullmatch(r"\d+\.\d+\.\d+", version) and _info(path).get("name") == name:
                newest = tuple(map(int, version.split(".")))
                found.append((readable(path.parent), newest, path.parent))
    return max(found)[-1] if found else None


def readable(path: Path) -> bool:
    """Whether a prepared data set can be read without TensorFlow."""
    info = _info(path / "dataset_info.json")
    return "array_record" in (info.get("fileFormat"), *info.get("alternativeFileFormats", ()))


def why_not(name: str, path: Path) -> str:
    """What to do about one that cannot be."""
    return (
        f"{path} is not in the format array_record, and reading any other needs TensorFlow. "
        "Prepare it once more, where TensorFlow is installed and into another folder: "
        f"tfds.builder({name!r}, data_dir=FOLDER, file_format='array_record')"
        ".download_and_prepare()"
    )


def prepared(name: str, path: Path) -> Dataset:
    """A prepared data set.

    Args:
      name: "mnist", "fashion_mnist" or "cifar10".
      path: the folder of a version of it, from `find`.

    Raises:
      DataError: it needs TensorFlow, is damaged, or is not what it should be.
    """
    if not readable(path):
        raise DataError(why_not(name, path))
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(path)
        train, test = (_arrays(name, builder, split) for split in ("train", "test"))
    # What array_record, protobuf and Pillow raise has no common class.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as {name} by tensorflow-datasets: {error}. Prepare it once "
            "more, or leave it out."
        ) from error
    return Dataset(name, *train, *test, task="classification", outputs=10)


def _info(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _arrays(name: str, builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    source = builder.as_data_source(split)
    images = np.zeros((len(source), *SHAPES[name]), np.uint8)
    labels = np.zeros(len(source), np.int32)
    for row, example in enumerate(source):
        image, label = example["image"], example["label"]
        if image.shape != SHAPES[name] or image.dtype != np.uint8 or not 0 <= label < 10:
            raise ValueError(
                f"example {row} is {image.dtype} {image.shape} labelled {label}, not "
                f"uint8 {SHAPES[name]} labelled 0 to 9"
            )
        images[row], labels[row] = image, label
    return images, labels
