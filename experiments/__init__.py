"""Experiments: absl-flag modules to be run as `python -m experiments.NAME` from the checkout."""
