"""What the tests of experiments share."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from absl.flags import FlagValues
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from dropjax.disk import write_whole
from dropjax.runs import files, record
from experiments import program, report, run
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from tests.conftest import optimising


@pytest.fixture(scope="module", autouse=True)
def compile_once(compilation_cache, tmp_path_factory) -> Iterator[None]:
    """The same few programs many times: compiled once, and kept on disk."""
    values = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in values}
    for settings in (values, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        reset_cache()  # else JAX stays with what it found at its first compilation
        if settings is values:
            yield


@pytest.fixture(scope="module", autouse=True)
def processes_in_a_hurry() -> Iterator[None]:
    """Processes that these tests start compile without optimisations too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield


@pytest.fixture(scope="module")
def no_picture() -> Iterator[None]:
    """Matplotlib takes longer than a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_curves", lambda history, title, path: None)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of all the session's processes."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="module")
def small_run(compile_once, no_picture, shared) -> Callable[..., Path]:
    """`small_run(**flags)`: the folder of a run of a small MLP, by SGD. Not to be changed.

    The same flags give the same folder, in whichever module or process.
    """
    small = {"dataset": "digits", "model": "mlp(widths=(32,))", "epochs": 2, "batch_size": 256}
    small |= {"optimizer": "sgd(momentum=0.9)", "learning_rate": 0.2, "mc_samples": 3}

    def start(**given) -> Path:
        flags = Flags(**small | given)
        name = hashlib.sha256(repr(flags).encode()).hexdigest()[:16]
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / name / "result.json").exists():
                # Compiled without optimisations, a loop that trains batch norm on a CPU ends in NaN
                # (JAX 0.10.2); the layer and its gradient by themselves are right.
                batch_norm = "batch" in flags.model
                with optimising() if batch_norm else contextlib.nullcontext():
                    path = shared / name
                    assert run.run(EXPERIMENT, flags, path, resume=False, overwrite=False) == 0
        return shared / name

    return start


@pytest.fixture(scope="module")
def some_run(small_run) -> Path:
    """The folder of a run for what needs any; tests of dropjax.runs have it too."""
    return small_run(strength="linear_schedule(init_value=0.5,end_value=1.0,transition_steps=30)")


# A rate, and one that is learned with a penalty; each seed has a part of the data of its own.
LEARNS = 'bernoulli(rate=0.4,at="hidden")|concrete(at="head")'
PART = {"learning_rate": 0.1, "strength": "0.5", "penalty": "30", "train_examples": 300}


@pytest.fixture(scope="module")
def part_run(small_run) -> Path:
    """The folder of a run on a part of the data."""
    return small_run(dropout=LEARNS, seed=1, **PART)


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Applies `change` to what a run's JSON file holds, and makes all hashes right again."""
    value, _ = record.read(path)
    change(value)
    record.write(path, value)
    if path.name == "config.json" and (path.parent / "result.json").exists():
        result, _ = record.read(path.parent / "result.json")
        del result["files"]
        files.write_result(path.parent, result)


def strict_json(text: str) -> Any:
    """What the text says, which has to be JSON: Python's own reader takes NaN too."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their paths in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def command(monkeypatch) -> Callable[..., int]:
    """`command(*words)`: the exit status of a command that is run in this process."""
    launched: list[Callable[[list[str]], int]] = []
    monkeypatch.setattr(program, "launch", lambda name, start: launched.append(start))
    monkeypatch.setattr(run, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(run.logging, "set_verbosity", lambda level: None)

    def started(*words: str) -> int:
        values = FlagValues()
        run.main(EXPERIMENT, values)
        values(["mnist", *words])
        return launched[-1](["mnist"])

    return started


def table(task: str, rows: int = 120) -> dict[str, np.ndarray]:
    """The arrays of an .npz file: a table of 5 features of unequal scale, 30 examples to test."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 5)) * [1, 10, 0.1, 3, 1] + [0, 50, 0, -7, 2]
    z = x[:, 0] + x[:, 1] / 10 - x[:, 3] / 3 - 5
    y = {
        "binary": (z > z.mean()).astype(int),
        "classification": np.digitize(z, np.quantile(z, [0.3, 0.6])),
        "regression": 100 + 20 * np.stack([z, z * rng.normal(size=rows) / 5], axis=1),
    }[task]
    return {"x_train": x[:-30], "y_train": y[:-30], "x_test": x[-30:], "y_test": y[-30:]}


@pytest.fixture(scope="module")
def npz(shared) -> Callable[..., str]:
    """`npz(**arrays)`: the path of a file of them, the same for the same arrays."""

    def write(**arrays) -> str:
        digest = hashlib.sha256(repr(list(arrays)).encode())
        for array in arrays.values():
            digest.update(f"{array.dtype} {array.shape} {array.tolist()}".encode())
        path = shared / digest.hexdigest()[:16] / "own.npz"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            written = io.BytesIO()
            np.savez(written, **arrays)
            write_whole(path, written.getvalue())
        return str(path)

    return write


@pytest.fixture(scope="module")
def own_run(small_run, npz) -> Callable[[str], Path]:
    """`own_run(task)`: the folder of a run on the file of `table(task)`. Not to be changed."""
    flags = {"epochs": 5, "batch_size": None, "learning_rate": 0.03}
    return lambda task: small_run(dataset=npz(**table(task)), **flags)
