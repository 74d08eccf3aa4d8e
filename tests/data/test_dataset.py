import dataclasses

import numpy as np
import pytest

from dropjax.data import DataError, Dataset, load
from dropjax.data.dataset import stratified_split

PARTS = ("x_train", "y_train", "x_validation", "y_validation", "x_test", "y_test")


@pytest.fixture
def dataset() -> Dataset:
    """100 training examples of 3 unequal classes, each image with a number of its own."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    return Dataset(
        "toy",
        np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1),
        labels.astype(np.int32),
        np.arange(100, 120, dtype=np.uint8).reshape(20, 1, 1, 1),
        np.zeros(20, np.int32),
        classes=3,
        max_value=255,
    )


@pytest.mark.parametrize("size", [3, 10, 50, 97])
def test_validation_is_cut_from_the_training_data(dataset, size):
    cut = dataset.with_validation(size)
    assert len(cut.x_validation) == len(cut.y_validation) == size
    assert len(cut.x_train) == len(cut.y_train) == 100 - size
    numbers = np.concatenate([cut.x_train.ravel(), cut.x_validation.ravel()])
    assert sorted(numbers.tolist()) == list(range(100))  # all of them, none twice
    for x, y in ((cut.x_train, cut.y_train), (cut.x_validation, cut.y_validation)):
        assert x.dtype == np.uint8 and x.shape[1:] == (1, 1, 1)
        assert np.array_equal(y, dataset.y_train[x.ravel()])  # with its own label
        assert np.all(np.diff(x.ravel()) > 0)  # in the order they had
    assert cut.x_test is dataset.x_test and cut.y_test is dataset.y_test


@pytest.mark.parametrize("size", [10, 50])
def test_validation_is_stratified(dataset, size):
    counts = np.bincount(dataset.with_validation(size).y_validation, minlength=3)
    assert counts.tolist() == [60 * size // 100, 30 * size // 100, 10 * size // 100]


def test_smallest_and_largest_validation_leave_no_class_out():
    digits = load("digits", None, say=pytest.fail)
    assert np.bincount(digits.with_validation(10).y_validation).tolist() == [1] * 10
    assert np.bincount(digits.with_validation(1427).y_train).tolist() == [1] * 10


def test_validation_is_the_same_every_time(dataset):
    first, second = (dataset.with_validation(20) for _ in range(2))
    np.random.seed(7)
    third = dataset.with_validation(20)
    assert first.sha256() == second.sha256() == third.sha256()
    digits = load("digits", None, say=pytest.fail).with_validation(144)
    assert digits.sha256() == "58618fc6ec4ba0675781be25550301def897b3e033d0a3be1ba979d7c3cc1719"


def test_no_validation_changes_nothing(dataset):
    assert dataset.with_validation(0) is dataset
    assert len(dataset.x_validation) == len(dataset.y_validation) == 0


@pytest.mark.parametrize("size", [-1, 1, 2, 98, 100, 1000])
def test_a_validation_split_that_cannot_be_had_is_refused(dataset, size):
    with pytest.raises(DataError, match=rf"validation={size}: toy has 100 .* from 3 to 97$"):
        dataset.with_validation(size)


@pytest.mark.parametrize("size", [10, 33])
def test_stratified_split_gives_every_row_once(size):
    labels = np.arange(100) % 5
    larger, smaller = stratified_split(labels, size)
    assert len(smaller) == size
    assert sorted([*larger, *smaller]) == list(range(100))
    assert np.ptp(np.bincount(labels[smaller])) <= 1


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("at", [0, -1])
def test_sha256_changes_with_every_split(dataset, part, at):
    cut = dataset.with_validation(20)
    changed = getattr(cut, part).copy()
    changed.flat[at] ^= 1
    other = dataclasses.replace(cut, **{part: changed})
    assert other.sha256() != cut.sha256()
    changed.flat[at] ^= 1
    assert other.sha256() == cut.sha256()


def test_sha256_changes_with_order_split_dtype_and_shape(dataset):
    cut = dataset.with_validation(20)
    moved = {f"{letter}_train": getattr(cut, f"{letter}_train")[:-1] for letter in ("x", "y")} | {
        f"{letter}_validation": np.concatenate(
            [getattr(cut, f"{letter}_train")[-1:], getattr(cut, f"{letter}_validation")]
        )
        for letter in ("x", "y")
    }
    others = [
        dataset,
        dataset.with_validation(21),
        dataclasses.replace(cut, x_train=cut.x_train[::-1], y_train=cut.y_train[::-1]),
        dataclasses.replace(cut, **moved),
        dataclasses.replace(cut, y_test=cut.y_test.astype(np.int64)),
        dataclasses.replace(cut, x_test=cut.x_test.reshape(20, 1, 1)),
    ]
    assert len({cut.sha256(), *(other.sha256() for other in others)}) == 7


def test_sha256_does_not_depend_on_memory_layout(dataset):
    doubled = np.repeat(dataset.x_train, 2, axis=0)[::2]
    assert dataclasses.replace(dataset, x_train=doubled).sha256() == dataset.sha256()
