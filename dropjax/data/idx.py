"""MNIST and Fashion-MNIST from their four original files, checked to the bit.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"; H. Xiao,
K. Rasul, R. Vollgraf 2017, "Fashion-MNIST" (arXiv 1708.07747).
"""

import gzip
import struct
from pathlib import Path

import numpy as np

from dropjax.data import download
from dropjax.data.dataset import DataError, Dataset

_PARTS = {
    "x_train": ("train-images-idx3-ubyte.gz", (60000, 28, 28)),
    "y_train": ("train-labels-idx1-ubyte.gz", (60000,)),
    "x_test": ("t10k-images-idx3-ubyte.gz", (10000, 28, 28)),
    "y_test": ("t10k-labels-idx1-ubyte.gz", (10000,)),
}


def present(folder: Path) -> bool:
    """Whether any of the four files is in a folder."""
    return any((folder / file).is_file() for file, _ in _PARTS.values())


def idx(name: str, folder: Path) -> Dataset:
    """MNIST or Fashion-MNIST from a folder with the four `.gz` files.

    Args:
      name: "mnist" or "fashion_mnist".
      folder: where the files are.

    Raises:
      DataError: a file is missing, or is not the original to the bit; the message names the files,
        where to put them, and their sha256.
    """
    files = download.registered(name)
    if lacking := download.missing(files, folder):
        reason = "with the others there, nothing is downloaded"
        raise DataError(download.how_to_get(name, files, lacking, str(folder), reason))
    by_name = {file.name: file for file in files}
    arrays = {
        part: _array(by_name[file].read(folder), shape, folder / file)
        for part, (file, shape) in _PARTS.items()
    }
    return Dataset(
        name,
        x_train=arrays["x_train"][..., None],
        y_train=arrays["y_train"].astype(np.int32),
        x_test=arrays["x_test"][..., None],
        y_test=arrays["y_test"].astype(np.int32),
        task="classification",
        outputs=10,
    )


def _array(data: bytes, shape: tuple[int, ...], path: Path) -> np.ndarray:
    raw = gzip.decompress(data)
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    if not raw.startswith(header):
        raise DataError(f"{path} has no idx header for {shape}")
    return np.frombuffer(raw, np.uint8, offset=len(header)).reshape(shape)
