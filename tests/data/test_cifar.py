import gzip
import hashlib
import importlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dropjax.data import DataError, cifar, download, load

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
SUBFOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"


@pytest.fixture(scope="session")
def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Seven training and four test images, (32, 32, 3), by batch; the batches differ in length."""
    rng = np.random.default_rng(0)
    counts = dict(zip([*TRAIN, "test_batch"], (2, 1, 1, 1, 2, 4), strict=True))
    return {
        batch: (rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, 10, n))
        for batch, n in counts.items()
    }


def binary(images, labels) -> bytes:
    """As the data's own page describes it: the label, the red plane by rows, green, blue."""
    data = bytearray()
    for image, label in zip(images, labels, strict=True):
        data.append(label)
        for channel in range(3):
            for row in range(32):
                data += bytes(image[row, :, channel].tolist())
    return bytes(data)


def archive(batches, prefix=SUBFOLDER) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for batch, (images, labels) in batches.items():
            data = binary(images, labels)
            info = tarfile.TarInfo(f"{prefix}/{batch}.bin")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def put(folder: Path, batch: str, data: bytes, kind: str) -> Path:
    path = folder / (f"{batch}.bin" if kind == "bin" else f"{batch}.bin.gz")
    path.write_bytes(data if kind == "bin" else gzip.compress(data))
    return path


def write(folder: Path, batches, kind: str) -> None:
    for batch, part in batches.items():
        name = f"{batch}_first{len(part[1])}" if kind == "named" else batch
        put(folder, name, binary(*part), kind)


def refused(folder: Path, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load("cifar10", folder, say=pytest.fail)


def is_all(dataset, batches) -> bool:
    images, labels = (
        np.concatenate([batches[b][i] for b in TRAIN if b in batches]) for i in (0, 1)
    )
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.uint8
    assert dataset.y_train.dtype == dataset.y_test.dtype == np.int32
    assert (dataset.name, dataset.task, dataset.outputs) == ("cifar10", "classification", 10)
    assert (dataset.shift, dataset.scale) == (0, 255)
    return (
        np.array_equal(dataset.x_train, images)
        and np.array_equal(dataset.y_train, labels)
        and np.array_equal(dataset.x_test, batches["test_batch"][0])
        and np.array_equal(dataset.y_test, batches["test_batch"][1])
    )


@pytest.mark.parametrize("kind", ["bin", "gz", "named"])
@pytest.mark.parametrize("below", [".", SUBFOLDER])
def test_what_was_written_is_read(tmp_path, batches, kind, below):
    place = tmp_path / below
    place.mkdir(exist_ok=True)
    write(place, batches, kind)
    (place / "batches.meta.txt").write_text("airplane")
    (place / "readme.html").write_text("")
    said = []
    assert is_all(load("cifar10", tmp_path, say=said.append), batches)
    assert said == [
        f"cifar10: not checked, as they are no whole batches: {', '.join(batches)}.",
        "cifar10: only 7 training and 4 test examples of 50,000 and 10,000.",
    ]


@pytest.mark.parametrize("left", [["data_batch_1"], ["data_batch_2", "data_batch_5"]])
def test_some_of_the_training_batches_will_do(tmp_path, batches, left):
    some = {batch: batches[batch] for batch in [*left, "test_batch"]}
    write(tmp_path, some, "bin")
    assert is_all(load("cifar10", tmp_path, say=lambda line: None), some)


def test_whole_batches_are_checked(tmp_path, monkeypatch):
    """Nothing is said of all 50,000; and what is no original, to a bit, is refused."""
    monkeypatch.setattr(cifar, "_WHOLE", 3073 * 20)  # seconds less than all 10,000
    rng, hashes = np.random.default_rng(0), {}
    for batch in [*TRAIN, "test_batch"]:
        data = binary(rng.integers(0, 256, (20, 32, 32, 3), np.uint8), rng.integers(0, 10, 20))
        hashes[batch] = hashlib.sha1(data).hexdigest()
        (tmp_path / f"{batch}.bin").write_bytes(data)
    refused(tmp_path, r"data_batch_1.bin is damaged, or no original: its SHA-1")
    monkeypatch.setattr(cifar, "_SHA1", hashes)
    sizes = importlib.import_module("dropjax.data.load")._SIZES
    monkeypatch.setitem(sizes, "cifar10", (100, 20))
    assert load("cifar10", tmp_path, say=pytest.fail).x_train.shape == (100, 32, 32, 3)
    (tmp_path / "test_batch.bin").unlink()
    (tmp_path / "test_batch.bin.gz").write_bytes(gzip.compress(data[:-1] + b"\0"))
    refused(tmp_path, r"test_batch.bin.gz is damaged, or no original")


@pytest.mark.parametrize("kind", ["bin", "gz"])
def test_no_more_is_read_than_a_batch_has(tmp_path, monkeypatch, batches, kind):
    """A small .gz can have gigabytes in it."""
    write(tmp_path, batches, kind)
    path = put(tmp_path, "data_batch_2", bytes(3073 * 20), kind)
    monkeypatch.setattr(cifar, "_WHOLE", 3073 * 10)
    read: list[int] = []

    class Counted(gzip.GzipFile):
        def read(self, size=-1):
            raw = super().read(size)
            read.append(len(raw))
            return raw

    monkeypatch.setattr(gzip, "open", Counted)
    refused(tmp_path, rf"{path.name} has more than 30730 bytes, the size")
    # One byte more tells that there are more.
    assert max(read, default=0) <= 3073 * 10 + 1 and bool(read) == (kind == "gz")


def register(monkeypatch, data: bytes) -> None:
    file = download.File(ARCHIVE, "http://x/", len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(download, "registered", lambda name: [file])


@pytest.mark.parametrize("where", ["folder", "cache"])
def test_the_archive_is_read_and_nothing_unpacked(tmp_path, monkeypatch, own_home, batches, where):
    data = archive(batches)
    register(monkeypatch, data)
    place = tmp_path if where == "folder" else own_home / ".cache/dropjax/data/cifar10"
    place.mkdir(parents=True, exist_ok=True)
    (place / ARCHIVE).write_bytes(data)
    folder = tmp_path if where == "folder" else None
    assert is_all(load("cifar10", folder, say=lambda line: None), batches)
    assert [path.name for path in place.iterdir()] == [ARCHIVE]


def test_a_damaged_archive_is_refused(tmp_path, monkeypatch, batches):
    data = archive(batches)
    register(monkeypatch, data)
    (tmp_path / ARCHIVE).write_bytes(data[:-1] + b"x")
    refused(tmp_path, rf"{ARCHIVE} is damaged.*Replace it")


@pytest.mark.parametrize("lacking", ["test_batch", "data_batch"])
def test_without_either_part_it_is_an_error(tmp_path, batches, lacking):
    some = {batch: part for batch, part in batches.items() if not batch.startswith(lacking)}
    write(tmp_path, some, "bin")
    refused(tmp_path, rf"not whole: .*{lacking}\w*\.bin.* missing")


@pytest.mark.parametrize("batch", ["data_batch_3", "test_batch"])
def test_a_batch_given_twice_is_an_error(tmp_path, batches, batch):
    write(tmp_path, batches, "bin")
    (tmp_path / f"{batch}_first1.bin").write_bytes(binary(*batches[batch])[:3073])
    refused(tmp_path, rf"{batch}.bin and .*{batch}_first1.bin are the same")


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b""])
@pytest.mark.parametrize("kind", ["bin", "gz"])
def test_half_a_record_is_refused(tmp_path, batches, change, kind):
    write(tmp_path, batches, kind)
    data = change(binary(*batches["data_batch_5"]))
    put(tmp_path, "data_batch_5", data, kind)
    refused(tmp_path, rf"data_batch_5.bin.* has {len(data)} bytes, not a mult")


@pytest.mark.parametrize("damage", ["short", "flipped", "block", "none"])
def test_a_damaged_gz_is_refused(tmp_path, batches, damage):
    write(tmp_path, batches, "gz")
    path = tmp_path / "test_batch.bin.gz"
    data = bytearray(path.read_bytes())
    # The tenth byte of a file without a name begins the first block.
    data[{"flipped": len(data) // 2, "block": 10, "none": 0}.get(damage, -1)] ^= 255
    path.write_bytes(data[:-9] if damage == "short" else data)
    refused(tmp_path, r"test_batch.bin.gz is damaged or cut short")


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_that_there_is_not_is_refused(tmp_path, batches, label):
    write(tmp_path, batches, "bin")
    images, labels = batches["data_batch_1"]
    (tmp_path / "data_batch_1.bin").write_bytes(binary(images, [*labels[:-1], label]))
    refused(tmp_path, rf"data_batch_1.bin has label {label}, not in 0 to 9")


def test_presence(tmp_path, batches):
    (tmp_path / "data_batch_notes.txt").write_text("")
    assert not cifar.present(tmp_path)
    (tmp_path / ARCHIVE).write_bytes(b"")
    assert cifar.present(tmp_path)
