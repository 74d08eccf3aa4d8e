"""Experiments: absl-flag modules to be run as `python -m experiments.NAME` from the checkout."""

import time

STARTED = time.perf_counter()
"""When the program was started: this is imported before anything that takes time."""
