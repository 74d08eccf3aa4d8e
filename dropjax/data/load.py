"""Data sets by name."""

from collections.abc import Callable
from pathlib import Path

from dropjax.data import idx
from dropjax.data.dataset import DataError, Dataset
from dropjax.data.digits import digits

NAMES = ("auto", "digits", *idx.NAMES)


def load(name: str, folder: Path | None, *, say: Callable[[str], None]) -> Dataset:
    """A data set by name.

    Args:
      name: one of `NAMES`. "auto" is MNIST if its files are in `folder`, else the digits.
      folder: where files are looked for; None if there is no such place.
      say: is told, in one line, when "auto" falls back to the digits.

    Raises:
      DataError: unknown name; a file missing or damaged; a folder that would not be used or does
        not exist. A named data set is never replaced by another.
    """
    if name not in NAMES:
        raise DataError(f"dataset must be one of {', '.join(NAMES)}; got {name!r}")
    if folder is not None and not folder.is_dir():
        raise DataError(f"data_dir={folder} is not a folder")
    if name == "digits":
        if folder is not None:
            raise DataError("data_dir would do nothing: the digits come with scikit-learn")
        return digits()
    if name == "auto":
        # With some of the files there MNIST is meant: the missing ones are an error.
        if folder is None or not idx.present(folder):
            where = "no --data_dir is given" if folder is None else f"it is not in {folder}"
            say(
                f"NOT MNIST: {where}. Using scikit-learn's 1,797 digits of 8x8 pixels instead "
                "(dataset=digits)."
            )
            return digits()
        name = "mnist"
    return idx.idx(name, folder)
