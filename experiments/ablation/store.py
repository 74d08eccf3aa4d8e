"""An ablation's folder: a folder for each cell, written together with those it was trained with.

A group's results are one file first, written whole or not at all, and are then unpacked: a process
that is killed leaves a group done or not begun, and what runs again runs with the same company.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropjax.train.checkpoint import naming, write_whole
from experiments.ablation.cells import Cell, Outcome
from experiments.setup import LaunchError

_NOT_RESULTS = (
    *("seconds", "examples_per_second", "resumed_from_step", "status", "error"),
    # What a single run repeats of its flags.
    *("dataset", "model", "dropout", "strength", "penalty", "seed", "mc_samples"),
)


class Store:
    """The folder of an ablation.

    Args:
      path: the folder, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups = path / "groups"

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.path / "cells" / cell.id

    def command(self) -> str | None:
        """What made the ablation that is there; None if there is none."""
        return self._before().get("command")

    def _before(self) -> dict[str, Any]:
        try:
            return json.loads((self.path / "ablation.json").read_text())
        except OSError:
            return {}

    def begin(self, plan: dict[str, Any]) -> str | None:
        """Writes ablation.json, and unpacks what a process that was killed left packed.

        Args:
          plan: what is run. Grids may grow; whether cells are run exactly may not change.

        Returns:
          The command of what was there; None if there was nothing.

        Raises:
          LaunchError: the cells that are there were run in another way.
        """
        before = self._before()
        for name in ("experiment", "exact") if before else ():
            if before.get(name) != plan[name]:
                raise LaunchError(
                    f"{self.path} holds an ablation with {name}={before.get(name)}, and this "
                    f"one has {name}={plan[name]}; choose another --workdir"
                )
        file = self.path / "ablation.json"
        write_whole(file, (json.dumps(plan, indent=2) + "\n").encode())
        self._groups.mkdir(exist_ok=True)
        for packed in sorted(self._groups.glob("*.json")):
            self._unpack(packed)
        return before.get("command")

    def put(self, cells: Sequence[Cell], files: Sequence[dict[str, Any]]) -> None:
        """Keeps what a group has made.

        Args:
          cells: of the group.
          files: of each, by name: JSON values, and lists of them for names that end in .jsonl.
        """
        packed = self._groups / f"{cells[0].id}.json"
        made = {cell.id: of for cell, of in zip(cells, files, strict=True)}
        write_whole(packed, json.dumps(made).encode())
        self._unpack(packed)

    def _unpack(self, packed: Path) -> None:
        try:
            made = json.loads(packed.read_text())
        except FileNotFoundError:
            return  # another shard was at it, and is done
        except ValueError:
            made = {}  # damaged: its cells are missing, and run again
        for cell, files in made.items():
            folder = self.path / "cells" / cell
            folder.mkdir(parents=True, exist_ok=True)
            # The result last: a cell that has one is whole.
            for name in sorted(files, key=lambda name: name == "result.json"):
                _replace(folder / name, _encoded(name, files[name]))
        packed.unlink(missing_ok=True)

    def has(self, cell: Cell) -> bool:
        """Whether a cell was run to its end, be it that it diverged. One that failed is not."""
        return self.outcome(cell).status in ("completed", "diverged")

    def outcome(self, cell: Cell) -> Outcome:
        """What became of a cell."""
        folder = self.folder(cell)
        try:
            result = json.loads((folder / "result.json").read_text())
        except OSError:
            return Outcome(cell, "missing", {}, [], "it was not run")
        except ValueError:
            return Outcome(cell, "missing", {}, [], "its result.json is damaged")
        try:
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            history = [json.loads(line) for line in lines]
        except (OSError, ValueError):
            history = []
        status = result["status"]
        error = result.get("error", "")
        if status == "diverged" and not error:  # before 0.6
            error = f"the loss is not finite at step {result.get('diverged_at')}"
        numbers = {k: v for k, v in result.items() if k not in _NOT_RESULTS}
        return Outcome(cell, status, numbers, history, error)


def _encoded(name: str, value: Any) -> bytes:
    if name.endswith(".jsonl"):
        return "".join(json.dumps(line) + "\n" for line in value).encode()
    return (json.dumps(value, indent=2) + "\n").encode()


def _replace(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, but does not wait for the disk: it can be made again."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with naming(path):
        temporary.write_bytes(data)
        temporary.replace(path)
