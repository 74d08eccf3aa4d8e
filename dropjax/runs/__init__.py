"""Finished runs: loading what an experiment has written, predicting with it, exporting it."""

from dropjax.models.network import Network
from dropjax.runs.run import Run, RunError, load, read

__all__ = ["Network", "Run", "RunError", "load", "read"]
