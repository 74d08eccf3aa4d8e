"""A data set in memory: arrays for training, validation and test, and what they are for."""

import dataclasses
import functools
import hashlib

import numpy as np

TASKS = ("classification", "binary", "regression")


# Up to here a float32 is any integer exactly.
_MOST_TOKENS = 2**24


class DataError(Exception):
    """Data that is missing, damaged, or not what it should be."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples and what is to be predicted of them, split in two or three.

    A model sees `(x - shift) / scale`, and predicts `(y - target_shift) / target_scale` where the
    task is regression. It sees tokens as they are.

    Args:
      name: for example "mnist"; the path of a file that is not built in.
      x_train, x_test: (examples, height, width, channels), uint8: images; (examples, time), int32:
        tokens, from `as_tokens`; or (examples, ...), float32: numbers. The test split may be
        empty, until `with_test` cuts one.
      y_train, y_test: (examples,), int32, in [0, outputs) for classification, in {0, 1} for a
        binary task; (examples,) or (examples, targets), float32, for regression.
      task: one of `TASKS`.
      outputs: the classes; 1 for a binary task; the targets of a regression.
      max_value: the largest value a pixel can have, where x is images.
      x_validation, y_validation: cut from the training data; empty if there is no such split.
      origin, target_origin: () or one for each column, float64: what was taken off the numbers of
        x, and of y, before they became float32; see `numbers.origin_of`. 0 for most data.
      integers: x were integers before they became numbers, and may be meant as tokens.
      classes: the classes' names, by label; () if they have none.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    task: str
    outputs: int
    max_value: int = 255
    x_validation: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint8))
    y_validation: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    origin: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    target_origin: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    integers: bool = False
    classes: tuple[str, ...] = ()
    # Splits of it, by what was asked for: an ablation asks once for each of its runs.
    _parts: dict[tuple[str | int, ...], "Dataset"] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def shift(self) -> np.ndarray:
        """() or (features,), float32: 0 for images and tokens, else the training data's mean."""
        return self._x_statistics[0]

    @property
    def scale(self) -> np.ndarray:
        """() or (features,), float32: the largest value of a pixel, else the standard deviation.

        1 for tokens. Those of a table are taken by feature, those of other arrays over all entries.
        """
        return self._x_statistics[1]

    @property
    def target_shift(self) -> np.ndarray:
        """() or (targets,), float32: the mean of the training targets; 0 for labels."""
        return self._y_statistics[0]

    @property
    def target_scale(self) -> np.ndarray:
        """() or (targets,), float32: the targets' standard deviation; 1 for labels."""
        return self._y_statistics[1]

    # Of the training part alone: cutting a validation split makes a data set with its own.
    @functools.cached_property
    def _x_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        if self.x_train.dtype == np.uint8:
            return np.asarray(0, np.float32), np.asarray(self.max_value, np.float32)
        if self.x_train.dtype == np.int32:
            return np.asarray(0, np.float32), np.asarray(1, np.float32)
        return _statistics(self.x_train, axis=0 if self.x_train.ndim == 2 else None)

    @functools.cached_property
    def _y_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        if self.task != "regression":
            return np.asarray(0, np.float32), np.asarray(1, np.float32)
        return _statistics(self.y_train, axis=0)

    @property
    def _strata(self) -> np.ndarray:
        """The training examples' classes; those of a regression are all of one."""
        return np.zeros(len(self.y_train), int) if self.task == "regression" else self.y_train

    @property
    def _counts(self) -> np.ndarray:
        """How many training examples there are of each class."""
        classes = {"classification": self.outputs, "binary": 2, "regression": 1}[self.task]
        return np.bincount(self._strata, minlength=classes)

    def with_validation(self, size: int) -> "Dataset":
        """Cuts a validation split, the same for every seed, from the training data.

        It is stratified by class, or random for regression.

        Args:
          size: its examples; 0 for no other split than there is.

        Raises:
          DataError: a split of that size cannot be had.
        """
        if size == 0:
            return self
        if (size,) not in self._parts:
            self._parts[(size,)] = self._with_validation(size)
        return self._parts[(size,)]

    def _with_validation(self, size: int) -> "Dataset":
        if len(self.y_validation):
            raise DataError(
                f"validation={size}: {self.name} has a validation split already; leave it out"
            )
        train, validation = self._cut("validation", size, "0, or ")
        return dataclasses.replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_validation=self.x_train[validation],
            y_validation=self.y_train[validation],
        )

    def with_test(self, size: int) -> "Dataset":
        """Cuts a test split, the same for every seed, from training data that came without one.

        It is stratified by class, or random for regression.

        Args:
          size: its examples.

        Raises:
          DataError: there is a test split already, or one of that size cannot be had.
        """
        if len(self.y_test):
            raise DataError(f"test={size}: {self.name} has a test split already; leave it out")
        if ("test", size) not in self._parts:
            train, test = self._cut("test", size, "")
            self._parts[("test", size)] = dataclasses.replace(
                self,
                x_train=self.x_train[train],
                y_train=self.y_train[train],
                x_test=self.x_train[test],
                y_test=self.y_train[test],
            )
        return self._parts[("test", size)]

    def _cut(self, split: str, size: int, or_else: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the training data that are left, and those of a split of it."""
        classes = len(self._counts)
        most = len(self.y_train) - classes
        of = "" if self.task == "regression" else f" of {classes} classes"
        if most < classes:
            remedy = "it must be 0" if or_else else f"give x_{split} and y_{split} in the file"
            raise DataError(
                f"{split}={size}: {self.name} has {len(self.y_train)} training examples{of}, too "
                f"few to cut a {split} split; {remedy}"
            )
        if not classes <= size <= most:
            raise DataError(
                f"{split}={size}: {self.name} has {len(self.y_train)} training examples{of}, so "
                f"it must be {or_else}from {classes} to {most}"
            )
        if self._counts.min() < 2:
            remedy = "it must be 0" if or_else else "put the two parts into the file"
            raise DataError(
                f"{split}={size}: {self.name} has fewer than two training examples of class "
                f"{self._counts.argmin()}, so both parts cannot have one; {remedy}"
            )
        return stratified_split(self._strata, size)

    def as_tokens(self, vocabulary: int) -> "Dataset":
        """The same with x as tokens, int32, which no statistics are taken of.

        Args:
          vocabulary: how many types of tokens there are.

        Raises:
          DataError: x are no integers (examples, time), or one is not in [0, vocabulary).
        """
        if ("tokens", vocabulary) not in self._parts:
            self._parts[("tokens", vocabulary)] = self._as_tokens(vocabulary)
        return self._parts[("tokens", vocabulary)]

    def _as_tokens(self, vocabulary: int) -> "Dataset":
        if not self.integers or self.x_train.ndim != 2:
            what = "images" if self.x_train.dtype == np.uint8 else "numbers"
            what = "integers" if self.integers else what
            shape = f"of shape {self.x_train.shape}"
            if self.x_train.dtype == np.uint8:
                # Not the array's shape: its axis of channels need not be in the file.
                examples, height, width, channels = self.x_train.shape
                what = "images"
                shape = f"({examples} of {height} x {width} pixels, channels: {channels})"
            raise DataError(
                f"vocabulary={vocabulary}: a model with a vocabulary reads tokens, integers of "
                f"shape (examples, time); x_train of {self.name} are {what} {shape}"
            )
        if vocabulary > _MOST_TOKENS:
            raise DataError(f"vocabulary={vocabulary} must be {_MOST_TOKENS} at most")
        tokens = {}
        for split in ("train", "validation", "test"):
            x = getattr(self, f"x_{split}") + self.origin
            wrong = (x < 0) | (x >= vocabulary)
            if wrong.any():
                row = int(np.argmax(wrong.any(axis=1)))
                raise DataError(
                    f"x_{split} of {self.name} has the token {x[wrong][0]:.0f} in row {row}; with "
                    f"vocabulary={vocabulary} tokens go from 0 to {vocabulary - 1}"
                )
            tokens[f"x_{split}"] = x.astype(np.int32)
        return dataclasses.replace(self, **tokens, origin=np.zeros(()))

    def with_train_examples(self, size: int, seed: int) -> "Dataset":
        """Keeps `train_rows` of the training data, and drops the others.

        Raises:
          DataError: see there.
        """
        if (size, seed) not in self._parts:
            rows = self.train_rows(size, seed)
            self._parts[(size, seed)] = dataclasses.replace(
                self, x_train=self.x_train[rows], y_train=self.y_train[rows]
            )
        return self._parts[(size, seed)]

    def train_rows(self, size: int, seed: int) -> np.ndarray:
        """Rows of a part of the training data, drawn by a seed, ascending.

        It is stratified by class, or random for regression; of a smaller size or under another
        seed it is another draw, not a part of this one.

        Args:
          size: how many.
          seed: of the draw.

        Raises:
          DataError: so many cannot be had, or not one of each class.
        """
        have, classes = len(self.y_train), int(np.count_nonzero(self._counts))
        if size == have:
            return np.arange(have)
        if not classes <= size <= have - classes:
            of = "" if self.task == "regression" else f" of {classes} classes"
            raise DataError(
                f"train_examples={size}: {self.name} has {have} training examples{of} beside those "
                f"for validation, so it must be from {classes} to {have - classes}, or {have}"
            )
        if self._counts[self._counts > 0].min() < 2:
            raise DataError(
                f"train_examples={size}: {self.name} has a class of a single training example; "
                "leave it out"
            )
        rows = stratified_split(self._strata, size, seed)[1]
        lost = np.setdiff1d(self._strata, self._strata[rows])
        if len(lost):
            raise DataError(
                f"train_examples={size}: {self.name} has so few training examples of class "
                f"{lost[0]} that none would be among them; give more"
            )
        return rows

    def sha256(self) -> str:
        """A fingerprint of every value and label and of which split it is in."""
        digest = hashlib.sha256()
        for field in ("train", "validation", "test"):
            for array in (getattr(self, f"x_{field}"), getattr(self, f"y_{field}")):
                digest.update(f"{field} {array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        for name in ("origin", "target_origin"):
            if (origin := getattr(self, name)).any():
                digest.update(f"{name} {origin.tolist()}\n".encode())
        return digest.hexdigest()


def default_validation(dataset: Dataset) -> int:
    """How many examples to cut from training data that come without a recommendation.

    A tenth, at least one a class and at most 5,000; 0 where there is a validation split already
    or none can be cut.
    """
    counts = dataset._counts
    size = max(len(counts), min(5000, counts.sum() // 10))
    if len(dataset.y_validation) or size > counts.sum() - len(counts) or counts.min() < 2:
        return 0
    return int(size)


def default_test(dataset: Dataset) -> int:
    """How many examples to cut for the test data where there are none.

    A fifth, at least one a class and at most 10,000.
    """
    return max(len(dataset._counts), min(10_000, len(dataset.y_train) // 5))


def stratified_split(labels: np.ndarray, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of what is left and of a part of `size`, each ascending; the same two for a seed."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    rest, part = train_test_split(rows, test_size=size, stratify=labels, random_state=seed)
    return np.sort(rest), np.sort(part)


def _statistics(array: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, the latter 1 for what does not vary."""
    mean = np.asarray(array.mean(axis, dtype=np.float64), np.float32)
    # Exactly 0 for a constant: float64 adds up float32 without rounding.
    scale = np.asarray(array.std(axis, dtype=np.float64), np.float32)
    # What is smaller is 0 to XLA.
    return mean, np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)
