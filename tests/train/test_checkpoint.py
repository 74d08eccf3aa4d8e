import contextlib
import errno
import hashlib
import itertools
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.train import checkpoint
from dropjax.train.checkpoint import CheckpointError, flatten, load, restore, save, tree_hash

STATE, MANIFEST = "state.safetensors", "manifest.json"


def state_at(step: int) -> dict[str, Any]:
    return {
        "step": jnp.int32(step),
        "params": {"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / 7 + step, "none": {}},
        "diverged_at": jnp.int32(-1),
        "learned": {},
        "opt": (jnp.float32(0.1), [jnp.asarray([True, False])]),
    }


def bits(tree: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [(str(leaf.dtype), leaf.shape, leaf.tobytes()) for leaf in leaves]


def same(a: Any, b: Any) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and bits(a) == bits(b)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def forbid(message: str) -> None:
    raise AssertionError(f"no warning was due: {message}")


def with_payload(path: Path, payload: bytes) -> None:
    """Puts another payload into a checkpoint and makes every sha256 fit it."""
    manifest = json.loads((path / MANIFEST).read_text())
    manifest |= {"sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload)}
    del manifest["manifest_sha256"]
    text = json.dumps(manifest, sort_keys=True)
    manifest["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / STATE).write_bytes(payload)
    (path / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def two(tmp_path) -> Path:
    """A folder with good checkpoints of steps 1 and 2."""
    for step in (1, 2):
        save(tmp_path, state_at(step), step, mark=step)
    return tmp_path


@pytest.fixture
def newest(two) -> Path:
    return two / "0000000002"


def test_round_trip_is_bit_for_bit(tmp_path):
    state = state_at(3)
    extra = {"metrics": {"bytes": 3, "sha256": "ab"}, "text": "ü", "none": None, "x": 0.1}
    path = save(tmp_path / "new" / "folder", state, 3, **extra)
    restored, found = load(path, state_at(0))
    assert same(restored, state) and found == extra
    restored, found = restore(tmp_path / "new" / "folder", state_at(0), warn=forbid)
    assert same(restored, state) and found == extra
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))


SPECIAL = [0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), 1e-40, 0.1]


def arrays() -> Iterator[Any]:
    """Of every dtype, shape and layout."""
    x = np.arange(24, dtype=np.float32)
    for shape in ((), (0,), (3, 0), (1, 1), (2, 3, 4)):
        yield x[: np.prod(shape, dtype=int)].reshape(shape)
    grid = x.reshape(4, 6)
    yield from (grid.T, grid[:, ::2], grid[::-1], grid.copy("F"))
    yield from (jnp.asarray(SPECIAL).astype(of) for of in ("float32", "float16", "bfloat16"))
    yield from (jnp.asarray([0, 1, 1, 0]).astype(of) for of in ("int32", "uint8", "bool"))


def test_every_array_round_trips(tmp_path):
    for number, x in enumerate(arrays()):
        state = {"step": np.int32(number), "x": x}
        assert same(load(save(tmp_path, state, number), state)[0], state)


def test_only_the_newest_two_are_kept(tmp_path):
    for step in (0, 5, 10, 11, 100):
        path = save(tmp_path, state_at(step), step)
        assert path == tmp_path / f"{step:010d}" and path.is_dir()
    assert names(tmp_path) == ["0000000011", "0000000100"]
    for step in (11, 100):
        assert same(load(tmp_path / f"{step:010d}", state_at(0))[0], state_at(step))


def test_a_save_survives_itself_when_later_ones_are_there(two):
    """As after a fall-back: the good one before it is kept too, and the damaged ones go."""
    path = save(two, state_at(4), 4)
    (path / STATE).write_bytes(b"")
    save(two, state_at(3), 3)
    assert names(two) == ["0000000002", "0000000003"]
    path = save(two, state_at(0), 0)
    assert same(load(path, state_at(9))[0], state_at(0))


def test_no_byte_of_the_manifest_can_be_flipped(newest):
    """Each byte with a bit of every significance in turn, and with the one of upper case."""
    path, template = newest / MANIFEST, state_at(0)
    good = path.read_bytes()
    for at in range(len(good)):
        for flip in {1 << at % 8, 0x20}:
            path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
            with pytest.raises(CheckpointError):
                load(newest, template)
    path.write_bytes(good)
    assert same(load(newest, template)[0], state_at(2))


def test_no_byte_of_the_state_can_be_flipped(newest):
    path, template = newest / STATE, state_at(0)
    good = path.read_bytes()
    for at in [*range(0, len(good), 3), len(good) - 1]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        with pytest.raises(CheckpointError, match="sha256"):
            load(newest, template)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = {
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: os.truncate(path, 0),
    "another": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "gone": Path.unlink,
    "a folder": make_folder,
}
NO_MANIFESTS = ["[]", "null", "3", '"x"', "{}", "NaN", '{"a": NaN}', "[" * 100_000]
NO_SAFETENSORS = [b"", bytes(100), pickle.dumps([1, 2]), b"\x02\0\0\0\0\0\0\0{"]


def assert_passed_over(two: Path) -> None:
    """The newest is damaged: the one before it is used, with one warning."""
    with pytest.raises(CheckpointError):
        load(two / "0000000002", state_at(0))
    said = []
    state, extra = restore(two, state_at(0), warn=said.append)
    assert same(state, state_at(1)) and extra == {"mark": 1}
    assert len(said) == 1 and "0000000002" in said[0] and "damaged" in said[0]


@pytest.mark.parametrize("file", [STATE, MANIFEST])
@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_is_harmed_is_noticed_and_passed_over_with_one_warning(two, newest, file, harm):
    HARMS[harm](newest / file)
    assert_passed_over(two)


def test_what_is_no_manifest_or_no_safetensors_file_is_passed_over_too(two, newest):
    for payload in NO_SAFETENSORS:
        with_payload(newest, payload)
        assert_passed_over(two)
    for text in NO_MANIFESTS:
        (newest / MANIFEST).write_text(text)
        assert_passed_over(two)


def test_numbers_that_json_has_not_are_refused(two):
    before = names(two)
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(two, state_at(9), 9, loss=float("nan"))
    assert names(two) == before


def test_names_that_are_no_steps_are_ignored(two):
    for name in ("99", "abc", "tmp-0000000099-1", "00000000099", "0000000099.bak", "-000000099"):
        (two / name).mkdir()
    (two / "0000000099").write_text("a file")
    state, _ = restore(two, state_at(0), warn=forbid)
    assert same(state, state_at(2))
    save(two, state_at(3), 3)
    assert {"99", "abc", "0000000002", "0000000003"} <= set(names(two))
    assert "0000000001" not in names(two) and "tmp-0000000099-1" not in names(two)


def test_none_good_is_an_error_with_a_warning_each(two):
    for path in two.iterdir():
        (path / STATE).unlink()
    said = []
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        restore(two, state_at(0), warn=said.append)
    assert [line.split()[1] for line in said] == ["0000000002", "0000000001"]


@pytest.mark.parametrize("kind", ["missing", "empty", "junk"])
def test_none_at_all_is_none(tmp_path, kind):
    folder = tmp_path / "checkpoints"
    if kind != "missing":
        folder.mkdir()
    if kind == "junk":
        (folder / "tmp-0000000001-7").mkdir()
    assert restore(folder, state_at(0), warn=forbid) is None


def wrong_templates() -> dict[str, tuple[dict[str, Any], str]]:
    good = state_at(0)
    w = good["params"]["w"]
    return {
        "a leaf more": (good | {"more": jnp.zeros(1)}, "structure: more"),
        "a leaf less": ({k: v for k, v in good.items() if k != "diverged_at"}, "diverged_at"),
        "another name": (good | {"params": {"v": w}}, "params/[vw]"),
        "transposed": (good | {"params": {"w": w.T}}, r"params/w is float32\[2, 3\]"),
        "flat": (good | {"params": {"w": w.ravel()}}, r"expected float32\[6\]"),
        "float16": (good | {"params": {"w": w.astype(jnp.float16)}}, "expected float16"),
        "int32": (good | {"params": {"w": w.astype(jnp.int32)}}, "expected int32"),
        "a vector for a scalar": (good | {"step": jnp.zeros(1, jnp.int32)}, r"int32\[1\]"),
    }


@pytest.mark.parametrize("case", wrong_templates())
def test_another_structure_shape_or_dtype_is_refused(newest, case):
    template, words = wrong_templates()[case]
    with pytest.raises(CheckpointError, match=words):
        load(newest, template)


def test_a_renamed_checkpoint_is_refused(tmp_path):
    path = save(tmp_path, state_at(3), 3)
    with pytest.raises(CheckpointError, match="name"):
        load(path.rename(path.with_name("0000000004")), state_at(0))


def test_keys_with_slashes_do_not_collide():
    x, y = jnp.zeros(1), jnp.ones(1)
    assert len(flatten({"a": {"b": x}, "a/b": y})) == 2
    assert tree_hash({"a": {"b": x}}) != tree_hash({"a/b": x})


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_failing_sync_leaves_the_older_ones_and_no_half_one(two, monkeypatch, fails):
    calls, real = itertools.count(), os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == fails:
            raise full_disk()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        save(two, state_at(3), 3)
    assert names(two) == ["0000000001", "0000000002"]
    for step in (1, 2):
        assert same(load(two / f"{step:010d}", state_at(0))[0], state_at(step))


@pytest.mark.parametrize("file", [STATE, MANIFEST])
def test_a_half_written_file_leaves_the_older_ones_and_no_half_one(two, monkeypatch, file):
    real = checkpoint.write_synced

    def write(path: Path, data: bytes) -> None:
        if path.name == file:
            path.write_bytes(data[: len(data) // 2])
            raise full_disk()
        real(path, data)

    monkeypatch.setattr(checkpoint, "write_synced", write)
    with pytest.raises(OSError, match="No space"):
        save(two, state_at(3), 3)
    assert names(two) == ["0000000001", "0000000002"]
    assert same(restore(two, state_at(0), warn=forbid)[0], state_at(2))


class Killed(BaseException):
    """The end of the process: nothing is cleaned up."""


@pytest.mark.parametrize("fails", range(4))
def test_a_process_killed_while_saving_leaves_whole_ones_only(two, monkeypatch, fails):
    calls = itertools.count()

    def fsync(descriptor: int) -> None:
        if next(calls) == fails:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(Killed):
            save(two, state_at(3), 3)
    state, _ = restore(two, state_at(0), warn=forbid)
    assert same(state, state_at(3 if fails == 3 else 2))
    save(two, state_at(4), 4)
    assert len(names(two)) == 2 and names(two)[1] == "0000000004"


def test_saving_the_step_of_a_damaged_one_replaces_it(two, newest):
    (newest / STATE).write_bytes(b"damaged")
    (newest / "more").write_bytes(b"")
    assert save(two, state_at(2), 2, again=True) == newest
    restored, extra = load(newest, state_at(0))
    assert same(restored, state_at(2)) and extra == {"again": True}
    assert names(two) == ["0000000001", "0000000002"] and names(newest) == [MANIFEST, STATE]


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_nothing_is_unpickled(newest, tmp_path_factory):
    mark = tmp_path_factory.mktemp("payload") / "executed"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with_payload(newest, pickle.dumps(Payload(mark), protocol))
        with contextlib.suppress(Exception):
            load(newest, state_at(0))
        assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # the payload does what it should not get to do


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_tree_hash_differs_for_every_bit(dtype):
    leaf = np.asarray(jnp.asarray([0.5, -2.0]).astype(dtype))
    hashes = {tree_hash({"a": leaf})}
    for at in range(8 * leaf.nbytes):
        raw = bytearray(leaf.tobytes())
        raw[at // 8] ^= 1 << at % 8
        hashes.add(tree_hash({"a": np.frombuffer(bytes(raw), leaf.dtype)}))
    assert len(hashes) == 8 * leaf.nbytes + 1


def test_tree_hash_differs_for_every_name_dtype_and_shape():
    x = np.zeros(6, np.float32)
    trees = [
        {"a": x},
        {"b": x},
        {"a": {"a": x}},
        {"a": x, "b": x},
        {"a": x.reshape(2, 3)},
        {"a": x.reshape(3, 2)},
        {"a": x.reshape(6, 1)},
        {"a": x[:5]},
        {"a": x.astype(np.int32)},
        {"a": x.astype(np.uint32)},
        {"a": x.view(np.float16)},
        {"a": -x},
        {"a": np.full(6, np.nan, np.float32)},
        {},
    ]
    assert len({tree_hash(tree) for tree in trees}) == len(trees)
    assert tree_hash({"a": x, "b": x + 1}) != tree_hash({"a": x + 1, "b": x})


def test_tree_hash_is_equal_for_equal_trees():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = tree_hash({"a": x, "b": {"c": np.int32(1), "none": {}}})
    assert one == tree_hash({"b": {"none": {}, "c": jnp.int32(1)}, "a": jnp.asarray(x)})
    assert one == tree_hash({"a": x.copy("F"), "b": {"c": np.int32(1)}})
    assert len(bytes.fromhex(one)) == 32
