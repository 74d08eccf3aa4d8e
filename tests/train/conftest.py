"""Programs are compiled as the tests of experiments compile them: in a hurry, and kept."""

from collections.abc import Iterator

import jax
import pytest

from tests.experiments.conftest import compile_once  # noqa: F401


@pytest.fixture
def optimised(compile_once) -> Iterator[None]:  # noqa: F811
    """For a test of what a hurried compilation gets wrong: batch norm, on a CPU, ends in NaN."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
