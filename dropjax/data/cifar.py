"""CIFAR-10 from its binary batches, or from the archive of them.

Source: A. Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

import gzip
import io
import re
import tarfile
import zlib
from pathlib import Path

import numpy as np

from dropjax.data import download
from dropjax.data.dataset import DataError, Dataset

FOLDER = "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_BATCHES = (*_TRAIN, "test_batch")
_FILE = re.compile(rf"({'|'.join(_BATCHES)}).*\.bin(\.gz)?")
_RECORD = 1 + 3 * 32 * 32


def present(folder: Path) -> bool:
    """Whether a folder has any of the batches, or the archive."""
    archive = not download.missing(download.registered("cifar10"), folder)
    return archive or any(_files(place) for place in (folder, folder / FOLDER))


def cifar10(folder: Path) -> Dataset:
    """CIFAR-10 from a folder.

    Args:
      folder: with `data_batch_*.bin` and `test_batch*.bin`, each perhaps with `.gz` and a shorter
        one of whole records; or with a folder `cifar-10-batches-bin` of them; or with the
        original `cifar-10-binary.tar.gz`.

    Raises:
      DataError: a batch is missing, given twice or damaged.
    """
    batches = {}
    for place in (folder, folder / FOLDER):
        if files := _files(place):
            batches = _read(files)
            break
    else:
        batches = _unpack(folder)
    train = [batches[batch] for batch in _TRAIN if batch in batches]
    if not train or "test_batch" not in batches:
        lacking = "data_batch_1.bin ... data_batch_5.bin" if not train else "test_batch.bin"
        raise DataError(
            f"cifar10 is not whole: {folder} has {', '.join(batches) or 'no batch'}, but "
            f"{lacking} missing. Put the original's six files there, or its archive."
        )
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
            data = path.read_bytes()
            raw = gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged or cut short: {error}. Replace it.") from error
        batches[batch] = _decode(raw, str(path))
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
