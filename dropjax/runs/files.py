"""A run's files, read back as they were written, or said to be damaged: the one place that does.

config.json and result.json hold their own sha256, and result.json under "files" those of the two
files that it was made beside. While there is no result yet, the newest checkpoint says what
metrics.jsonl was. Versions before 0.6 wrote no hashes; their files are read as they are.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from dropjax.runs import record
from dropjax.runs.record import RecordError

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes result.json, whole or not at all, when the files that belong to it are complete.

    Args:
      folder: the run's.
      result: JSON values by name.

    Raises:
      RecordError: config.json is damaged.
      OSError: a file cannot be read or written.
    """
    config, _ = record.read(folder / CONFIG)
    record.write(folder / RESULT, beside(result, config, (folder / METRICS).read_bytes()))


def beside(result: dict[str, Any], config: dict[str, Any], metrics: bytes) -> dict[str, Any]:
    """A result with the hashes of the two files that belong to it.

    Args:
      result: JSON values by name.
      config: what config.json holds.
      metrics: the bytes of metrics.jsonl.
    """
    return result | {"files": _hashes(config, metrics)}


def read_config(folder: Path) -> tuple[dict[str, Any], bool]:
    """config.json, and whether it has a hash.

    Raises:
      RecordError: there is none, it is damaged, or it is of a version before 0.3.0.
    """
    path = folder / CONFIG
    if not path.exists():
        raise RecordError(f"{folder} holds no run: it has no {CONFIG}")
    config, sealed = record.read(path)
    missing = [key for key in ("flags", "network", "mask_stream") if key not in config]
    if missing:
        raise RecordError(
            f"{path} has no {', '.join(missing)}: it is damaged, or of a version before 0.3.0"
        )
    if not isinstance(config["flags"], dict):
        raise RecordError(f"{path} is damaged: its flags are {config['flags']!r}")
    check_seal(path, sealed, version_of(config))
    return config, sealed


def read_result(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """result.json without its hashes; None if the run has none.

    Args:
      folder: the run's.
      config: from `read_config`.

    Raises:
      RecordError: it is damaged, or one of the files that it was made beside is, or is missing.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    result, sealed = record.read(path)
    files = result.pop("files", None)
    check_seal(path, sealed, version_of(config), must=files is not None)
    if "status" not in result:
        raise RecordError(f"{path} is damaged: it has no status")
    if not sealed or (files is None and result["status"] == "failed"):  # it failed before it began
        return result
    try:
        hashes = _hashes(config, (folder / METRICS).read_bytes())
    except OSError as error:
        raise RecordError(f"{folder / METRICS} cannot be read: {error.strerror}") from error
    for name, expected in hashes.items():
        if not isinstance(files, dict) or files.get(name) != expected:
            raise RecordError(
                f"{folder / name} is damaged: it is not the one that {RESULT} was written beside"
            )
    return result


def read_history(folder: Path, mark: dict[str, Any], *, whole: bool) -> list[dict[str, Any]]:
    """The records of metrics.jsonl.

    Args:
      folder: the run's.
      mark: what a checkpoint says of it; see `train.log.JsonLines.mark`.
      whole: what came after the checkpoint too. Of a run without a result nothing vouches for it,
        and a resume drops it.

    Raises:
      RecordError: it is missing, or was changed.
    """
    path = folder / METRICS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    before = data[: mark["bytes"]]
    if hashlib.sha256(before).hexdigest() != mark["sha256"]:
        raise RecordError(f"{path} is damaged: it was changed after the newest checkpoint")
    history = []
    for number, line in enumerate((data if whole else before).splitlines(), 1):
        try:
            history.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path} is damaged at line {number}: {error}") from error
    return history


def version_of(config: dict[str, Any]) -> str | None:
    """The version of dropjax that last wrote a run's configuration, as that says itself."""
    sessions = config.get("sessions")
    last = sessions[-1] if isinstance(sessions, list) and sessions else config
    environment = last.get("environment") if isinstance(last, dict) else None
    version = environment.get("dropjax") if isinstance(environment, dict) else None
    return version if isinstance(version, str) else None


def check_seal(path: Path, sealed: bool, version: Any, *, must: bool = False) -> None:
    """Refuses a file without a hash of a version that writes one.

    Args:
      path: the file.
      sealed: whether it has a hash.
      version: of dropjax, which wrote it; None if that is not known.
      must: whether it says itself that it had one.

    Raises:
      RecordError: it has none, and should have one.
    """
    version = version if isinstance(version, str) else None
    if not sealed and (must or record.sealed_by(version)):
        raise RecordError(
            f"{path} is damaged: it has no sha256, which version {version or 0.6} writes"
        )


def _hashes(config: dict[str, Any], metrics: bytes) -> dict[str, str]:
    return {CONFIG: record.digest(config), METRICS: hashlib.sha256(metrics).hexdigest()}
