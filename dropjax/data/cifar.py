"""CIFAR-10 from its binary batches, or from the archive of them.

Source: A. Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dropjax.data import download
from dropjax.data.dataset import DataError, Dataset

FOLDER = "cifar-10-batches-bin"
# The SHA-1 of the original's batches: what other libraries state of them. No sha256 is published.
_SHA1 = {
    "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
}
_BATCHES = tuple(_SHA1)
_TRAIN = _BATCHES[:-1]
_FILE = re.compile(rf"({'|'.join(_BATCHES)}).*\.bin(\.gz)?")
_RECORD = 1 + 3 * 32 * 32
_WHOLE = 10_000 * _RECORD


def present(folder: Path) -> bool:
    """Whether a folder has any of the batches, or the archive."""
    archive = not download.missing(download.registered("cifar10"), folder)
    return archive or any(_files(place) for place in (folder, folder / FOLDER))


def cifar10(folder: Path, say: Callable[[str], None]) -> Dataset:
    """CIFAR-10 from a folder.

    The archive is checked by sha256, a whole batch beside it by SHA-1; a shorter one is not known,
    and cannot be checked.

    Args:
      folder: with `data_batch_*.bin` and `test_batch*.bin`, each perhaps with `.gz` and a shorter
        one of whole records; or with a folder `cifar-10-batches-bin` of them; or with the
        original `cifar-10-binary.tar.gz`.
      say: is told which batches are not checked.

    Raises:
      DataError: a batch is missing, given twice, damaged, or a whole one but not the original's.
    """
    files = _files(folder) or _files(folder / FOLDER)
    batches = _read(files) if files else _unpack(folder)
    train = [batches[batch] for batch in _TRAIN if batch in batches]
    if not train or "test_batch" not in batches:
        lacking = "data_batch_1.bin ... data_batch_5.bin" if not train else "test_batch.bin"
        raise DataError(
            f"cifar10 is not whole: {folder} has {', '.join(batches) or 'no batch'}, but "
            f"{lacking} missing. Put the original's six files there, or its archive."
        )
    unknown = [batch for batch in files if len(batches[batch][1]) * _RECORD < _WHOLE]
    if unknown:
        say(f"cifar10: not checked, as they are no whole batches: {', '.join(unknown)}.")
    x_train, y_train = (np.concatenate(parts) for parts in zip(*train, strict=True))
    x_test, y_test = batches["test_batch"]
    return Dataset("cifar10", x_train, y_train, x_test, y_test, task="classification", outputs=10)


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files in a folder, by batch."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := _FILE.fullmatch(path.name)) and path.is_file():
            found.setdefault(match[1], []).append(path)
    return found


def _read(files: dict[str, list[Path]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    batches = {}
    for batch, paths in files.items():
        if len(paths) > 1:
            raise DataError(
                f"{' and '.join(map(str, paths))} are the same batch. Leave one of them there."
            )
        (path,) = paths
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                raw = file.read(_WHOLE + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged or cut short: {error}. Replace it.") from error
        if len(raw) > _WHOLE:
            raise DataError(
                f"{path} has more than {_WHOLE} bytes, the size of a batch: it is no batch of "
                "CIFAR-10. Replace it."
            )
        batches[batch] = _decode(raw, str(path))
        found = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        if len(raw) == _WHOLE and found != _SHA1[batch]:
            raise DataError(
                f"{path} is damaged, or no original: its SHA-1 is {found}, the original batch's "
                f"{_SHA1[batch]}. Replace it."
            )
    return batches


def _unpack(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    (file,) = download.registered("cifar10")
    batches = {}
    with tarfile.open(fileobj=io.BytesIO(file.read(folder)), mode="r:gz") as archive:
        for batch in _BATCHES:
            member = archive.extractfile(f"{FOLDER}/{batch}.bin")
            assert member is not None
            with member:
                batches[batch] = _decode(member.read(), f"{folder / file.name}: {batch}.bin")
    return batches


def _decode(raw: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not raw or len(raw) % _RECORD:
        raise DataError(
            f"{where} has {len(raw)} bytes, not a multiple of a record's {_RECORD}: it is cut "
            "short or no batch of CIFAR-10. Replace it."
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int32)
    if labels.max() > 9:
        raise DataError(
            f"{where} has label {labels.max()}, not in 0 to 9: it is no batch of CIFAR-10. "
            "Replace it."
        )
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels
