"""JSON files that hold the sha256 of the rest of themselves, so that a change is noticed.

Such a file is called sealed. Versions before 0.6 wrote no hash. `read` says whether a file has one;
the caller knows whether it should have one, from the version that wrote the folder.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from dropjax.disk import write_whole

_SEAL = "sha256"
_FIRST = (0, 6)
"""The first version whose files are sealed."""


class RecordError(Exception):
    """A file is missing, is no JSON object, or is not as it was written."""


def digest(value: dict[str, Any]) -> str:
    """The sha256 of an object: of its JSON text with sorted keys, without the hash itself.

    Raises:
      ValueError: a number in it is infinite or NaN, which JSON has not.
    """
    content = {key: part for key, part in value.items() if key != _SEAL}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def encode(value: dict[str, Any]) -> bytes:
    """The bytes of a sealed file.

    Args:
      value: JSON values by name; none is called "sha256".

    Raises:
      ValueError: a number in it is infinite or NaN, which JSON has not.
    """
    sealed = value | {_SEAL: digest(value)}
    return (json.dumps(sealed, indent=2, allow_nan=False) + "\n").encode()


def write(path: Path, value: dict[str, Any]) -> None:
    """Writes a sealed file, whole or not at all.

    Raises:
      ValueError: see `encode`.
      OSError: it cannot be written. What was there before is intact.
    """
    write_whole(path, encode(value))


def read(path: Path) -> tuple[dict[str, Any], bool]:
    """A file's object without its hash, and whether it had one.

    Raises:
      RecordError: there is no such file, it holds no JSON object, or its hash is wrong.
    """
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def decode(data: bytes) -> tuple[dict[str, Any], bool]:
    """The same as `read`, from the bytes of a file.

    Raises:
      ValueError: they are no JSON object, or its hash is wrong.
    """
    try:
        value = json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    if _SEAL not in value:
        return value, False
    if value[_SEAL] != digest(value):
        raise ValueError("it does not have the sha256 that it states; it was changed")
    del value[_SEAL]
    return value, True


def sealed_by(version: str | None) -> bool:
    """Whether a version of dropjax seals its files. An unknown version is assumed to do so."""
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    return numbers is None or tuple(map(int, numbers.groups())) >= _FIRST


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
