"""Runs are made as the tests of experiments make them."""

from tests.experiments.conftest import compile_once, no_picture, npz, own_run, shared, small_run  # noqa: F401
