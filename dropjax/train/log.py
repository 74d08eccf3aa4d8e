"""Append-only JSON lines."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropjax.disk import naming, write_whole

NOTHING = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
"""The mark of an empty log."""


class LogError(Exception):
    """A log was changed after the checkpoint that belongs to it."""


class JsonLines:
    """A file of JSON objects, one a line, in the order of their fields.

    What the file holds is also kept in memory. If somebody removes or changes the file while this
    process writes to it, it is written again.

    Args:
      path: the file; it is made if it is not there.
      warn: is called with a line when the file had to be written again.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda line: None) -> None:
        self.path, self._warn = path, warn
        with naming(path):
            path.touch()
            self._data = path.read_bytes()

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line.

        Raises:
          ValueError: a number is infinite or NaN, which JSON has not.
        """
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        if self._size() != len(self._data):
            self._write_again()
        with naming(self.path), self.path.open("ab") as file:
            file.write(line)
        self._data += line

    def read(self) -> list[dict[str, Any]]:
        """All lines."""
        return [json.loads(line) for line in self._data.splitlines()]

    def mark(self) -> dict[str, Any]:
        """Waits until the file is on disk, and returns its length and its sha256.

        A file that was changed by somebody else is written again first.
        """
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
                data = file.read()
        except OSError:
            data = None
        if data != self._data:
            self._write_again()
        return {"bytes": len(self._data), "sha256": hashlib.sha256(self._data).hexdigest()}

    def rewind(self, mark: dict[str, Any]) -> None:
        """Removes all lines that were written after `mark` was made.

        Raises:
          LogError: the lines before it were changed or removed.
        """
        with naming(self.path):
            data = self.path.read_bytes()[: mark["bytes"]]
            if hashlib.sha256(data).hexdigest() != mark["sha256"]:
                raise LogError(
                    f"{self.path} was changed or removed after the checkpoint that goes with it: "
                    "put it back as it was; else the run can only be begun anew"
                )
            os.truncate(self.path, mark["bytes"])
        self._data = data

    def _size(self) -> int | None:
        try:
            return self.path.stat().st_size
        except OSError:
            return None

    def _write_again(self) -> None:
        self._warn(f"{self.path} was changed or removed; it is written again as it was")
        write_whole(self.path, self._data)
