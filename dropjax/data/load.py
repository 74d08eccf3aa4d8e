"""Data sets by name."""

import os
from collections.abc import Callable
from pathlib import Path

from dropjax.data import cifar, download, idx, prepared
from dropjax.data.dataset import TASKS, DataError, Dataset
from dropjax.data.digits import digits
from dropjax.data.npz import npz

NAMES = ("auto", "digits", "mnist", "fashion_mnist", "cifar10")
_SIZES = {"mnist": (60000, 10000), "fashion_mnist": (60000, 10000), "cifar10": (50000, 10000)}
Say = Callable[[str], None]


def load(name: str, folder: Path | None, *, say: Say, task: str = "auto") -> Dataset:
    """A data set by name.

    One that is published is taken from `folder`, else as tensorflow-datasets has prepared it, else
    from its original files, which are downloaded if they are not in the cache. One from a file may
    have no test split yet, which `Dataset.with_test` cuts.

    Args:
      name: one of `NAMES`, or the path of an .npz file. "auto" is MNIST if it can be had, else the
        digits.
      folder: where files are looked for; None if there is no such place.
      say: is told, a line at a time, what the user may not expect: where data come from, that they
        are not all of the published ones or not checked, that "auto" falls back to the digits.
      task: what an .npz file's y is for, one of `TASKS`; "auto": what it looks like.

    Raises:
      DataError: unknown name or task; a file missing or damaged; a folder or task that would not
        be used. A named data set is never replaced by another.
    """
    if task not in ("auto", *TASKS):
        raise DataError(f"task must be one of {', '.join(('auto', *TASKS))}; got {task!r}")
    own = name.endswith(".npz")
    if not own and name not in NAMES:
        raise DataError(
            f"dataset must be one of {', '.join(NAMES)}, or a path that ends in .npz; got {name!r}"
        )
    if folder is not None and not folder.is_dir():
        raise DataError(f"data_dir={folder} is not a folder")
    if folder is not None and (own or name == "digits"):
        why = "the dataset is a file" if own else "the digits come with scikit-learn"
        raise DataError(f"data_dir would do nothing: {why}; leave it out")
    if own:
        return npz(Path(os.path.expanduser(name)).resolve(), task, say)
    if task not in ("auto", "classification"):
        raise DataError(f"task={task}: {name} is for classification; leave the task out")
    if name == "digits":
        return digits()
    if name != "auto":
        return _published(name, folder, say)
    try:
        return _published("mnist", folder, say)
    except download.Unavailable as error:
        where = "no --data_dir is given" if folder is None else f"it is not in {folder}"
        say(
            f"NOT MNIST: {where}, and a download failed ({error.reason}). Using scikit-learn's "
            "1,797 digits of 8x8 pixels instead (dataset=digits)."
        )
        return digits()


def _published(name: str, folder: Path | None, say: Say) -> Dataset:
    dataset = _from_folder(name, folder, say) if folder is not None else None
    if dataset is None:
        dataset = _prepared_elsewhere(name, say)
    if dataset is None:
        dataset = _original(name, download.fetch(name, folder, say=say), say)
    found = len(dataset.y_train), len(dataset.y_test)
    if found != _SIZES[name]:
        train, test = _SIZES[name]
        say(
            f"{name}: only {found[0]:,} training and {found[1]:,} test examples of {train:,} and "
            f"{test:,}."
        )
    return dataset


def _from_folder(name: str, folder: Path, say: Say) -> Dataset | None:
    # With some of its files there a data set is meant: the missing ones are an error.
    if (cifar if name == "cifar10" else idx).present(folder):
        return _original(name, folder, say)
    found = prepared.find(name, folder)
    return None if found is None else prepared.prepared(name, found)


def _prepared_elsewhere(name: str, say: Say) -> Dataset | None:
    for place in prepared.places():
        found = prepared.find(name, place / name)
        if found is not None and prepared.readable(found):
            say(f"{name}: as prepared in {found}")
            return prepared.prepared(name, found)
        if found is not None:
            say(f"{name}: not taken, as {prepared.why_not(name, found)}")
    return None


def _original(name: str, folder: Path, say: Say) -> Dataset:
    return cifar.cifar10(folder, say) if name == "cifar10" else idx.idx(name, folder)
