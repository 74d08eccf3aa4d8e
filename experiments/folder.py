"""The folder of a run: which process may write there, and what its config.json says."""

import contextlib
import fcntl
import os
import platform
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

import dropjax
from dropjax.disk import naming
from dropjax.runs import files, record
from dropjax.runs.files import CONFIG, METRICS, RESULT
from dropjax.runs.sources import sources
from experiments import flags as training
from experiments import program
from experiments.experiment import Experiment
from experiments.setup import LaunchError, Resolved, jax_setting

_OLD_RESULTS = "result-of-*-epochs.json"
# The configuration last: while anything of a run is left, it says whose it is.
_OURS = (
    *("sites.txt", METRICS, "timing.jsonl", RESULT, "curves.png", "checkpoints"),
    CONFIG,
)


def default_folder(name: str) -> Path:
    """A new folder below runs/, named after the experiment and the time."""
    stem = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = stem, 1
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a folder for this process, and makes it if there is none.

    The kernel releases the lock when the process ends, however it ends.

    Raises:
      LaunchError: another process holds it, or it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / "lock").open("a+b", buffering=0)
    except OSError as error:
        raise LaunchError(f"workdir={path} cannot be written to: {error.strerror}") from error
    with file:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip()
        here = socket.gethostname()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LaunchError(f"another run is writing to {path}: {holder}") from None
        if holder and holder.partition(" ")[0] != here:
            # Not every network file system shares locks between hosts.
            raise LaunchError(
                f"{path} is locked by a run on another host: {holder}. If that run is dead, remove "
                f"{path / 'lock'}"
            )
        with naming(path / "lock"):
            file.truncate(0)
            file.write(f"{here} pid {os.getpid()}\n".encode())
        for leftover in path.glob("*.tmp-*"):  # of a process that was killed while writing
            if leftover.name.partition(".tmp-")[0] in _OURS:
                leftover.unlink()
        try:
            with program.tidying(lambda: os.ftruncate(file.fileno(), 0)):
                yield
        finally:
            file.truncate(0)


def recorded(path: Path) -> dict[str, Any]:
    """The config.json of the run in a folder.

    Raises:
      LaunchError: there is no run, or its configuration is damaged.
    """
    if not (path / CONFIG).exists():
        raise LaunchError(f"there is no run in {path} to resume")
    return _read(path)[0]


def note_of_seal(path: Path) -> str:
    """A note on a config.json of a version that wrote no hashes; "" if it has one."""
    if _read(path)[1]:
        return ""
    return f"NOTE: {path / CONFIG} has no sha256, which its version did not write: not checked"


def claim(path: Path, config: dict[str, Any], *, resume: bool, overwrite: bool) -> list[str]:
    """Prepares a locked folder for a run: writes config.json, or checks it for a resume.

    A resume may have more epochs than the run; `begin_session` writes that.

    Args:
      path: the folder.
      config: from `describe`.
      resume: continue the run that is there.
      overwrite: remove the run that is there.

    Returns:
      Differences of environment to the run that is resumed: they may change its rounding.

    Raises:
      LaunchError: there is a run and neither flag is given; there is none to resume; or it has
        another configuration.
    """
    there = (path / CONFIG).exists()
    if resume:
        if not there:
            raise LaunchError(f"there is no run in {path} to resume")
        return _check_same(path, config)
    if there and not overwrite:
        raise LaunchError(
            f"{path} already holds a run; --resume continues it, --overwrite replaces it"
        )
    old = sorted(result.name for result in path.glob(_OLD_RESULTS))
    left = [*old, *(name for name in _OURS if (path / name).exists())]
    if left and not overwrite:
        raise LaunchError(
            f"{path} holds no run, but has {', '.join(left)}; choose another folder, or let "
            "--overwrite remove them"
        )
    for name in left:
        target = path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
    record.write(path / CONFIG, config)
    return []


def begin_session(path: Path, config: dict[str, Any], step: int) -> None:
    """Writes in config.json that a run goes on here, and to how many epochs.

    If there are more epochs than before, the result of fewer is renamed first: so a folder never
    has a configuration beside the result of another one.

    Args:
      path: the folder, which `claim` has checked.
      config: what it was checked with.
      step: the step from which it goes on.
    """
    before = recorded(path)
    epochs = before["flags"]["epochs"]
    first = [{"from_step": 0, "environment": before.get("environment", {})}]
    sessions = [*before.get("sessions", first)]
    sessions.append({"from_step": step, "environment": config["environment"]})
    # Where the data lie may have changed too.
    changed = training.may_be("larger", "place", "file")
    flags = {name: config["flags"][name] for name in changed}
    now = before | {"sessions": sessions, "flags": before["flags"] | flags}
    now |= {"command": config["command"]}
    with naming(path / RESULT), contextlib.suppress(FileNotFoundError):
        if config["flags"]["epochs"] != epochs:
            (path / RESULT).rename(path / old_result(epochs))
        else:  # damaged, or of a run that diverged: it is made again
            (path / RESULT).unlink()
    if "sources" in config and "sources" not in before:
        now |= {"sources": config["sources"]}
    record.write(path / CONFIG, now)


def old_result(epochs: int) -> str:
    """The name that a result has while a run of so many epochs is being extended."""
    return _OLD_RESULTS.replace("*", str(epochs))


def drop_old_results(path: Path) -> None:
    """Removes the results of fewer epochs, after that of all epochs was written."""
    for old in path.glob(_OLD_RESULTS):
        old.unlink(missing_ok=True)


def completed(path: Path, status: str = "completed") -> tuple[dict[str, Any] | None, str]:
    """The result of the run in a folder, or None; and why a result that is there does not count.

    A result does not count if it is damaged, or if one of the files beside it was changed.

    Args:
      path: the folder.
      status: the result must have this one; else it is None.
    """
    try:
        result = files.read_result(path, files.read_config(path)[0])
    except files.RecordError as error:
        return None, str(error)
    return (result if result and result["status"] == status else None), ""


def describe(
    run: Resolved,
    flags: dict[str, Any] | None = None,
    *,
    data_sha256: str | None = None,
    where: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of config.json: all that is needed to repeat a run, and where it was made.

    "environment" is where the run was begun; "sessions" has the environment of each process that
    went on with it, and the step from which it did.

    Args:
      run: the run.
      flags: as a record has them; None for those of `run`.
      data_sha256: the hash of the data, if it is known; None to compute it.
      where: from `environment`, if it is known.
    """
    flags = vars(run.config) if flags is None else flags
    where = environment() if where is None else where
    return {
        "experiment": run.experiment.name,
        "flags": dict(flags),
        "network": run.network.describe(run.dataset.x_train[0]),
        "command": command_of(flags, run.experiment),
        "data_sha256": run.dataset.sha256() if data_sha256 is None else data_sha256,
        "train_examples": len(run.dataset.x_train),
        "mask_stream": dropjax.STREAM,
        "prng": {
            "implementation": str(jax_setting("jax_default_prng_impl")),
            "threefry_partitionable": bool(jax_setting("jax_threefry_partitionable")),
            "x64": bool(jax_setting("jax_enable_x64")),
        },
        "sources": sources(run.network),
        "environment": where,
        "sessions": [{"from_step": 0, "environment": where}],
    }


def command_of(flags: dict[str, Any], experiment: Experiment) -> str:
    """The command that repeats a run.

    Args:
      flags: every one, resolved.
      experiment: which.
    """
    settings = {k: v for k, v in _settings().items() if k != "JAX_COMPILATION_CACHE_DIR"}
    return " ".join(
        [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
        + [experiment.command]
        + [f"--{k}={shlex.quote(str(v))}" for k, v in training.in_command(flags).items()]
    )


def _settings() -> dict[str, str]:
    """The environment variables that change what JAX computes, or how it does."""
    names = [k for k in os.environ if k.startswith(("JAX_", "XLA_")) or k == "NPROC"]
    return {name: os.environ[name] for name in sorted(names)}


def environment() -> dict[str, Any]:
    """Where the run is made: versions, commit, device, settings."""
    from importlib.metadata import version

    names = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn", "safetensors")
    devices = jax.local_devices()
    return {
        "dropjax": dropjax.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "settings": _settings(),
    }


def _git_commit() -> str | None:
    """The commit of this checkout, marked if files differ from it; None outside of git."""
    root = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-modified" if git("status", "--porcelain") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix[:-1]: value}
    return {
        k: v for name, part in value.items() for k, v in _flat(part, f"{prefix}{name}.").items()
    }


def _check_same(path: Path, config: dict[str, Any]) -> list[str]:
    was, _ = _read(path)
    # How many examples there are follows from the data's hash, and older runs do not say it.
    free = {"command", "train_examples"}
    free |= {f"flags.{name}" for name in training.may_be("larger", "place")}
    if all(str(run["flags"].get("dataset")).endswith(".npz") for run in (was, config)):
        free.add("flags.dataset")
    before, now = _flat(_compared(was)), _flat(_compared(config))
    changed = {
        name: f"  {name}: was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name not in free
    }
    environment = {name for name in changed if name.startswith("environment.")}
    if changed.keys() - environment:
        lines = "\n".join(line for name, line in changed.items() if name not in environment)
        raise LaunchError(f"the run in {path} has another configuration:\n{lines}")
    return list(changed.values())


def _read(path: Path) -> tuple[dict[str, Any], bool]:
    try:
        return files.read_config(path)
    except files.RecordError as error:
        raise LaunchError(
            f"{error}. The run cannot be resumed without it: put back a copy of it, or begin anew "
            "with --overwrite"
        ) from error


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that must be equal, with the environment of the last session."""
    last = config.get("sessions", [config])[-1]
    left = {k: v for k, v in config.items() if k not in ("sources", "sessions")}
    return left | {"environment": last.get("environment", {})}
