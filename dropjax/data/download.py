"""Original files by name: where they are kept, whether they are intact, and how they are fetched.

Their addresses, sizes and checksums are those that tensorflow-datasets registers. Its own download
is not used: without a network it retries for minutes, and it needs TensorFlow afterwards.
"""

import dataclasses
import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropjax.data.dataset import DataError

# Until an answer begins, name look-up included; and between two pieces of it.
ANSWER_SECONDS = 6.0
STALL_SECONDS = 10.0
_PIECE = 1 << 16


class Unavailable(DataError):
    """Files that are not here and cannot be fetched; `reason` says why, in a few words."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class File:
    """A file as it was published."""

    name: str
    url: str
    size: int
    sha256: str

    def read(self, folder: Path) -> bytes:
        """Its bytes from a folder, if they are the original's."""
        try:
            with (folder / self.name).open("rb") as file:
                # A piece at a time: only what is the original is known to fit in memory.
                found = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"{folder / self.name} cannot be read: {error}") from error
        if found != self.sha256:
            raise DataError(
                f"{folder / self.name} is damaged, cut short, or another data set's: its sha256 is "
                f"{found}, the original file's {self.sha256}. Replace it."
            )
        return data


def registered(name: str) -> list[File]:
    """The original files of a data set, as tensorflow-datasets registers them."""
    from importlib.util import find_spec

    # Found, not imported: the package costs a second, and its list is a text file.
    spec = find_spec("tensorflow_datasets")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("tensorflow-datasets is not installed; its checksums are needed")
    root = Path(spec.submodule_search_locations[0])
    lines = (root / "url_checksums" / f"{name}.txt").read_text().splitlines()
    files = (line.split("\t") for line in lines)
    return [File(name, url, int(size), sha256) for url, size, sha256, name in files]


def cache(name: str) -> Path:
    """The folder that files of a data set are downloaded into."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(os.path.expanduser("~")) / ".cache"
    return (Path(given) if os.path.isabs(given) else home) / "dropjax" / "data" / name


def missing(files: list[File], folder: Path) -> list[File]:
    """Those that are not in a folder."""
    return [file for file in files if not os.path.isfile(folder / file.name)]


def how_to_get(name: str, files: list[File], lacking: list[File], where: str, reason: str) -> str:
    """The message for files that are not there."""
    listing = "".join(f"\n  {f.name}  sha256 {f.sha256}\n    {f.url}" for f in files)
    return (
        f"{name} is not there: {', '.join(f.name for f in lacking)} missing ({reason}). Put the "
        f"original files into {where}:{listing}"
    )


def fetch(name: str, folder: Path | None, *, say: Callable[[str], None]) -> Path:
    """Makes sure that the original files of a data set are in a folder.

    All of them are there at the end, or none more than before.

    Args:
      name: of the data set.
      folder: where they go; None for the cache.
      say: is told of a download.

    Returns:
      The folder: the cache too if they all are in it already.

    Raises:
      Unavailable: a file is missing and cannot be had, as is found out within ten seconds where
        there is no network.
    """
    files = registered(name)
    if not missing(files, cache(name)):
        return cache(name)
    target = folder or cache(name)
    lacking = missing(files, target)
    parts: dict[File, Path] = {}
    try:
        if lacking and os.environ.get("DROPJAX_OFFLINE") == "1":
            raise ConnectionError("no download, as DROPJAX_OFFLINE=1")
        for file in lacking:
            with _answer(file.url) as answer:
                if not parts:
                    megabytes = sum(f.size for f in lacking) / 1e6
                    say(f"downloading {name}, {megabytes:.0f} MB, into {target}")
                target.mkdir(parents=True, exist_ok=True)
                parts[file] = target / f".{file.name}.{uuid.uuid4().hex[:8]}.part"
                _copy(file, answer, parts[file])
        for file, part in parts.items():
            part.replace(target / file.name)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        where = str(target) if folder else f"{target}, or a folder of yours named by --data_dir"
        raise Unavailable(how_to_get(name, files, lacking, where, reason), reason) from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return target


def _answer(url: str) -> Any:
    """An open answer, whose reads give up on a silent server.

    In a thread, because a name's look-up has no time limit of its own and cannot be interrupted.
    """
    lock, found, abandoned = threading.Lock(), [], threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "dropjax"})
        try:
            result = urllib.request.urlopen(request, timeout=STALL_SECONDS)
        except Exception as error:
            result = error
            if isinstance(error, urllib.error.HTTPError):
                error.close()
        with lock:
            found.append(result)
            if abandoned.is_set() and not isinstance(result, Exception):
                result.close()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    with lock:
        abandoned.set()
        if not found:
            host = urllib.parse.urlsplit(url).hostname
            raise TimeoutError(f"{host}: no answer within {ANSWER_SECONDS:g} s")
    (result,) = found
    if isinstance(result, Exception):
        what = result.reason if type(result) is urllib.error.URLError else result
        raise OSError(f"{urllib.parse.urlsplit(url).hostname}: {what}") from result
    return result


def _copy(file: File, answer: Any, path: Path) -> None:
    from tqdm import tqdm

    digest, size = hashlib.sha256(), 0
    with (
        path.open("wb") as out,
        tqdm(total=file.size, desc=file.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while size <= file.size:
            try:
                piece = answer.read1(_PIECE)
            except TimeoutError as error:
                stalled = f"{file.url} sent nothing for {STALL_SECONDS:g} s after {size} bytes"
                raise TimeoutError(stalled) from error
            if not piece:
                break
            out.write(piece)
            digest.update(piece)
            size += len(piece)
            bar.update(len(piece))
    if digest.hexdigest() != file.sha256:
        raise OSError(f"{file.url} sent {size} bytes that are not the original file's {file.size}")
