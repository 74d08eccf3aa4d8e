"""Strictness for the whole suite, and what several tests share."""

import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Plenty of threads: collectives of forced CPU devices wait for each other.
os.environ.setdefault("NPROC", "16")
# Most programs here run once or twice: to optimise them takes longer than they run. What compares
# numbers to the last bits, or looks at compiled code, takes the fixture `optimised`. The processes
# that tests start inherit this.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest
from jax._src import compiler

from dropjax.core.trial import IN_A_HURRY  # noqa: F401  (for a large program that runs once)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def is_known(option: tuple[str, Any]) -> bool:
    """Whether this version of XLA has that option."""
    try:
        jax.jit(lambda x: x).lower(1.0).compile(dict([option]))
    except jax.errors.JaxRuntimeError:
        return False
    return True


# XLA's older way to make loops compiles in half the time; newer versions do not have it. JAX takes
# options for one program, but none for all programs, so that a function of its own is wrapped.
OLDER_LOOPS = ("xla_cpu_use_fusion_emitters", False)
if is_known(OLDER_LOOPS):
    options_of = compiler.get_compile_options

    def options_in_a_hurry(*args: Any, **named: Any) -> Any:
        options = options_of(*args, **named)
        if jax.config.read("jax_disable_most_optimizations"):
            options.env_option_overrides = [*options.env_option_overrides, OLDER_LOOPS]
        return options

    compiler.get_compile_options = options_in_a_hurry
    # For processes: this one has read the variable already.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{OLDER_LOOPS[0]}=false".strip()

# Tracing makes millions of objects that live long: looking for garbage among them took a seventh of
# the time of tests/test_grid.py. What holds no circle is freed at once in any case.
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


@contextlib.contextmanager
def optimising() -> Iterator[None]:
    """Compiles as users do.

    JAX does not see that programs which it has compiled before were compiled otherwise: they are
    forgotten, before and after.
    """
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
        jax.clear_caches()


@pytest.fixture
def optimised() -> Iterator[None]:
    """See `optimising`."""
    with optimising():
        yield


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
