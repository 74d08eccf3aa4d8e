"""Programs of training are kept on disk, as those of experiments are."""

from tests.experiments.conftest import compile_once, shared  # noqa: F401
