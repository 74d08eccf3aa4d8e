import numpy as np
import pytest
from sklearn.datasets import load_digits

from dropjax.data import NAMES, DataError, Dataset, download, idx, load

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def rows(x: np.ndarray, y: np.ndarray) -> list[bytes]:
    return sorted(
        image.astype(np.uint8).tobytes() + bytes([label]) for image, label in zip(x, y, strict=True)
    )


def test_digits_are_all_of_scikit_learns_each_once_in_a_fixed_split_by_class():
    digits = load("digits", None, say=pytest.fail)
    assert (digits.name, digits.task, digits.outputs) == ("digits", "classification", 10)
    assert (digits.shift, digits.scale) == (0, 16)
    for x, y, size in (
        (digits.x_train, digits.y_train, 1437),
        (digits.x_test, digits.y_test, 360),
    ):
        assert x.shape == (size, 8, 8, 1) and x.dtype == np.uint8
        assert y.shape == (size,) and y.dtype == np.int32
        assert (x.min(), x.max()) == (0, 16)
        assert set(y.tolist()) == set(range(10))
    assert len(digits.x_validation) == len(digits.y_validation) == 0
    both = np.concatenate([digits.x_train, digits.x_test])
    labels = np.concatenate([digits.y_train, digits.y_test])
    assert rows(both, labels) == rows(*load_digits(return_X_y=True))
    train, test = (np.bincount(y, minlength=10) for y in (digits.y_train, digits.y_test))
    assert np.all(np.abs(test - (train + test) * 360 / 1797) < 1)
    assert digits.sha256() == "eab14b47478ffd2949d75e6fb6dc92205e7f925104d739667ddf8ca181da25fc"


@pytest.mark.parametrize("folder", ["none", "empty", "of other files"])
def test_auto_falls_back_with_one_loud_line(tmp_path, folder):
    said = []
    if folder == "of other files":
        (tmp_path / "photo.gz").write_bytes(b"")
    dataset = load("auto", None if folder == "none" else tmp_path, say=said.append)
    assert dataset.sha256() == load("digits", None, say=pytest.fail).sha256()
    (line,) = said
    assert line.startswith("NOT MNIST") and "\n" not in line
    assert ("--data_dir" if folder == "none" else str(tmp_path)) in line


@pytest.mark.parametrize("there", [[IMAGES], [TEST_LABELS], [IMAGES, LABELS, TEST_IMAGES]])
def test_auto_with_some_of_the_files_is_an_error(tmp_path, there):
    for name in there:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load("auto", tmp_path, say=pytest.fail)
    first_line = str(caught.value).splitlines()[0]
    for name in (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS):
        assert (name in first_line) == (name not in there)


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_all_four_files_are_read_as_mnist(tmp_path, monkeypatch, name):
    for file in (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS):
        (tmp_path / file).write_bytes(b"")
    asked = []
    train, test = np.zeros(60000, np.uint8), np.zeros(10000, np.uint8)
    found = Dataset("mnist", train, train, test, test, task="classification", outputs=10)
    monkeypatch.setattr(idx, "idx", lambda *arguments: asked.append(arguments) or found)
    assert load(name, tmp_path, say=pytest.fail) is found
    assert asked == [("mnist", tmp_path)]


@pytest.mark.parametrize("name", ["MNIST", "minst", ""])
def test_an_unknown_name_is_an_error_with_the_list(name):
    with pytest.raises(DataError) as caught:
        load(name, None, say=pytest.fail)
    assert repr(name) in str(caught.value) and ", ".join(NAMES) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_data_dir_that_is_no_folder_is_an_error(tmp_path, name, kind):
    place = tmp_path / "place"
    if kind == "file":
        place.write_bytes(b"")
    with pytest.raises(DataError, match="place is not a folder"):
        load(name, place, say=pytest.fail)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("given", [False, True])
def test_a_named_set_that_is_missing_is_never_replaced(tmp_path, name, given):
    with pytest.raises(DataError) as caught:
        load(name, tmp_path if given else None, say=pytest.fail)
    message = str(caught.value)
    assert name in message and (str(tmp_path) if given else "--data_dir") in message
    for file in download.registered(name):
        assert file.name in message.splitlines()[0]
        assert f"{file.name}  sha256 {file.sha256}" in message and file.url in message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_task_that_a_built_in_set_is_not_for_is_an_error(name, task):
    with pytest.raises(DataError, match=f"task={task}: {name} is for classification"):
        load(name, None, say=pytest.fail, task=task)


def test_digits_take_no_folder_and_one_task(tmp_path):
    assert load("digits", None, say=pytest.fail, task="classification").task == "classification"
    with pytest.raises(DataError, match="auto, classification, binary, regression; got 'ranking'"):
        load("digits", None, say=pytest.fail, task="ranking")
    with pytest.raises(DataError, match="data_dir would do nothing"):
        load("digits", tmp_path, say=pytest.fail)
