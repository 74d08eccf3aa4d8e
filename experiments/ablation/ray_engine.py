"""Trains the groups of an ablation as tasks of a Ray cluster, which schedules and retries them.

The driver plans, and writes the results; workers need the packages and the data, but no shared
folder. A worker reads the data itself, where the driver would find it, and refuses other data.

A task takes one GPU if the cluster has GPUs and JAX_PLATFORMS is not cpu. Else it takes as many
CPUs as JAX has threads in the driver (NPROC, or all its CPUs), or all of the largest machine, and
has the driver's number of threads, on which sums depend: it makes what the driver would have made,
to the bit on a CPU of one kind. On one machine, NPROC=1 trains as many groups at a time as it has
CPUs.
"""

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from experiments import folder, program
from experiments.ablation.grid import Reader
from experiments.ablation.runner import (
    Advance,
    Engine,
    Finished,
    Group,
    Trainers,
    failed,
    train_group,
)
from experiments.ablation.trainer import Made, alike
from experiments.console import say
from experiments.experiment import find
from experiments.flags import flags_of
from experiments.setup import LaunchError, launching, use_compilation_cache

_ROOT = Path(__file__).resolve().parents[2]
_RETRIES = 3


def load_ray() -> ModuleType:
    """Ray.

    Raises:
      LaunchError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise LaunchError(
            "--engine=ray needs Ray, which is not installed: pip install '.[ray]', here and on "
            "each machine of the cluster"
        ) from error


def leave_memory() -> None:
    """Starts JAX so that it takes of a GPU only what it needs: tasks on this machine use it too."""
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    if name not in os.environ:
        os.environ[name] = "false"
        jax.devices()
        del os.environ[name]  # not the tasks', nor of what makes a run


@contextlib.contextmanager
def connected() -> Iterator[Engine]:
    """An engine that connects to a cluster when it is first used, and leaves it at the end.

    The cluster is that of RAY_ADDRESS, or one that runs on this machine, or else one that is
    started here for the time. A group whose worker dies is trained again, up to 3 times; one that
    raises an error has failed.

    Raises:
      LaunchError: Ray is not installed, or, when it is used, the cluster cannot be reached.
    """
    ray = load_ray()
    try:
        with program.raising():  # a cluster that was started here is to be shut down
            yield functools.partial(_run, ray)
    finally:
        ray.shutdown()


def _connect(ray: ModuleType) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    packages = [str(_ROOT / name) for name in ("dropjax", "experiments")]
    try:
        with warnings.catch_warnings():
            # What Ray forks to start a cluster here does nothing with JAX before it is replaced.
            warnings.filterwarnings("ignore", r"os\.fork\(\)", RuntimeWarning)
            ray.init(
                runtime_env={"py_modules": packages, "env_vars": _variables()},
                include_dashboard=False,
                log_to_driver=False,
                logging_level="warning",
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise LaunchError(f"no Ray cluster: {error}") from error


def _run(
    ray: ModuleType, groups: Sequence[Group], advance: Advance
) -> Generator[Finished, None, None]:
    if not ray.is_initialized():
        _connect(ray)
    needs, here = _needs(ray), folder.environment()
    say(f"Ray: groups to train: {len(groups)}, each a task that takes {_text(needs)}")
    task = ray.remote(max_retries=_RETRIES, **needs)(_train)
    pending = {task.remote(*_arguments(group)): group for group in groups}
    while pending:
        (done,), _ = ray.wait(list(pending), num_returns=1)
        group = pending.pop(done)
        try:
            made, environment = ray.get(done)
        except ray.exceptions.RayError as error:
            # What the task raised, or else what became of its worker.
            cause = getattr(error, "cause", None) or error
            made = failed(cause, len(group.cells), group.lanes)
            environment = here
        advance(len(group.cells))
        # A worker has a copy of the checkout, without its commit.
        yield group.cells, made, environment | {"git_commit": here["git_commit"]}


def _threads() -> int:
    """How many threads JAX has on a CPU."""
    text = os.environ.get("NPROC", "")
    return int(text) if text.isdecimal() and int(text) else folder.environment()["cpus"]


def _variables() -> dict[str, str]:
    """What of the driver's environment decides what is computed, and which data is found."""
    names = ("XLA_FLAGS", "TFDS_DATA_DIR")
    given = {k: v for k, v in os.environ.items() if k in names or k.startswith(("JAX_", "DROPJAX"))}
    return given | {"NPROC": str(_threads())}


def _needs(ray: ModuleType) -> dict[str, int]:
    """What a task takes, as Ray's options."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if os.environ.get("JAX_PLATFORMS") != "cpu" and any(
        machine.get("GPU", 0) >= 1 for machine in machines
    ):
        return {"num_gpus": 1, "num_cpus": 1}
    # A cluster that starts machines when they are needed may have none yet.
    largest = int(max(machine.get("CPU", 0) for machine in machines)) or _threads()
    return {"num_cpus": min(_threads(), largest)}


def _text(needs: dict[str, int]) -> str:
    if "num_gpus" in needs:
        return "1 GPU"
    return f"{needs['num_cpus']} CPU{'s' if needs['num_cpus'] > 1 else ''}"


def _arguments(group: Group) -> tuple[Any, ...]:
    """Those of `_train`: plain values, no data set."""
    experiment = group.cells[0].resolved.experiment.name
    configs = [vars(planned.resolved.config) for planned in group.cells]
    hashes = [planned.cell.config["data_sha256"] for planned in group.cells]
    return experiment, configs, hashes, group.lanes


@functools.cache
def _kept(experiment: str) -> tuple[Trainers, Reader]:
    """What a worker keeps from one task to the next."""
    use_compilation_cache()
    with launching():
        return Trainers(), Reader(find(experiment), lambda line: None)


def _train(
    experiment: str, configs: list[dict[str, Any]], hashes: list[str], lanes: int
) -> tuple[list[Made], dict[str, Any]]:
    """The task: trains cells, and says in which environment."""
    trainers, reader = _kept(experiment)
    cells = []
    for config, expected in zip(configs, hashes, strict=True):
        cell = reader.resolve(flags_of(config))
        if (sha256 := reader.sha256(cell)) != expected:
            raise LaunchError(
                f"{cell.config.dataset}: this worker's data has sha256 {sha256}, and the driver's "
                f"{expected}; give both the same"
            )
        cells.append(cell)
    # A plan's number of a trainer would mean another one in the next plan.
    made = train_group(trainers, alike(cells[0]), cells, lanes, lambda n: None)
    return made, folder.environment()
