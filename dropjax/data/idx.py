"""MNIST and Fashion-MNIST from their four original files, checked to the bit.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"; H. Xiao,
K. Rasul, R. Vollgraf 2017, "Fashion-MNIST" (arXiv 1708.07747). The checksums are those that
tensorflow-datasets registers.
"""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

from dropjax.data.dataset import DataError, Dataset

_PARTS = {
    "x_train": ("train-images-idx3-ubyte.gz", (60000, 28, 28)),
    "y_train": ("train-labels-idx1-ubyte.gz", (60000,)),
    "x_test": ("t10k-images-idx3-ubyte.gz", (10000, 28, 28)),
    "y_test": ("t10k-labels-idx1-ubyte.gz", (10000,)),
}
NAMES = ("mnist", "fashion_mnist")


def checksums(name: str) -> dict[str, str]:
    """The sha256 of each of the four files, by file name, as tensorflow-datasets registers them."""
    from importlib.util import find_spec

    # Found, not imported: the package costs a second, and its list is a text file.
    spec = find_spec("tensorflow_datasets")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("tensorflow-datasets is not installed; its checksums are needed")
    root = Path(spec.submodule_search_locations[0])
    lines = (root / "url_checksums" / f"{name}.txt").read_text().splitlines()
    sums = {file: sha256 for _, _, sha256, file in (line.split("\t") for line in lines)}
    return {file: sums[file] for file, _ in _PARTS.values()}


def present(folder: Path) -> list[str]:
    """Which of the four files are in a folder."""
    return [file for file, _ in _PARTS.values() if (folder / file).is_file()]


def idx(name: str, folder: Path | None) -> Dataset:
    """MNIST or Fashion-MNIST from a folder with the four `.gz` files.

    Args:
      name: "mnist" or "fashion_mnist".
      folder: where the files are.

    Raises:
      DataError: a file is missing, or is not the original to the bit; the message names the files,
        where to put them, and their sha256.
    """
    sums = checksums(name)
    missing = [f for f in sums if folder is None or not (folder / f).is_file()]
    if missing:
        where = "a folder of yours and name it by --data_dir" if folder is None else str(folder)
        listing = "".join(f"\n  {file}  sha256 {sha256}" for file, sha256 in sums.items())
        raise DataError(
            f"{name} is not there: {', '.join(missing)} missing. Put the four original files into "
            f"{where}:{listing}"
        )
    assert folder is not None
    arrays = {
        part: _read(folder / file, sums[file], shape, name)
        for part, (file, shape) in _PARTS.items()
    }
    return Dataset(
        name,
        x_train=arrays["x_train"][..., None],
        y_train=arrays["y_train"].astype(np.int32),
        x_test=arrays["x_test"][..., None],
        y_test=arrays["y_test"].astype(np.int32),
        classes=10,
        max_value=255,
    )


def _read(path: Path, sha256: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is damaged, cut short, or not {name}'s: its sha256 is {found}, the original "
            f"file's {sha256}. Replace it."
        )
    raw = gzip.decompress(data)
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    if not raw.startswith(header):
        raise DataError(f"{path} has no idx header for {shape}")
    return np.frombuffer(raw, np.uint8, offset=len(header)).reshape(shape)
