"""Programs are compiled as the tests of experiments compile them: in a hurry, and kept."""

from collections.abc import Iterator

import pytest

from tests.experiments import conftest
from tests.experiments.conftest import compile_once  # noqa: F401


@pytest.fixture
def optimised(compile_once) -> Iterator[None]:  # noqa: F811
    """See `tests.experiments.conftest.optimised`."""
    with conftest.optimised():
        yield
