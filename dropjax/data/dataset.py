"""A classification data set in memory."""

import dataclasses
import hashlib

import numpy as np


class DataError(Exception):
    """Data that is missing, damaged, or not what it should be."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels, split in two or three.

    Args:
      name: for example "mnist".
      x_train, x_test: (examples, height, width, channels), uint8.
      y_train, y_test: (examples,), int32 in [0, classes).
      classes: how many.
      max_value: the largest value a pixel can have; images are divided by it.
      x_validation, y_validation: cut from the training data; empty if there is no such split.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    max_value: int
    x_validation: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint8))
    y_validation: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))

    def with_validation(self, size: int) -> "Dataset":
        """Cuts a stratified validation split, the same for every seed, from the training data.

        Args:
          size: its examples; 0 for none.

        Raises:
          DataError: a split of that size cannot be had.
        """
        if len(self.y_validation):
            raise DataError(f"{self.name} has a validation split already")
        if size == 0:
            return self
        most = len(self.y_train) - self.classes
        if not self.classes <= size <= most:
            raise DataError(
                f"validation={size}: {self.name} has {len(self.y_train)} training examples of "
                f"{self.classes} classes, so it must be 0, or from {self.classes} to {most}"
            )
        train, validation = stratified_split(self.y_train, size)
        return dataclasses.replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_validation=self.x_train[validation],
            y_validation=self.y_train[validation],
        )

    def sha256(self) -> str:
        """A fingerprint of every pixel and label and of which split it is in."""
        digest = hashlib.sha256()
        for field in ("train", "validation", "test"):
            for array in (getattr(self, f"x_{field}"), getattr(self, f"y_{field}")):
                digest.update(f"{field} {array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def stratified_split(labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the larger and of the smaller part, each ascending; always the same two."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    larger, smaller = train_test_split(rows, test_size=size, stratify=labels, random_state=0)
    return np.sort(larger), np.sort(smaller)
