"""Append-only JSON lines."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

NOTHING = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
"""The mark of an empty log."""


class LogError(Exception):
    """A log is not the one that a checkpoint was written beside."""


class JsonLines:
    """A file of JSON objects, one a line, in the order of their fields.

    Args:
      path: the file; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line.

        Raises:
          ValueError: a number is infinite or NaN, which JSON has not.
        """
        line = json.dumps(record, allow_nan=False) + "\n"
        with self.path.open("a") as file:
            file.write(line)

    def read(self) -> list[dict[str, Any]]:
        """All lines."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def mark(self) -> dict[str, Any]:
        """Waits until the file is on disk, and says how long it is and what its sha256 is."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            data = file.read()
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def rewind(self, mark: dict[str, Any]) -> None:
        """Drops all that was written after `mark` was made.

        Raises:
          LogError: what was written before is no longer there as it was.
        """
        data = self.path.read_bytes()[: mark["bytes"]]
        if hashlib.sha256(data).hexdigest() != mark["sha256"]:
            raise LogError(f"{self.path} was changed after the checkpoint that goes with it")
        os.truncate(self.path, mark["bytes"])
