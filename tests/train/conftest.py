"""Programs are compiled as the tests of experiments compile them."""

from tests.experiments.conftest import compile_once  # noqa: F401
