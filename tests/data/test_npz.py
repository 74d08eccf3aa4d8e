import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dropjax.data import DataError, default_test, default_validation, load
from dropjax.data import npz as reader

LABELS = np.arange(30) % 3
BITS = np.arange(30) % 2
REAL = np.arange(30) / 7


def rng():
    return np.random.default_rng(0)


def parts(y=None, test=None, **others) -> dict:
    """30 training and 6 test examples of 3 classes, but for what is given."""
    arrays = {
        "x_train": rng().normal(size=(30, 4)),
        "y_train": np.arange(30) % 3 if y is None else y,
        "x_test": rng().normal(size=(6, 4)),
        "y_test": (np.arange(6) % 3 if y is None else np.asarray(y)[:6]) if test is None else test,
    }
    return {name: array for name, array in (arrays | others).items() if array is not None}


@pytest.fixture
def own(tmp_path):
    """`own(arrays, **options)`: what `load` makes of a file of them, and what it says."""

    def write_and_load(arrays: dict, **options):
        np.savez(tmp_path / "own.npz", **arrays)
        said = []
        return load(str(tmp_path / "own.npz"), None, say=said.append, **options), said

    return write_and_load


def refused(own, match: str, arrays: dict, **options) -> str:
    with pytest.raises(DataError, match=match) as caught:
        own(arrays, **options)
    assert "own.npz: " in str(caught.value)
    return str(caught.value)


# What is taken, and how.


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u2", "?", ">f8", ">i4"])
def test_x_of_any_other_dtype_becomes_float32(own, tmp_path, dtype):
    x = (rng().normal(size=(30, 4)) * 50).astype(dtype)
    dataset, said = own(parts(x_train=x, x_test=x[:6]))
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.float32
    assert np.array_equal(dataset.x_train, x.astype(np.float32))
    assert dataset.shift.shape == (4,) and said == []
    assert dataset.name == str(tmp_path / "own.npz")
    assert len(dataset.x_validation) == len(dataset.y_validation) == 0
    assert default_validation(dataset) == 3


def far(name: str, dtype: str) -> np.ndarray:
    """500 numbers, all different, that float32 cannot tell apart, or only some of them."""
    steps = rng().permutation(500)
    if np.dtype(dtype).kind in "iu":
        start = {"i8": -(2**50), "u4": 2**32 - 600, "u8": 1_700_000_000_000_000_000}[dtype]
        steps = steps * 10**7 if dtype == "u8" else steps  # nanoseconds
        return (steps + start).astype(dtype)
    start = {"million": 1e6, "seconds": 1.7e9, "far": -1e12}[name]
    return np.asarray(start + steps / 500, dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[("million", "f8"), ("seconds", "f8"), ("far", "f8"), ("million", ">f8")],
        *[("integers", "i8"), ("integers", "u4"), ("integers", "u8")],
    ],
)
@pytest.mark.parametrize("what", ["column", "target", "targets", "sequence"])
def test_numbers_far_from_0_stay_as_different_as_they_are(own, name, dtype, what):
    """Of x and y: as many values as the file has, standardised as in float64."""
    numbers = far(name, dtype)
    x, y = rng().normal(size=(500, 2)).astype(numbers.dtype), numbers
    if what == "column":
        x = np.stack([numbers, rng().permutation(numbers)[::-1]], axis=1)
    elif what == "sequence":
        x = numbers.reshape(100, 5, 1)
        y = y[:100]
    elif what == "targets":
        y = np.stack([numbers, numbers[::-1]], axis=1)
    dataset, _ = own({"x": x, "y": y}, task="regression")
    target = what.startswith("target")
    raw = y if target else x
    kept = dataset.y_train if target else dataset.x_train
    shift = dataset.target_shift if target else dataset.shift
    scale = dataset.target_scale if target else dataset.scale
    assert kept.dtype == np.float32
    if what in ("column", "targets"):
        assert all(len(np.unique(column)) == 500 for column in kept.T)
    else:
        assert len(np.unique(kept)) == 500
    exact = (raw.astype(object) - raw.flat[0].item()).astype(float)
    axis = None if what == "sequence" else 0
    np.testing.assert_allclose(
        (kept - shift) / scale, (exact - exact.mean(axis)) / exact.std(axis), atol=2e-5
    )
    other = dataset.x_train if target else dataset.y_train
    assert other.dtype == np.float32
    moved = {"x": x, "y": y} | {"y" if target else "x": raw - raw.dtype.type(1024)}
    moved, _ = own(moved, task="regression")
    assert moved.sha256() != dataset.sha256()


def test_ordinary_numbers_become_the_nearest_float32(own):
    """As in versions before 0.6, to the bit: of any scale, and constant but for rounding."""
    x = rng().normal([0, 50, 2000, -1e-7], [1, 1e5, 3, 1e-8], (30, 4))
    x = np.concatenate([x, np.where(np.arange(30)[:, None] % 2, 0.3, 0.1 + 0.2)], axis=1)
    dataset, said = own(parts(x_train=x, x_test=x[:6]))
    assert np.array_equal(dataset.x_train, x.astype(np.float32))
    assert dataset.origin.shape == () and not dataset.origin.any()
    assert dataset.scale[4] == 1
    assert len(said) == 1 and "column 4 of x_train varies too little for float32" in said[0]
    tiny = x[:, :2] * [1, 1e-60]
    dataset, said = own(parts(x_train=tiny, x_test=tiny[:6]))
    assert dataset.scale[1] == 1 and "column 1 of x_train varies too little" in said[0]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (2, "columns 1, 2 of x_train vary"),
        (6, "columns 1, 2, 3, 4, 5, 6 of x_train vary"),
        (7, "columns 1, 2, 3, 4, 5 and 2 others of x_train vary"),
    ],
)
def test_all_columns_that_vary_too_little_are_told_of(own, columns, words):
    x = rng().normal(size=(30, columns + 1)) * ([1] + [1e-60] * columns)
    said = own(parts(x_train=x, x_test=x[:6]))[1]
    assert len(said) == 1
    assert said[0].startswith(f"{words} too little for float32, and are taken as constant.")


def test_of_x_and_y_a_test_split_is_cut_later(own):
    given = parts()
    dataset, said = own({"x": given["x_train"], "y": given["y_train"]})
    assert len(dataset.x_train) == 30 and len(dataset.x_test) == len(dataset.y_test) == 0
    assert default_test(dataset) == 6 and said == []
    cut = dataset.with_test(6)
    assert len(cut.x_train) == 24 and len(cut.x_test) == 6
    assert np.array_equal(np.bincount(cut.y_test), [2, 2, 2])
    refused(own, "missing: y_train, x_test, y_test", {"x_train": given["x_train"]})
    refused(own, r"unknown: x_train, .*, y_test\. The file must", given | {"x": 1, "y": 2})


NAMES = np.array(["cat", "dog", "ant"])


@pytest.mark.parametrize("dtype", ["U5", "S5"])
def test_names_of_classes_are_labels_in_alphabetical_order(own, dtype):
    dataset, said = own(parts(NAMES[LABELS].astype(dtype)))
    assert (dataset.task, dataset.outputs, said) == ("classification", 3, [])
    assert dataset.classes == ("ant", "cat", "dog")
    assert np.array_equal(dataset.y_train, np.array([1, 2, 0])[LABELS])
    assert np.array_equal(dataset.y_test, np.array([1, 2, 0])[LABELS[:6]])
    two, _ = own(parts(NAMES[BITS].astype(dtype)))
    assert (two.task, two.outputs, two.classes) == ("binary", 1, ("cat", "dog"))
    assert own(parts(NAMES[BITS]), task="classification")[0].outputs == 2


def test_names_of_classes_may_stand_in_an_array_of_their_own(own):
    dataset, _ = own(parts(classes=NAMES))
    assert dataset.classes == ("cat", "dog", "ant") and dataset.outputs == 3
    dataset, _ = own(parts(NAMES[LABELS], classes=NAMES))  # their order is kept
    assert dataset.classes == ("cat", "dog", "ant") and np.array_equal(dataset.y_train, LABELS)
    dataset, _ = own(parts(BITS, classes=NAMES[:2]))
    assert (dataset.task, dataset.classes) == ("binary", ("cat", "dog"))
    assert own(parts())[0].classes == ()


@pytest.mark.parametrize(
    ("arrays", "options", "match"),
    [
        (parts(classes=NAMES[:2]), {}, "classes has 2 names, and y_train 3 classes"),
        (parts(classes=np.arange(3)), {}, r"classes is int64 of shape \(3,\); it must be text"),
        (parts(classes=NAMES[:, None]), {}, r"shape \(3, 1\); it must be text"),
        (parts(classes=NAMES[[0, 1, 1]]), {}, "classes has a name twice: cat, dog, dog"),
        (parts(classes=np.array(["a", "b", "\x1b[1m"])), {}, "classes has .* in row 2: a name"),
        (parts(classes=np.array(["a", "b", " "])), {}, "classes has ' ' in row 2: a name"),
        (parts(REAL, classes=NAMES), {}, "classes are names of labels, and the task is regression"),
        (parts(NAMES[LABELS], np.array(["cat", "eel"] * 3)), {}, "y_test has the class 'eel'"),
        (
            parts(NAMES[LABELS], classes=NAMES[:2]),
            {},
            "class 'ant', which is not among the names in classes$",
        ),
        (parts(NAMES[LABELS]), {"task": "regression"}, "y_train is text, the names of classes; "),
        (
            parts(NAMES[LABELS]),
            {"task": "binary"},
            r"y_train has 3 classes \('ant', 'cat', 'dog'\); task=binary needs two",
        ),
        (parts(NAMES[BITS], classes=NAMES), {"task": "binary"}, "classes has 3 classes .'cat', 'd"),
        (
            parts(np.array([f"{i:02}" for i in range(30)])),
            {"task": "binary"},
            r"y_train has 30 classes \('00', '01', '02', '03', '04', \.\.\.\); task",
        ),
        (parts(NAMES[LABELS * 0]), {}, "y_train has the class cat only; two"),
        (parts(NAMES[LABELS][:, None][:, [0, 0]]), {}, r"y_train has shape \(30, 2\); names must"),
        (parts(np.full(30, b"\xff")), {}, "y_train has bytes that are no UTF-8"),
        *[
            (parts(**{name: np.zeros(size, dtype)}), {}, "they must be of one kind")
            for name, size in (("y_train", 30), ("y_test", 6))
            for dtype in ("U3", "S2")
        ],
        (parts(np.array([f"{i}" for i in range(30)])), {}, "30 classes for 30 examples"),
    ],
)
def test_names_that_cannot_be(own, arrays, options, match):
    refused(own, match, arrays, **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64, bool])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (4, 5, 7)])
def test_pictures_in_the_order_of_pytorch_are_refused(own, dtype, shape):
    x = rng().integers(0, 255, (30, *shape)).astype(dtype)
    refused(own, r"PyTorch's order.*x\.transpose\(0, 2, 3, 1\)", parts(x_train=x, x_test=x[:6]))
    right = x.transpose(0, 2, 3, 1)
    assert own(parts(x_train=right, x_test=right[:6]))[0].x_train.shape == (30, *right.shape[1:])
    joined = x.reshape(30, shape[0], -1)  # what the message offers for what is no picture
    own(parts(x_train=joined, x_test=joined[:6]))


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 20, 1), (3, 100, 3), (4, 2, 8), (28, 28, 1)])
def test_pictures_that_may_be_in_the_right_order_are_taken(own, shape):
    x = rng().integers(0, 255, (30, *shape), np.uint8)
    assert own(parts(x_train=x, x_test=x[:6]))[0].x_train.shape == (30, *shape)


@pytest.mark.parametrize(
    ("shape", "dtype", "integers"),
    [
        *[((30, 4), dtype, True) for dtype in ("i8", "u1", "i2")],
        *[((30, 4), "f4", False), ((30, 4), "?", False), ((30, 4, 2), "i8", True)],
    ],
)
def test_integers_may_be_tokens(own, shape, dtype, integers):
    """And are numbers for a model that has no vocabulary, as before."""
    x = (np.arange(np.prod(shape)) % 7).reshape(shape).astype(dtype)
    dataset, _ = own(parts(x_train=x, x_test=x[:6]))
    assert dataset.integers == integers and dataset.x_train.dtype == np.float32
    if not integers or len(shape) > 2:
        with pytest.raises(DataError, match=r"vocabulary=7: a model with a vocab.*examples, time"):
            dataset.as_tokens(7)
        return
    tokens = dataset.as_tokens(7)
    for split, wanted in (("train", x), ("test", x[:6])):
        found = getattr(tokens, f"x_{split}")
        assert found.dtype == np.int32 and np.array_equal(found, wanted)
    assert (tokens.shift, tokens.scale) == (0, 1) and tokens.sha256() != dataset.sha256()
    assert dataset.as_tokens(7) is tokens  # an ablation's cells share their arrays
    assert dataset.as_tokens(8).with_validation(3).x_validation.dtype == np.int32
    with pytest.raises(DataError, match=r"x_train.* has the token 6 in row 1; with vocabulary=6 "):
        dataset.as_tokens(6)


@pytest.mark.parametrize("value", [-1, 50, 2**24 + 1, 2**40])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_token_out_of_range_is_named(own, value, split):
    x = {name: np.zeros((n, 4), int) for name, n in (("x_train", 30), ("x_test", 6))}
    x[f"x_{split}"][2, 1] = value
    words = rf"x_{split} of .* has the token {str(value)[:6]}\d* in row 2; .* from 0 to 49"
    with pytest.raises(DataError, match=words):
        own(parts(**x))[0].as_tokens(50)


@pytest.mark.parametrize(
    ("shape", "becomes"), [((5, 4), (5, 4, 1)), ((5, 4, 1), (5, 4, 1)), ((5, 4, 3), (5, 4, 3))]
)
def test_uint8_images_stay_uint8_and_have_channels(own, shape, becomes):
    x = rng().integers(0, 256, (30, *shape), np.uint8)
    dataset, _ = own(parts(x_train=x, x_test=x[:6]))
    assert dataset.x_train.shape == (30, *becomes) and dataset.x_test.shape == (6, *becomes)
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.uint8
    assert np.array_equal(dataset.x_train.ravel(), x.ravel())
    assert (dataset.shift, dataset.scale) == (0, 255)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 1)])
def test_uint8_that_are_no_images_become_float32(own, shape):
    x = rng().integers(0, 256, (30, *shape), np.uint8)
    dataset, _ = own(parts(x_train=x, x_test=x[:6]))
    assert dataset.x_train.dtype == np.float32 and dataset.x_train.shape == (30, *shape)


@pytest.mark.parametrize(("largest", "lines"), [(16, 1), (200, 0)])
def test_dark_pixels_are_said(own, largest, lines):
    x = rng().integers(0, largest + 1, (30, 5, 4), np.uint8)
    _, said = own(parts(x_train=x, x_test=x[:6]))
    assert len(said) == lines and all("divided by 255, but none is above 16" in s for s in said)


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_a_validation_split_of_the_file_is_kept(tmp_path, savez):
    x, y = rng().normal(size=(9, 4)), np.arange(9) % 3
    savez(tmp_path / "a.npz", **parts(x_validation=x, y_validation=y))
    dataset = load(str(tmp_path / "a.npz"), None, say=pytest.fail)
    assert np.array_equal(dataset.x_validation, x.astype(np.float32))
    assert np.array_equal(dataset.y_validation, y) and dataset.y_validation.dtype == np.int32
    assert default_validation(dataset) == 0 and dataset.with_validation(0) is dataset


def test_paths_may_be_relative_or_from_the_home_folder(tmp_path, own_home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, path in (("a.npz", tmp_path / "a.npz"), ("~/a.npz", own_home / "a.npz")):
        np.savez(path, **parts())
        assert load(name, None, say=pytest.fail).name == str(path)


@pytest.mark.parametrize(
    ("y", "task", "becomes", "outputs"),
    [
        (LABELS, "auto", "classification", 3),
        (LABELS.astype(np.uint8), "auto", "classification", 3),
        (LABELS[:, None], "auto", "classification", 3),
        (BITS, "auto", "binary", 1),
        (BITS[:, None], "auto", "binary", 1),
        (BITS.astype(bool), "auto", "binary", 1),
        (REAL, "auto", "regression", 1),
        (REAL[:, None], "auto", "regression", 1),
        (np.stack([REAL, REAL, -REAL], 1), "auto", "regression", 3),
        (BITS, "classification", "classification", 2),
        (BITS.astype(bool), "classification", "classification", 2),
        (LABELS.astype(float), "classification", "classification", 3),
        (BITS.astype(float), "binary", "binary", 1),
        (LABELS, "regression", "regression", 1),
        (np.eye(3)[LABELS], "regression", "regression", 3),
    ],
)
def test_the_task_follows_from_y_or_from_what_is_asked(own, y, task, becomes, outputs):
    dataset, said = own(parts(y), task=task)
    assert (dataset.task, dataset.outputs, said) == (becomes, outputs, [])
    if becomes == "regression":
        assert dataset.y_train.dtype == np.float32 and dataset.y_train.shape == y.shape
        assert np.array_equal(dataset.y_test, y[:6].astype(np.float32))
        assert dataset.target_scale.shape == y.shape[1:]
    else:
        assert dataset.y_train.dtype == np.int32 and dataset.y_train.shape == (30,)
        assert np.array_equal(dataset.y_test, y[:6].ravel())
        assert dataset.target_scale == 1


def test_floats_that_look_like_classes_are_said(own):
    dataset, (line,) = own(parts(LABELS.astype(float)))
    assert dataset.task == "regression"
    assert "3 values, all whole" in line and "task=classification" in line
    for y, task in ((LABELS.astype(float), "regression"), (np.arange(30.0), "auto")):
        assert own(parts(y), task=task)[1] == []


# What is refused.


def test_a_small_file_does_not_become_a_large_array(tmp_path, monkeypatch):
    """Unless its size shows it."""
    monkeypatch.setattr(reader, "MOST_BYTES", 10**6)
    arrays = parts(x_train=np.zeros((30, 10**4)), x_test=np.zeros((6, 10**4)))
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_arrays", lambda *_: pytest.fail("data was read"))
        with pytest.raises(DataError, match=r"a.npz: .*more than 1.0 MB, the most.*numpy\.savez"):
            load(str(tmp_path / "a.npz"), None, say=pytest.fail)
    np.savez(tmp_path / "a.npz", **arrays)
    assert load(str(tmp_path / "a.npz"), None, say=pytest.fail).x_train.shape == (30, 10**4)


def test_a_file_that_is_not_there_and_a_folder_beside_a_file(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/none.npz: there is no such file"):
        load(str(tmp_path / "none.npz"), None, say=pytest.fail)
    with pytest.raises(DataError, match="data_dir would do nothing"):
        load("own.npz", tmp_path, say=pytest.fail)


def saved(save, *arguments, **options) -> bytes:
    out = io.BytesIO()
    save(out, *arguments, **options)
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def damaged() -> list[tuple[bytes, str]]:
    """Files, and words of the refusal."""
    whole, array = saved(np.savez, **parts()), saved(np.save, np.ones(3))
    members = {f"{name}.npy": saved(np.save, array) for name, array in parts().items()}
    large = saved(np.save, np.zeros((10, 10))).replace(b"(10, 10)", b"(10, 1" + b"0" * 15 + b")")
    method = whole.index(b"PK\1\2") + 10  # of the first member's compression
    no_npz = [b"", b"text", array, pickle.dumps([1]), whole[: len(whole) // 2]]
    return [
        *[(data, r"a.npz: not an .npz file, or cut short") for data in no_npz],
        # It claims to be huge.
        (zipped(members | {"x_train.npy": large}), "x_train is damaged"),
        (zipped(members | {"x_train.npy": b"text"}), "x_train is no array"),
        (zipped(members | {"x_train": members["x_train.npy"]}), "twice: x_train"),
        # A compression that there is not.
        (
            whole[:method] + b"\x63\0" + whole[method + 2 :],
            "x_train is damaged or cannot be read",
        ),
        (array + whole, "it is damaged or cannot be read"),
    ]


def test_files_that_cannot_be_read(tmp_path):
    for data, words in damaged():
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(DataError, match=words):
            load(str(tmp_path / "a.npz"), None, say=pytest.fail)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_flipped_bit_is_read_as_data(tmp_path, save):
    whole = saved(save, **parts())
    path = tmp_path / "a.npz"
    path.write_bytes(whole)
    right = load(str(path), None, say=pytest.fail).sha256()
    refusals = 0
    for at in rng().choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            assert load(str(path), None, say=pytest.fail).sha256() == right
        except DataError:
            refusals += 1
    assert refusals > 75


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("name", ["x_train", "y_test"])
def test_python_objects_are_not_read(own, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    objects = np.empty(6, object)
    objects[:] = Payload()
    refused(own, f"{name} has Python objects in it", parts(**{name: objects}))
    assert not (tmp_path / "executed").exists()


def header_refusals() -> list:
    """By what is wrong with names, dtypes or shapes: arrays, and words of the refusal."""
    images = rng().integers(0, 256, (30, 5, 4), np.uint8)
    pictures = np.zeros((30, 3, 9, 9))
    found = [
        (parts(arr_0=np.zeros(1), x_valid=np.zeros(1)), r"unknown: arr_0, x_valid\."),
        (parts(x_train=images, x_test=images[:6] / 255), "x_test is float64 and x_train uint8"),
        (parts(x_train=np.zeros((30, 4), "u1")), "x_test is float64 and x_train uint8"),
        (parts(x_train=np.zeros((30, 4), object)), "x_train has Python objects in it"),
        (parts(x_train=pictures, x_test=pictures[:6]), "PyTorch's order"),
        (parts(classes=np.zeros(3)), r"classes is float64 of shape \(3,\); it must be text"),
    ]
    for one, other in (("x", "y"), ("y", "x")):
        half = {f"{one}_validation": np.zeros((3, 4))}
        found.append((parts(**half), rf"missing: {other}_validation\."))
    for shape in ((6, 3), (6, 4, 1)):
        found.append((parts(x_test=np.zeros(shape)), "an example of x_test has shape"))
    for split in ("train", "test", "validation"):
        arrays = parts(x_validation=np.zeros((9, 4)), y_validation=np.arange(9) % 3)
        arrays[f"x_{split}"] = arrays[f"x_{split}"][:-1]
        size = len(arrays[f"y_{split}"])
        found.append((arrays, f"x_{split} has {size - 1} examples and y_{split} {size}"))
    for name, array in parts(REAL).items():
        found.append((parts(**{name: None}), rf"missing: {name}\."))
        text = ("U3", "S2") if name[0] == "x" else ()  # of y: names of classes
        for dtype in ("c8", *text, "M8[s]", "m8[s]", [("a", "f4")], "V2"):
            words = f"{name} is .*; real numbers are needed"
            found.append((parts(**{name: np.zeros(array.shape, dtype)}), words))
        for shape in ((), (0,), (0, 4), (30, 0)):
            words = f"{name} has shape .*: it is empty"
            found.append((parts(**{name: np.zeros(shape)}), words))
        if name[0] == "x":
            found.append((parts(**{name: array[:, 0]}), f"{name} has shape .* two axes"))
    return found


@pytest.mark.parametrize(("arrays", "match"), header_refusals())
def test_what_headers_say_is_checked_before_any_data_is_read(own, monkeypatch, arrays, match):
    monkeypatch.setattr(reader, "_arrays", lambda *_: pytest.fail("data was read"))
    refused(own, match, arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("name", parts())
def test_values_that_are_not_finite_are_counted(own, name, value):
    odd = parts(REAL)[name].copy()
    odd[2] = odd[5] = value
    count = 2 if name[0] == "y" else 8
    refused(
        own, f"{name} has {count} NaN or infinite values .* in row 2;", parts(REAL, **{name: odd})
    )


# What labels cannot be.


@pytest.mark.parametrize(
    ("y", "test", "match"),
    [
        (LABELS - 1, None, r"y_train has the label -1;"),
        (LABELS, np.arange(6) - 1, r"y_test has the label -1;"),
        (LABELS + 1, None, r"labels go from 1 to 3: subtract 1"),
        (LABELS + 9, None, r"labels go from 9 to 11: subtract 9"),
        (LABELS + (LABELS > 1), None, r"class 2 of 0 to 3 never occurs \(1 do not\)"),
        (LABELS * 4, None, r"class 1 of 0 to 8 never occurs \(6 do not\)"),
        (LABELS, np.arange(6), r"y_test has the label 5, which is not among y_train's 0 to 2"),
        (LABELS, np.arange(6) % 4, r"y_test has the label 3, which is not among y_train's 0 to 2"),
        (BITS, np.arange(6) % 3, r"y_test has 2; task=binary needs 0 and 1 only"),
        (np.zeros(30, int), None, r"the label 0 only; two classes"),
        (np.ones(30, bool), None, r"the label 1 only; both"),
        (np.arange(30), None, r"30 classes for 30 examples: is it task=regression"),
        (np.arange(30) * 10**15, None, r"examples: is it task=regression"),
        (np.eye(3, dtype=int)[LABELS], None, r"one-hot; .*argmax"),
        (np.eye(2, dtype=bool)[BITS], None, r"one-hot; .*argmax"),
        (np.eye(3)[LABELS], None, r"one-hot; .*argmax"),
        (np.stack([LABELS, LABELS], 1), None, r"shape \(30, 2\); for classification it must be"),
        (LABELS, np.zeros(6), r"y_test is float64 and y_train int64"),
        (BITS, np.zeros(6, bool), r"y_test is bool and y_train int64"),
        (np.stack([REAL, REAL], 1), REAL[:6], r"y_test has shape \(6,\) and y_train \(30, 2\)"),
        (np.zeros((30, 2, 2)), None, r"y_train has shape \(30, 2, 2\); for regression it must be"),
        (LABELS.astype(np.uint64) + 2**63, None, rf"y_train has the label {2**63}; classes are"),
        (np.int64(LABELS) + 2**62, None, r"examples: is it task=regression"),
    ],
)
def test_labels_that_cannot_be(own, y, test, match):
    refused(own, match, parts(y, test))


@pytest.mark.parametrize(
    ("y", "task", "match"),
    [
        (REAL, "classification", r"not whole, such as 0.14.*task=classification needs classes"),
        (REAL, "binary", r"not whole, such as 0.14"),
        (
            np.full(30, 1e30),
            "classification",
            r"y_train has the label 1e\+30; classes are numbered",
        ),
        (np.full(30, -1e30), "binary", r"y_train has the label -1e\+30; classes are numbered"),
        (np.arange(30) + 2**62, "classification", rf"subtract {2**62}, so that"),
        (LABELS, "binary", r"y_train has 2; task=binary needs"),
        (BITS * 2 - 1, "binary", r"y_train has -1; task=binary needs"),
        (np.where(LABELS, np.nan, 0), "classification", r"20 NaN or infinite .* row 1;"),
        (np.where(LABELS, 1e30, 0), "classification", r"y_train"),
        (np.eye(3)[LABELS], "classification", r"one-hot; .*argmax"),
        (np.stack([BITS, 1 - BITS], 1), "binary", r"one-hot; .*argmax"),
    ],
)
def test_a_task_that_y_is_not_for(own, y, task, match):
    refused(own, match, parts(y), task=task)


def test_many_classes_may_be_asked_for_and_a_test_split_may_lack_one(own):
    assert own(parts(np.arange(30) % 20), task="classification")[0].outputs == 20
    assert own(parts(LABELS, np.zeros(6, int)))[0].outputs == 3
