"""The folder of an ablation, with a folder for each cell.

Cells that were trained together are written together: first as one file, whole or not at all, which
is then unpacked. So a process that is killed leaves all of a group or nothing, and cells that run
again run beside the same others.

All that is read is checked: files hold their hashes, and a result those of the files beside it. A
cell that is damaged counts as missing, and runs again. No file names a place outside of the folder.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dropjax.disk import naming
from dropjax.runs import files, record
from dropjax.runs.files import CONFIG, METRICS, RESULT
from dropjax.train.log import NOTHING
from experiments.ablation.cells import Cell, Outcome
from experiments.console import say
from experiments.results import finite
from experiments.setup import LaunchError

ABLATION, TIMING = "ablation.json", "timing.json"
_FILES = {CONFIG: dict, METRICS: list, TIMING: dict, RESULT: dict}
"""The files of a cell, and the type of what each holds."""
_FOLDERS = ("cells", "groups", "figures", "shards")
_NOT_RESULTS = (
    *("seconds", "examples_per_second", "resumed_from_step", "status", "error", "files"),
    # What a single run repeats of its flags.
    *("dataset", "model", "dropout", "strength", "penalty", "seed", "mc_samples"),
)
_MEASURED = ("train_", "validation_", "test_", "mc_test_")
NOT_RUN = "it was not run"
"""Why a cell that never had a result is missing."""


class Store:
    """The folder of an ablation.

    Args:
      path: the folder, which exists.
      changes: (version of dropjax that ran a cell, the cell as it would run now) -> why it would
        have other numbers now; see `grid.Reader.changes`. A cell with reasons is missing, and runs
        again.
    """

    def __init__(
        self, path: Path, changes: Callable[[str | None, Cell], Sequence[str]] = lambda *_: ()
    ) -> None:
        self.path, self._changes = path, changes
        self._groups = path / "groups"

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.path / "cells" / cell.id

    def holds(self) -> bool:
        """Whether there is an ablation, even if its ablation.json is damaged."""
        return (self.path / ABLATION).exists()

    def before(self) -> dict[str, Any]:
        """The ablation.json that is there; empty if there is none, or if it is damaged."""
        try:
            return self._plan()
        except record.RecordError:
            return {}

    def _plan(self) -> dict[str, Any]:
        value, sealed = record.read(self.path / ABLATION)
        # Before 0.6 the version stood in its environment.
        version = value.get("dropjax", files.version_of(value))
        files.check_seal(self.path / ABLATION, sealed, version)
        return value

    def begin(self, plan: dict[str, Any]) -> str | None:
        """Writes ablation.json, and unpacks the groups that a killed process left packed.

        Args:
          plan: the content of ablation.json. A grid may grow, but "experiment" and "exact" must be
            those of the cells that are there.

        Returns:
          The command of what was there; None if there was nothing.

        Raises:
          LaunchError: the cells that are there were run in another way, or the folder has a file
            that no ablation writes. Then nothing is written.
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

    def put(self, cells: Sequence[Cell], made: Sequence[dict[str, Any]]) -> None:
        """Writes the results of a group.

        Args:
          cells: of the group.
          made: the files of each by name: JSON values, and lists of them for names in .jsonl.
        """
        packed = self._groups / f"{cells[0].id}.json"
        by_cell = {cell.id: finite(own) for cell, own in zip(cells, made, strict=True)}
        record.write(packed, by_cell)
        self._unpack(packed, by_cell)

    def _packed(self, packed: Path) -> dict[str, Any]:
        """The content of a group's file; nothing if it is damaged, and its cells run again.

        Raises:
          LaunchError: it has names that no cell, or no file of a cell, can have.
        """
        try:
            made, sealed = record.read(packed)
            _check_names(packed, made)
            for own in made.values():
                files.check_seal(packed, sealed, files.version_of(own[CONFIG]))
        except record.RecordError as error:
            if packed.exists():  # else another shard was at it, and is done
                say(f"{error}: the cells in it run again")
            return {}
        return made

    def _unpack(self, packed: Path, made: dict[str, Any]) -> None:
        for cell, own in made.items():
            folder = self.path / "cells" / cell
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in _encoded(own).items():
                _replace(folder / name, data)
        packed.unlink(missing_ok=True)

    def check_links(self) -> None:
        """Refuses symbolic links, through which files would be written to other folders.

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
        """Whether a cell was run to its end, also if it diverged; not if it failed."""
        return self.outcome(cell).status in ("completed", "diverged")

    def outcome(self, cell: Cell) -> Outcome:
        """What became of a cell. One whose files are damaged is missing; `error` says why."""
        folder = self.folder(cell)
        if not (folder / RESULT).exists():
            return Outcome(cell, "missing", {}, [], NOT_RUN)
        try:
            result, sealed = record.read(folder / RESULT)
            if sealed and result.get("status") == "failed":  # it may have no other file
                return Outcome(cell, "failed", {}, [], str(result.get("error", "")))
            config, hashed = files.read_config(folder)
            result = files.read_result(folder, config) or {}
            history = files.read_history(folder, NOTHING, whole=True)
            _check_numbers(folder, result, history)
        except record.RecordError as error:
            return Outcome(cell, "missing", {}, [], str(error))
        if other := _another(config, cell):
            return Outcome(cell, "missing", {}, [], f"{folder} holds another cell: {other}")
        version = files.version_of(config)
        if reasons := self._changes(version, cell):
            why = f"it has other numbers than version {version} gave: {'; '.join(reasons)}"
            return Outcome(cell, "missing", {}, [], why)
        error = result.get("error", "")
        if result["status"] == "diverged" and not error:  # before 0.6
            error = f"the loss is not finite at step {result.get('diverged_at')}"
        numbers = {k: v for k, v in result.items() if k not in _NOT_RESULTS}
        return Outcome(cell, result["status"], numbers, history, error, config, hashed)


def _another(config: dict[str, Any], cell: Cell) -> str:
    """How a record differs from a cell; "" if it does not. The data may lie elsewhere."""
    was = config["flags"] | {"data_sha256": config.get("data_sha256")}
    free = ("data_dir", "dataset")
    for name in sorted((was.keys() & cell.config.keys()) - {*free}):
        if was[name] != cell.config[name]:
            return f"{name} is {was[name]!r}, not {cell.config[name]!r}"
    return ""


def write_failed(folder: Path, result: dict[str, Any]) -> None:
    """Notes in a cell's folder why the cell failed."""
    record.write(folder / RESULT, result)


def _refuse_links(links: Iterable[os.PathLike[str]]) -> None:
    for path in links:
        raise LaunchError(
            f"{os.fspath(path)} is a symbolic link, and an ablation writes into its own folder "
            "alone. Replace the link by what it points to, or remove it"
        )


def _check_numbers(folder: Path, result: dict[str, Any], history: list[Any]) -> None:
    """Refuses values that no run writes: a file without a hash shows its damage in no other way.

    Raises:
      RecordError: an unknown status, a measure that is not a number, or a line that is no record.
    """
    where = f"{folder / RESULT} is damaged"
    if result.get("status") not in ("completed", "diverged", "failed"):
        raise record.RecordError(f"{where}: status={result.get('status')!r}")
    for name, value in result.items():
        if not name.startswith(_MEASURED) or value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        share = name.endswith("_accuracy")
        if not number or not math.isfinite(value) or (share and not 0 <= value <= 1):
            raise record.RecordError(f"{where}: {name}={value!r}")
    if not all(isinstance(line, dict) for line in history):
        raise record.RecordError(f"{folder / METRICS} is damaged: a line of it is no record")


def _check_names(packed: Path, made: dict[str, Any]) -> None:
    """Refuses a group's file with names that no cell, or no file of a cell, can have.

    Raises:
      LaunchError: it has such a name.
      RecordError: a file of a cell is missing in it, or has another form.
    """
    odd = [name for name in (packed.stem, *made) if not re.fullmatch("[0-9a-f]{12}", name)]
    for own in made.values():
        odd += [name for name in own if name not in _FILES] if isinstance(own, dict) else [own]
    if odd:
        raise LaunchError(
            f"{packed} was written by no ablation: it has {odd[0]!r}, where only cells (twelve hex "
            f"digits) and their {', '.join(sorted(_FILES))} can be. Nothing was written. Remove "
            "that file, and its cells run again"
        )
    for cell, own in made.items():
        for name, kind in _FILES.items():
            if not isinstance(own.get(name), kind):
                raise record.RecordError(f"{packed} is damaged: cell {cell} has no {name}")


def _encoded(own: dict[str, Any]) -> dict[str, bytes]:
    """The files of a cell. The result comes last: a cell that has one is complete."""
    history = "".join(json.dumps(line, allow_nan=False) + "\n" for line in own[METRICS]).encode()
    return {
        CONFIG: record.encode(own[CONFIG]),
        METRICS: history,
        TIMING: record.encode(own[TIMING]),
        RESULT: record.encode(files.beside(own[RESULT], own[CONFIG], history)),
    }


def _replace(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all. It does not wait for the disk: a cell can run again."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with naming(path):
        temporary.write_bytes(data)
        temporary.replace(path)
