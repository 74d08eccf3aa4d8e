import dataclasses

import numpy as np
import pytest

from dropjax.data import DataError, Dataset, default_test, default_validation, load
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
        task="classification",
        outputs=3,
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


def test_validation_is_stratified(dataset):
    for size in (10, 50):
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


@pytest.mark.parametrize("size", [3, 20, 97])
def test_test_data_are_cut_as_validation_is(dataset, size):
    """The same for every seed, by class; then validation is cut from what is left."""
    whole = dataclasses.replace(dataset, x_test=dataset.x_test[:0], y_test=dataset.y_test[:0])
    cut, like = whole.with_test(size), whole.with_validation(size)
    assert np.array_equal(cut.x_test, like.x_validation)
    assert np.array_equal(cut.y_test, like.y_validation)
    assert np.array_equal(cut.x_train, like.x_train) and np.array_equal(cut.y_train, like.y_train)
    assert cut.x_test.dtype == np.uint8 and len(cut.y_validation) == 0
    assert whole.with_test(size) is cut
    if size == 20:
        both = cut.with_validation(8)
        numbers = [both.x_train.ravel(), both.x_validation.ravel(), both.x_test.ravel()]
        assert sorted(np.concatenate(numbers)) == list(range(100))


def test_a_split_or_a_part_that_cannot_be_had_is_refused(dataset):
    whole = dataclasses.replace(dataset, x_test=dataset.x_test[:0], y_test=dataset.y_test[:0])
    numbers = floats(np.arange(100.0)[:, None])
    for size in (-1, 1, 2, 98, 99, 100, 1000):
        with pytest.raises(DataError, match=rf"validation={size}: toy has 100 .* from 3 to 97$"):
            dataset.with_validation(size)
        with pytest.raises(DataError, match=rf"test={size}: toy has 100 .* must be from 3 to 97$"):
            whole.with_test(size)
        with pytest.raises(DataError, match=rf"test={size}: toy has a test split already"):
            dataset.with_test(size)
    with pytest.raises(DataError, match=r"test=0: toy has 100 .* must be from 3 to 97$"):
        whole.with_test(0)
    for size in (-1, 0, 2, 98, 99, 101):
        words = rf"train_examples={size}: toy has 100 .* of 3 classes .* from 3 to 97, or 100$"
        with pytest.raises(DataError, match=words):
            dataset.train_rows(size, seed=0)
    for size in (-1, 100):
        with pytest.raises(DataError, match=rf"validation={size}: floats has 100 .* 1 to 99$"):
            numbers.with_validation(size)
    cut = dataset.with_validation(10)
    assert cut.with_validation(0) is cut and dataset.with_validation(0) is dataset
    with pytest.raises(DataError, match="has a validation split already"):
        cut.with_validation(10)


@pytest.mark.parametrize(
    ("examples", "classes", "size"), [(100, 3, 20), (12, 10, 10), (80_000, 10, 10_000)]
)
def test_default_test_is_a_fifth_within_limits(examples, classes, size):
    assert default_test(of_classes(examples, classes)) == size


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


def floats(x, y=None, task="regression", outputs=1) -> Dataset:
    x = np.asarray(x, np.float32)
    y = np.arange(len(x), dtype=np.float32) if y is None else np.asarray(y)
    return Dataset("floats", x, y, x[:1], y[:1], task=task, outputs=outputs)


def of_classes(examples: int, classes: int) -> Dataset:
    y = (np.arange(examples) % classes).astype(np.int32)
    return floats(np.zeros((examples, 1)), y, task="classification", outputs=classes)


@pytest.mark.parametrize("max_value", [16, 255])
def test_images_are_divided_by_the_largest_pixel_there_can_be(dataset, max_value):
    images = dataclasses.replace(dataset, max_value=max_value)
    for array in (images.shift, images.scale, images.target_shift, images.target_scale):
        assert array.shape == () and array.dtype == np.float32
    assert (images.shift, images.scale) == (0, max_value)
    assert (images.target_shift, images.target_scale) == (0, 1)


def test_a_table_is_standardised_by_feature():
    x = np.random.default_rng(0).normal([3, -100, 1e5], [1, 20, 1e-3 * 1e5], (500, 3))
    table = floats(x)
    assert table.shift.shape == table.scale.shape == (3,)
    assert table.shift.dtype == table.scale.dtype == np.float32
    seen = (table.x_train - table.shift) / table.scale
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(0), 1, rtol=1e-4)


@pytest.mark.parametrize("shape", [(50, 4, 3), (50, 4, 3, 2)])
def test_other_floats_are_standardised_over_all_entries(shape):
    x = np.random.default_rng(0).normal(5, 2, shape) + np.arange(3).reshape(
        3, *[1] * (len(shape) - 3)
    )
    array = floats(x)
    assert array.shift.shape == array.scale.shape == ()
    np.testing.assert_allclose(array.shift, x.mean(), rtol=1e-6)
    np.testing.assert_allclose(array.scale, x.std(), rtol=1e-6)


@pytest.mark.parametrize("constant", [0, 0.1, 1e-30, 12345.678, 1e30, 1e-44])
def test_a_constant_feature_has_scale_1(constant):
    x = np.random.default_rng(0).normal(size=(100_003, 3)).astype(np.float32)
    x[:, 1] = constant
    table = floats(x, np.full(len(x), constant, np.float32))
    assert table.scale[1] == 1 and np.all(table.scale[[0, 2]] != 1)
    assert np.all((x[:, 1] - table.shift[1]) / table.scale[1] == 0)
    assert (table.target_shift, table.target_scale) == (np.float32(constant), 1)
    assert floats([[1e-45], [0], [0], [0]]).scale == 1  # it hardly varies


def test_targets_are_standardised_each():
    y = np.random.default_rng(0).normal([0, 50], [1, 9], (200, 2)).astype(np.float32)
    two = floats(np.zeros((200, 1)), y, outputs=2)
    np.testing.assert_allclose(two.target_shift, y.mean(0), rtol=1e-4)
    np.testing.assert_allclose(two.target_scale, y.std(0), rtol=1e-4)
    one = floats(np.zeros((200, 1)), y[:, 1])
    assert one.target_shift.shape == () and one.target_shift == two.target_shift[1]
    labels = floats(np.zeros((4, 1)), np.int32([0, 1, 1, 1]), task="binary")
    assert (labels.target_shift, labels.target_scale) == (0, 1)


def test_statistics_are_those_of_the_training_part_after_the_split():
    x = np.random.default_rng(0).exponential(size=(100, 2)).astype(np.float32)
    whole = floats(x, x[:, 0])
    before = whole.shift, whole.scale, whole.target_shift
    cut = whole.with_validation(40)
    assert np.array_equal(cut.x_train[:, 0], cut.y_train)
    np.testing.assert_allclose(cut.shift, cut.x_train.mean(0), rtol=1e-5)
    np.testing.assert_allclose(cut.scale, cut.x_train.std(0), rtol=1e-5)
    np.testing.assert_allclose(cut.target_shift, cut.y_train.mean(), rtol=1e-5)
    after = cut.shift, cut.scale, cut.target_shift
    assert not any(np.any(a == b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("size", [1, 30, 99])
def test_validation_of_a_regression_is_a_fixed_random_split(size):
    numbers = floats(np.arange(100.0)[:, None])
    cut, again = numbers.with_validation(size), numbers.with_validation(size)
    assert cut.sha256() == again.sha256()
    assert len(cut.x_validation) == size
    assert sorted([*cut.y_train, *cut.y_validation]) == list(range(100))
    assert np.array_equal(cut.x_validation[:, 0], cut.y_validation)
    if size == 30:
        assert 35 < cut.y_validation.mean() < 65  # not the first or last rows


def test_validation_of_a_binary_task_is_stratified():
    y = np.repeat(np.int32([0, 1]), [80, 20])
    cut = floats(np.zeros((100, 1)), y, task="binary").with_validation(10)
    assert np.bincount(cut.y_validation).tolist() == [8, 2]
    with pytest.raises(DataError, match="of 2 classes, so it must be 0, or from 2 to 98"):
        floats(np.zeros((100, 1)), y, task="binary").with_validation(1)
    with pytest.raises(DataError, match=r"fewer than two .* class 1,"):
        floats(np.zeros((100, 1)), 0 * y, task="binary").with_validation(10)


def test_too_few_examples_for_a_split_are_told_of():
    two = floats(np.zeros((2, 1)), np.int32([0, 1]), task="binary")
    two = dataclasses.replace(two, y_test=two.y_test[:0])
    few = " floats has 2 training examples of 2 classes, too few to cut a"
    with pytest.raises(DataError, match=rf"^test=2:{few} test split; give x_test and y_test in"):
        two.with_test(2)
    with pytest.raises(DataError, match=rf"^validation=2:{few} validation split; it must be 0$"):
        two.with_validation(2)


def test_a_class_of_one_example_is_in_no_part():
    y = np.int32([0] * 10 + [1] + [2] * 10)
    rare = floats(np.zeros((21, 1)), y, task="classification", outputs=3)
    with pytest.raises(DataError, match=r"validation=5: floats has fewer than two .* class 1,"):
        rare.with_validation(5)
    assert default_validation(rare) == 0
    words = r"train_examples=5: .* a class of a single training example"
    with pytest.raises(DataError, match=words):
        rare.train_rows(5, seed=0)


@pytest.mark.parametrize(
    ("examples", "classes", "size"),
    [(100, 3, 10), (1000, 10, 100), (40, 10, 10), (19, 10, 0), (80_000, 10, 5000), (109, 2, 10)],
)
def test_default_validation_is_a_tenth_within_limits(examples, classes, size):
    data = of_classes(examples, classes)
    assert default_validation(data) == size
    cut = data.with_validation(size)
    assert len(cut.y_validation) == size
    if size:
        assert default_validation(cut) == 0


@pytest.mark.parametrize(("examples", "size"), [(1, 0), (2, 1), (9, 1), (308, 30), (60_000, 5000)])
def test_default_validation_of_a_regression(examples, size):
    assert default_validation(floats(np.zeros((examples, 1)))) == size


@pytest.mark.parametrize("size", [10, 40, 77])
def test_a_part_of_the_training_data_is_drawn_by_class_and_by_seed(dataset, size):
    cut = dataset.with_validation(20)  # leaves 48, 24 and 8
    rows = cut.train_rows(size, seed=5)
    assert len(rows) == size and np.all(np.diff(rows) > 0)
    assert np.array_equal(rows, cut.train_rows(size, seed=5))
    part = cut.with_train_examples(size, seed=5)
    assert np.array_equal(part.x_train, cut.x_train[rows])
    assert np.array_equal(part.y_train, dataset.y_train[part.x_train.ravel()])
    counts = np.bincount(part.y_train, minlength=3)
    assert np.all(np.abs(counts - size * np.array([48, 24, 8]) / 80) < 1) and counts.min() >= 1
    for name in ("x_validation", "y_validation", "x_test", "y_test"):
        assert getattr(part, name) is getattr(cut, name)
    if size < 77:
        assert not np.array_equal(rows, cut.train_rows(size, seed=6))


def test_all_of_the_training_data_is_itself_and_a_part_ignores_the_global_seed(dataset):
    for seed in (0, 2**31 - 1):
        assert dataset.train_rows(100, seed).tolist() == list(range(100))
    first = dataset.train_rows(20, seed=1)
    np.random.seed(3)
    assert np.array_equal(first, dataset.train_rows(20, seed=1))


def test_a_part_of_a_regression_is_any_rows():
    numbers = floats(np.arange(100.0)[:, None])
    rows = numbers.train_rows(30, seed=2)
    assert len({*rows}) == 30 and 35 < rows.mean() < 65
    part = numbers.with_train_examples(30, seed=2)
    assert part.y_train.tolist() == rows.tolist()
    np.testing.assert_allclose(part.shift, rows.mean(), rtol=1e-6)  # its own statistics
    with pytest.raises(DataError, match=r"training examples beside those .* from 1 to 99, or 100"):
        numbers.train_rows(0, seed=0)


def test_a_part_that_would_have_none_of_a_rare_class_is_refused(dataset):
    with pytest.raises(DataError, match=r"train_examples=3: .* of class 2 that none would be"):
        dataset.with_validation(20).train_rows(3, seed=5)
