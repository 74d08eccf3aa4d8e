import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dropjax.data import DataError, download, idx, load

# The names of the four files, and the sha256 of MNIST's.
HASHES = """
train-images-idx3-ubyte.gz 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609
train-labels-idx1-ubyte.gz 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c
t10k-images-idx3-ubyte.gz 8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6
t10k-labels-idx1-ubyte.gz f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6
"""
KNOWN = dict(line.split() for line in HASHES.strip().splitlines())
PARTS = dict(zip(("x_train", "y_train", "x_test", "y_test"), KNOWN, strict=True))
SHAPES = {"x_train": (30, 5, 4), "y_train": (30,), "x_test": (12, 5, 4), "y_test": (12,)}


def packed(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        part: rng.integers(0, 256 if part.startswith("x") else 10, shape, np.uint8)
        for part, shape in SHAPES.items()
    }


@pytest.fixture
def folder(tmp_path, monkeypatch, arrays) -> Path:
    """Four small files that pass for the original ones."""
    files = []
    for part, file in PARTS.items():
        data = packed(arrays[part])
        (tmp_path / file).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        files.append(download.File(file, f"http://127.0.0.1:9/{file}", len(data), sha256))
    monkeypatch.setattr(idx, "_PARTS", {p: (file, SHAPES[p]) for p, file in PARTS.items()})
    monkeypatch.setattr(download, "registered", lambda name: list(files))
    return tmp_path


def test_of_a_file_that_is_no_original_no_more_is_held_than_the_original_has(folder):
    with (folder / PARTS["x_train"]).open("ab") as file:
        file.truncate(10**8)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"train-images.* is damaged.*sha256"):
        idx.idx("mnist", folder)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_values_and_labels_are_what_was_written(folder, arrays, name):
    dataset = idx.idx(name, folder)
    assert (dataset.name, dataset.outputs, dataset.scale, dataset.shift) == (name, 10, 255, 0)
    assert dataset.task == "classification"
    for part, written in arrays.items():
        read = getattr(dataset, part)
        if part.startswith("x"):
            assert read.dtype == np.uint8 and read.shape == (*written.shape, 1)
            assert np.array_equal(read[..., 0], written)
        else:
            assert read.dtype == np.int32 and read.shape == written.shape
            assert np.array_equal(read, written)


def refused(folder: Path, file: str, data: bytes) -> str:
    (folder / file).write_bytes(data)
    with pytest.raises(DataError) as caught:
        load("mnist", folder, say=lambda line: pytest.fail(line))
    assert str(folder / file) in str(caught.value)
    assert hashlib.sha256(data).hexdigest() in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("part", PARTS)
def test_a_file_that_is_no_original_is_refused(folder, arrays, part):
    file = PARTS[part]
    data = (folder / file).read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 1):
        assert "cut short" in refused(folder, file, data[:size])
    for at in range(0, len(data), max(1, len(data) // 16)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        assert "damaged" in refused(folder, file, bytes(flipped))
    other = arrays[part].copy()
    other.flat[0] ^= 1
    refused(folder, file, packed(other))
    refused(folder, file, data + b"\0")
    # The same content, compressed otherwise.
    refused(folder, file, gzip.compress(gzip.decompress(data), compresslevel=1, mtime=1))
    if part == "x_train":
        refused(folder, file, (folder / PARTS["x_test"]).read_bytes())


@pytest.mark.parametrize("part", PARTS)
def test_an_array_of_another_shape_is_refused(folder, monkeypatch, part):
    shapes = SHAPES | {part: (SHAPES[part][0] + 1, *SHAPES[part][1:])}
    monkeypatch.setattr(idx, "_PARTS", {p: (file, shapes[p]) for p, file in PARTS.items()})
    with pytest.raises(DataError, match="no idx header"):
        idx.idx("mnist", folder)


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_files_in_the_cache_are_used_without_a_network(folder, arrays, own_home, tmp_path, name):
    cache = own_home / ".cache" / "dropjax" / "data" / "mnist"
    cache.parent.mkdir(parents=True)
    folder.rename(cache)
    folder.mkdir()
    for given in (None, folder):
        dataset = load(name, given, say=lambda line: None)
        assert dataset.name == "mnist"
        assert np.array_equal(dataset.x_test[..., 0], arrays["x_test"])
    (cache / PARTS["y_test"]).write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"t10k-labels.* is damaged"):
        load(name, None, say=pytest.fail)


def test_checksums_are_the_known_ones_and_fashion_mnist_has_its_own():
    mnist, fashion = (
        {file.name: file.sha256 for file in download.registered(name)}
        for name in ("mnist", "fashion_mnist")
    )
    assert mnist == KNOWN and set(fashion) == set(KNOWN)
    assert not set(fashion.values()) & set(KNOWN.values())
    assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in fashion.values())
