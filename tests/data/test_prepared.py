import json
import os
import re
import sys

import numpy as np
import pytest

from dropjax.data import DataError, load, prepared

SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def rows(x, y):
    return sorted(i.tobytes() + bytes([j]) for i, j in zip(x, y, strict=True))


def same(dataset, images, labels):
    """Equal but for the order, in which tensorflow-datasets writes as it likes."""
    return rows(dataset.x_train, dataset.y_train) == rows(images["train"], labels["train"]) and (
        rows(dataset.x_test, dataset.y_test) == rows(images["test"], labels["test"])
    )


@pytest.fixture
def mnist(tmp_path, prepare, pictures):
    """A folder of prepared data sets, and what is in its MNIST."""
    images, labels = pictures(SHAPES["mnist"])
    prepare(tmp_path / "tfds", "mnist", images, labels)
    return tmp_path / "tfds", images, labels


@pytest.mark.parametrize("name", SHAPES)
def test_what_tensorflow_datasets_wrote_is_read_without_tensorflow(
    tmp_path, prepare, pictures, name
):
    images, labels = pictures(SHAPES[name])
    prepare(tmp_path, name, images, labels)
    said = []
    dataset = load(name, tmp_path, say=said.append)
    assert same(dataset, images, labels)
    assert dataset.x_train.shape == (30, *SHAPES[name]) and dataset.x_train.dtype == np.uint8
    assert dataset.y_train.shape == (30,) and dataset.y_train.dtype == np.int32
    assert (dataset.name, dataset.task) == (name, "classification")
    assert (dataset.outputs, dataset.scale) == (10, 255)
    (line,) = said
    assert line.startswith(f"{name}: only 30 training and 12 test examples of")
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("below", [".", "mnist", "mnist/3.0.1"])
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_data_dir_may_be_the_folder_of_sets_of_the_set_or_of_its_version(mnist, below, name):
    folder, images, labels = mnist
    assert same(load(name, folder / below, say=lambda line: None), images, labels)


@pytest.mark.parametrize("where", ["variable", "home"])
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_the_places_of_tensorflow_datasets_are_looked_in(mnist, monkeypatch, own_home, where, name):
    folder, images, labels = mnist
    if where == "variable":
        monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    else:
        folder = folder.rename(own_home / "tensorflow_datasets")
    said = []
    assert same(load(name, None, say=said.append), images, labels)
    assert said[0] == f"mnist: as prepared in {folder / 'mnist' / '3.0.1'}"


def test_the_newest_version_is_taken_by_number(mnist, prepare, pictures):
    folder, images, labels = mnist
    newest = {split: 255 - array for split, array in images.items()}
    prepare(folder, "mnist", newest, labels, version="10.0.0")
    assert prepared.find("mnist", folder) == folder / "mnist" / "10.0.0"
    assert same(load("mnist", folder, say=lambda line: None), newest, labels)


def test_another_set_and_an_unfinished_one_are_not_taken(mnist):
    folder, _, _ = mnist
    for place in (folder, folder / "mnist" / "3.0.1"):
        assert prepared.find("fashion_mnist", place) is None
    (folder / "mnist" / "3.0.1").rename(folder / "mnist" / "incomplete.AB12_3.0.1")
    assert prepared.find("mnist", folder) is None


def as_tfrecord(folder):
    info = folder / "mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_tfrecord_in_data_dir_is_an_error_that_says_what_to_do(mnist, name):
    folder, _, _ = mnist
    as_tfrecord(folder)
    with pytest.raises(DataError, match=r"needs TensorFlow.*file_format='array_record'"):
        load(name, folder, say=pytest.fail)


def test_tfrecord_elsewhere_is_passed_over_aloud(mnist, monkeypatch):
    folder, _, _ = mnist
    as_tfrecord(folder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    said = []
    assert load("auto", None, say=said.append).name == "digits"
    passed, fallen = said
    assert "not taken" in passed and "needs TensorFlow" in passed
    assert fallen.startswith("NOT MNIST: ")


def test_array_record_is_preferred_to_a_newer_tfrecord(mnist, prepare):
    folder, images, labels = mnist
    prepare(folder, "mnist", images, labels, version="3.0.0")
    as_tfrecord(folder)
    assert prepared.find("mnist", folder) == folder / "mnist" / "3.0.0"


@pytest.mark.parametrize("shape", [(28, 27, 1), (28, 28, 3)])
def test_images_of_another_shape_are_refused(tmp_path, prepare, pictures, shape):
    images, labels = pictures(shape)
    prepare(tmp_path, "mnist", images, labels)
    with pytest.raises(DataError, match=re.escape(str(shape)) + r".*not uint8 \(28, 28, 1\)"):
        load("mnist", tmp_path, say=pytest.fail)


@pytest.mark.parametrize("count", [0, 31])
def test_counts_are_checked_against_what_was_written(mnist, count):
    folder, _, _ = mnist
    info = folder / "mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(info.read_text().replace('"30"', f'"{count}"'))
    with pytest.raises(DataError, match="cannot be read as mnist"):
        load("mnist", folder, say=pytest.fail)


@pytest.mark.parametrize("damage", ["missing", "short", "flipped", "empty"])
def test_a_damaged_file_is_refused_and_no_other_set_taken(mnist, damage):
    folder, _, _ = mnist
    (path,) = (folder / "mnist" / "3.0.1").glob("mnist-train.array_record*")
    data = bytearray(path.read_bytes())
    if damage == "missing":
        os.remove(path)
    elif damage == "flipped":
        data[10_000] ^= 1  # an example's; far behind them is padding
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "short" else b"")
    with pytest.raises(DataError, match="cannot be read as mnist by tensorflow-datasets"):
        load("auto", folder, say=pytest.fail)
