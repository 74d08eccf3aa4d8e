"""Data sets as numpy arrays."""

from dropjax.data.dataset import TASKS, DataError, Dataset, default_test, default_validation
from dropjax.data.load import NAMES, load

__all__ = ["NAMES", "TASKS", "DataError", "Dataset", "default_test", "default_validation", "load"]
