"""Data sets as numpy arrays."""

from dropjax.data.dataset import DataError, Dataset
from dropjax.data.load import NAMES, load

__all__ = ["NAMES", "DataError", "Dataset", "load"]
