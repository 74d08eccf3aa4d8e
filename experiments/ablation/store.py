"""An ablation's folder: a folder for each cell, written together with those it was trained with.

A group's results are one file first, written whole or not at all, and are then unpacked: a process
that is killed leaves a group done or not begun, and what runs again runs with the same company.

Whatever is read back is checked: files hold their hashes, a cell's result those of its other files.
What is damaged is missing, and runs again. Nothing that stands in a file names a place outside of
the folder.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dropjax.runs import record
from experiments.ablation.cells import Cell, Outcome
from experiments.console import say
from experiments.setup import LaunchError

ABLATION = "ablation.json"
_CONFIG, _HISTORY, _RESULT = "config.json", "metrics.jsonl", "result.json"
_FILES = {_CONFIG: dict, _HISTORY: list, "timing.json": dict, _RESULT: dict}
"""Those of a cell, and of which kind each is."""
_FOLDERS = ("cells", "groups", "figures", "shards")
_NOT_RESULTS = (
    *("seconds", "examples_per_second", "resumed_from_step", "status", "error", "files"),
    # What a single run repeats of its flags.
    *("dataset", "model", "dropout", "strength", "penalty", "seed", "mc_samples"),
)
_MEASURED = ("train_", "validation_", "test_", "mc_test_")
NOT_RUN = "it was not run"
"""What is said of a cell that has no result, and never had one."""


def changes_since(config: dict[str, Any]) -> list[str]:
    """Why a cell of an older version would have other numbers now; empty if it would not.

    Args:
      config: its config.json.
    """
    del config
    return []


class Store:
    """The folder of an ablation.

    Args:
      path: the folder, which exists.
      changes: why a cell would have other numbers now, of its config.json; such a cell is missing,
        and runs again.
    """

    def __init__(
        self, path: Path, changes: Callable[[dict[str, Any]], Sequence[str]] = changes_since
    ) -> None:
        self.path, self._changes = path, changes
        self._groups = path / "groups"

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.path / "cells" / cell.id

    def holds(self) -> bool:
        """Whether there is an ablation, be its ablation.json damaged or not."""
        return (self.path / ABLATION).exists()

    def before(self) -> dict[str, Any]:
        """The ablation.json that is there; empty if there is none, or if it is damaged."""
        try:
            return self._plan()
        except record.RecordError:
            return {}

    def _plan(self) -> dict[str, Any]:
        value, sealed = record.read(self.path / ABLATION)
        if not sealed:
            # Before 0.6 the version stood in its environment.
            version = value.get("dropjax", _version(value))
            _check_unsealed(self.path / ABLATION, version)
        return value

    def begin(self, plan: dict[str, Any]) -> str | None:
        """Writes ablation.json, and unpacks what a process that was killed left packed.

        Args:
          plan: what is run, by names: JSON values. Grids may grow; whether cells are run exactly
            may not change.

        Returns:
          The command of what was there; None if there was nothing.

        Raises:
          LaunchError: the cells that are there were run in another way, or the folder holds what no
            ablation has written. Nothing was written then.
        """
        before = self.before()
        if self.holds() and not before:
            say(f"{self.path / ABLATION} is damaged: it is written anew, and the cells are checked")
        for name in ("experiment", "exact") if before else ():
            if before.get(name) != plan[name]:
                raise LaunchError(
                    f"{self.path} holds an ablation with {name}={before.get(name)}, and this "
                    f"one has {name}={plan[name]}; choose another --workdir"
                )
        packed = {path: self._packed(path) for path in sorted(self._groups.glob("*.json"))}
        record.write(self.path / ABLATION, plan)
        self._groups.mkdir(exist_ok=True)
        for path, made in packed.items():
            self._unpack(path, made)
        return before.get("command")

    def put(self, cells: Sequence[Cell], files: Sequence[dict[str, Any]]) -> None:
        """Keeps what a group has made.

        Args:
          cells: of the group.
          files: of each, by name: JSON values, and lists of them for names that end in .jsonl.
        """
        packed = self._groups / f"{cells[0].id}.json"
        made = {cell.id: _strict(of) for cell, of in zip(cells, files, strict=True)}
        record.write(packed, made)
        self._unpack(packed, made)

    def _packed(self, packed: Path) -> dict[str, Any]:
        """What a group's file holds; nothing if it is damaged, and its cells run again.

        Raises:
          LaunchError: it names what is no cell, or files that no cell has.
        """
        try:
            made, sealed = record.read(packed)
            _check_names(packed, made)
            for files in [] if sealed else made.values():
                _check_unsealed(packed, _version(files[_CONFIG]))
        except record.RecordError as error:
            if packed.exists():  # else another shard was at it, and is done
                say(f"{error}: the cells in it run again")
            return {}
        return made

    def _unpack(self, packed: Path, made: dict[str, Any]) -> None:
        for cell, files in made.items():
            folder = self.path / "cells" / cell
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in _encoded(files).items():
                _replace(folder / name, data)
        packed.unlink(missing_ok=True)

    def check_links(self) -> None:
        """Refuses links through which what belongs into this folder would be written elsewhere.

        Raises:
          LaunchError: there is one.
        """
        folders = [self.path, *(self.path / name for name in _FOLDERS)]
        for folder in [*folders, *(self.path / "shards").glob("*")]:
            if folder.is_dir():
                with os.scandir(folder) as entries:  # of many cells, which are not looked at
                    _refuse_links(entry for entry in entries if entry.is_symlink())

    def check_links_of(self, cell: Cell) -> None:
        """The same for a cell's folder, into which a single run appends.

        Raises:
          LaunchError: there is one.
        """
        _refuse_links(path for path in self.folder(cell).rglob("*") if path.is_symlink())

    def has(self, cell: Cell) -> bool:
        """Whether a cell was run to its end, be it that it diverged. One that failed is not."""
        return self.outcome(cell).status in ("completed", "diverged")

    def outcome(self, cell: Cell) -> Outcome:
        """What became of a cell. One whose files are damaged is missing; `error` says why."""
        folder = self.folder(cell)
        if not (folder / _RESULT).exists():
            return Outcome(cell, "missing", {}, [], NOT_RUN)
        try:
            result, sealed = record.read(folder / _RESULT)
            status = result.get("status")
            if status == "failed" and sealed:  # one that could not start has no other file
                return Outcome(cell, status, {}, [], str(result.get("error", "")))
            config = _checked_config(folder, result, sealed)
            history = _checked_history(folder, result, sealed)
            _check_result(folder / _RESULT, result)
        except record.RecordError as error:
            return Outcome(cell, "missing", {}, [], str(error))
        if reasons := self._changes(config):
            why = f"it has other numbers than version {_version(config)} gave: {'; '.join(reasons)}"
            return Outcome(cell, "missing", {}, [], why)
        error = result.get("error", "")
        if status == "diverged" and not error:
            error = f"the loss is not finite at step {result.get('diverged_at')}"
        numbers = {k: v for k, v in result.items() if k not in _NOT_RESULTS}
        return Outcome(cell, result["status"], numbers, history, error, config, sealed)


def write_failed(folder: Path, result: dict[str, Any]) -> None:
    """Notes in a cell's folder why the cell failed."""
    record.write(folder / _RESULT, result)


def _refuse_links(found: Iterable[os.PathLike[str]]) -> None:
    for path in found:
        raise LaunchError(
            f"{os.fspath(path)} is a symbolic link, and an ablation writes into its own folder "
            "alone. Replace the link by what it points to, or remove it"
        )


def _checked_config(folder: Path, result: dict[str, Any], sealed: bool) -> dict[str, Any]:
    """A cell's config.json.

    Args:
      folder: the cell's.
      result: its result.json.
      sealed: whether that has a hash.

    Raises:
      RecordError: it is missing, damaged, of another run, or without a hash that it should have.
    """
    path = folder / _CONFIG
    config, config_sealed = record.read(path)
    if not isinstance(config.get("flags"), dict):
        raise record.RecordError(f"{path} is damaged: it has no flags")
    for file, has_hash in ((path, config_sealed), (folder / _RESULT, sealed)):
        if not has_hash:
            _check_unsealed(file, _version(config))
    if sealed and _hashes(result).get(_CONFIG) != record.digest(config):
        raise record.RecordError(f"{path} is not the one that {_RESULT} was written beside")
    return config


def _checked_history(folder: Path, result: dict[str, Any], sealed: bool) -> list[dict[str, Any]]:
    """The records of a cell's metrics.jsonl.

    Raises:
      RecordError: it is missing, damaged or of another run.
    """
    path = folder / _HISTORY
    try:
        data = path.read_bytes()
        history = [json.loads(line) for line in data.splitlines()]
    except OSError as error:
        raise record.RecordError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise record.RecordError(f"{path} is damaged: {error}") from error
    if sealed and _hashes(result).get(_HISTORY) != hashlib.sha256(data).hexdigest():
        raise record.RecordError(f"{path} is not as it was written: it has another sha256")
    if not all(isinstance(line, dict) for line in history):
        raise record.RecordError(f"{path} is damaged: a line of it is no record")
    return history


def _check_result(path: Path, result: dict[str, Any]) -> None:
    """Refuses a result.json that no run writes; one without a hash may be changed unseen.

    Raises:
      RecordError: a status that there is not, or a measure that is none.
    """
    if result.get("status") not in ("completed", "diverged", "failed"):
        raise record.RecordError(f"{path} is damaged: status={result.get('status')!r}")
    for name, value in result.items():
        if not name.startswith(_MEASURED) or value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        most = 1.0 if name.endswith("_accuracy") else math.inf
        if not number or not math.isfinite(value) or (most == 1.0 and not 0 <= value <= most):
            raise record.RecordError(f"{path} is damaged: {name}={value!r}")


def _check_names(packed: Path, made: dict[str, Any]) -> None:
    """Refuses a group's file that names what is no cell, or files that no cell has.

    Raises:
      LaunchError: it does.
      RecordError: a file of a cell is not in it, or is of another form.
    """
    odd = [name for name in (packed.stem, *made) if not re.fullmatch("[0-9a-f]{12}", name)]
    for files in made.values():
        odd += (
            [name for name in files if name not in _FILES] if isinstance(files, dict) else [files]
        )
    if odd:
        raise LaunchError(
            f"{packed} was written by no ablation: it has {odd[0]!r}, where only cells (twelve hex "
            f"digits) and their {', '.join(sorted(_FILES))} can be. Nothing was written. Remove "
            "that file, and its cells run again"
        )
    for cell, files in made.items():
        for name, kind in _FILES.items():
            if not isinstance(files.get(name), kind):
                raise record.RecordError(f"{packed} is damaged: cell {cell} has no {name}")


def _version(config: Any) -> str | None:
    """The version of dropjax that a config.json names."""
    environment = config.get("environment") if isinstance(config, dict) else None
    version = environment.get("dropjax") if isinstance(environment, dict) else None
    return version if isinstance(version, str) else None


def _check_unsealed(path: Path, version: Any) -> None:
    """Refuses a file without a hash of a version that writes one.

    Raises:
      RecordError: it is one.
    """
    if record.sealed_by(version if isinstance(version, str) else None):
        raise record.RecordError(
            f"{path} is damaged: it has no sha256, which version {version or 0.6} writes"
        )


def _hashes(result: dict[str, Any]) -> dict[str, Any]:
    files = result.get("files")
    return files if isinstance(files, dict) else {}


def _strict(value: Any) -> Any:
    """A value of which numbers that JSON has not, infinity and NaN, are None."""
    if isinstance(value, dict):
        return {name: _strict(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encoded(files: dict[str, Any]) -> dict[str, bytes]:
    """A cell's files. The result is the last: a cell that has one is whole."""
    history = "".join(json.dumps(line, allow_nan=False) + "\n" for line in files[_HISTORY]).encode()
    hashes = {
        _CONFIG: record.digest(files[_CONFIG]),
        _HISTORY: hashlib.sha256(history).hexdigest(),
    }
    return {
        _CONFIG: record.encode(files[_CONFIG]),
        _HISTORY: history,
        "timing.json": record.encode(files["timing.json"]),
        _RESULT: record.encode(files[_RESULT] | {"files": hashes}),
    }


def _replace(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, but does not wait for the disk: it can be made again."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)
