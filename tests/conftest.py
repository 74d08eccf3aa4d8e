"""Strictness for the whole suite, and what several tests share."""

import gc
import os
import subprocess
import sys
from pathlib import Path

# Plenty of threads: collectives of forced CPU devices wait for each other.
os.environ.setdefault("NPROC", "16")

import jax
import pytest

from dropjax.core.trial import IN_A_HURRY  # noqa: F401  (for a large program that runs once)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes millions of objects that live long: looking for garbage among them took a seventh of
# the suite's time. What holds no circle is freed at once in any case.
gc.set_threshold(200_000, 20, 100)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test touches the cache in the home folder; those that start processes share one."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "xla")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session", autouse=True)
def nothing_outside(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test downloads data, or finds any that this user has."""
    os.environ["DROPJAX_OFFLINE"] = "1"
    os.environ["TFDS_DATA_DIR"] = str(tmp_path_factory.getbasetemp() / "tfds")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp() / "cache")


def run_python(*arguments: str, timeout: float = 300, cwd: Path = ROOT, **environment: str):
    """Runs Python in a process of its own, from the checkout unless told otherwise."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def python():
    """`python(*arguments, **environment)`: see `run_python`."""
    return run_python
