"""What an ablation leaves on disk, and what is made of it when it was cut off."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dropjax.runs import record
from experiments.ablation import store as module
from experiments.ablation.cells import Cell
from experiments.ablation.store import Store
from experiments.setup import LaunchError
from tests.experiments.ablation.outcomes import grid
from tests.experiments.conftest import contents

CELLS = [
    dataclasses.replace(cell, id=f"{number:012x}")
    for number, cell in enumerate(grid({"none": {}}, 3))
]
PLAN = {"experiment": "mnist", "exact": False, "command": "first", "dropjax": "0.6.0"}


class Killed(BaseException):
    """What ends a process in the middle."""


def files(number: int, seed: int | None = None, **result: Any) -> dict[str, Any]:
    result = {"status": "completed", "test_accuracy": number / 10, "seconds": 3.0} | result
    history = [{"step": 1, "loss": 2.0 + number}, {"step": 2, "loss": 1.0 + number}]
    return {
        "result.json": result,
        "metrics.jsonl": history,
        "config.json": {
            "flags": {"seed": number if seed is None else seed},
            "network": {},
            "mask_stream": 2,
            "environment": {"dropjax": "0.6.0"},
        },
        "timing.json": {"lanes": 3},
    }


def old(number: int, **result: Any) -> dict[str, bytes]:
    """A cell's files as version 0.5.2 wrote them."""
    made = files(number, **result)
    made["config.json"]["environment"]["dropjax"] = "0.5.2"
    history = "".join(json.dumps(line) + "\n" for line in made.pop("metrics.jsonl"))
    texts = {name: json.dumps(value, indent=2) + "\n" for name, value in made.items()}
    return {name: text.encode() for name, text in (texts | {"metrics.jsonl": history}).items()}


def put_old(store: Store, cell: Cell, written: dict[str, bytes]) -> None:
    store.folder(cell).mkdir(parents=True)
    for name, data in written.items():
        (store.folder(cell) / name).write_bytes(data)


ALL = [files(number) for number in range(3)]


@pytest.fixture
def store(tmp_path) -> Store:
    path = tmp_path / "ablation"  # so that what is written beside it can be seen
    path.mkdir()
    made = Store(path)
    made.begin(PLAN)
    return made


def statuses(store: Store) -> list[str]:
    return [store.outcome(cell).status for cell in CELLS]


def test_a_group_is_kept_cell_by_cell(store):
    assert statuses(store) == ["missing"] * 3 and not store.has(CELLS[0])
    store.put(CELLS, ALL)
    for number, cell in enumerate(CELLS):
        found = store.outcome(cell)
        assert store.has(cell) and found.cell is cell and found.error == ""
        assert found.status == "completed" and found.result == {"test_accuracy": number / 10}
        assert found.history == files(number)["metrics.jsonl"]
        assert found.record == files(number)["config.json"] and found.hashed
        assert {path.name for path in store.folder(cell).iterdir()} == set(files(number))
    assert not list((store.path / "groups").iterdir())


def test_a_cell_that_failed_is_not_done_and_one_that_diverged_is(store):
    made = [files(0, status="failed", error="no"), files(1, status="diverged", diverged_at=7)]
    store.put(CELLS[:2], made)
    failed, diverged = map(store.outcome, CELLS[:2])
    assert (failed.status, failed.error, store.has(CELLS[0])) == ("failed", "no", False)
    assert (diverged.status, store.has(CELLS[1])) == ("diverged", True)
    assert diverged.error == "the loss is not finite at step 7"


def test_a_cell_that_is_done_again_has_its_new_result(store):
    store.put(CELLS[:1], [files(0, status="failed", error="no")])
    store.put(CELLS[:1], [files(1, seed=0)])
    assert store.outcome(CELLS[0]).result == {"test_accuracy": 0.1}
    assert store.outcome(CELLS[0]).history[0]["loss"] == 3.0


@pytest.mark.parametrize("after", range(13))
def test_a_process_killed_while_it_unpacks_has_done_the_whole_group(store, monkeypatch, after):
    """Each of the twelve files may be the first that is not written any more."""
    real, written = module._replace, []

    def write(path: Path, data: bytes) -> None:
        if len(written) == after:
            raise Killed
        written.append(path)
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_replace", write)
        if after < 12:
            with pytest.raises(Killed):
                store.put(CELLS, ALL)
        else:
            store.put(CELLS, ALL)
    for cell in CELLS:  # whatever says that it is done has all its files
        if store.has(cell):
            assert {path.name for path in store.folder(cell).iterdir()} == set(ALL[0])
    again = Store(store.path)
    again.begin(PLAN)
    assert statuses(again) == ["completed"] * 3
    assert not list((store.path / "groups").iterdir())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_process_killed_while_it_packs_has_done_nothing(store, monkeypatch, share):
    def write(path: Path, data: bytes) -> None:
        path.with_name(f"{path.name}.tmp-123").write_bytes(data[: int(share * len(data))])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(record, "write_whole", write)
        with pytest.raises(Killed):
            store.put(CELLS, ALL)
    again = Store(store.path)
    again.begin(PLAN)
    assert statuses(again) == ["missing"] * 3
    again.put(CELLS, ALL)
    assert statuses(again) == ["completed"] * 3


PACKED = "00000000000a.json"


def test_a_packed_group_that_is_damaged_is_run_again(store, capsys):
    (store.path / "groups" / PACKED).write_text('{"000000000000": {"result.js')
    Store(store.path).begin(PLAN)
    assert statuses(store) == ["missing"] * 3
    assert not list((store.path / "groups").iterdir())
    assert f"{PACKED} is damaged" in capsys.readouterr().out


def test_a_group_that_another_process_unpacks_meanwhile_is_no_error(store, monkeypatch, capsys):
    packed = store.path / "groups" / PACKED
    record.write(packed, {})
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        path.unlink()
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert store._packed(packed) == {} and not capsys.readouterr().out


# No ids.
OUTSIDE = ["../../x", "/tmp/x", "..", "", "00000000000A", "0000000000000", "000000000000\n"]
NO_FILES = ["../y", "x.txt", "result.json/..", "log.txt", ""]


@pytest.mark.parametrize(
    ("packed", "made", "sealed"),
    [
        *[(PACKED, {name: ALL[0]}, sealed) for name in OUTSIDE for sealed in (True, False)],
        *[(PACKED, {"000000000000": ALL[0] | {name: {}}}, True) for name in NO_FILES],
        ("mine.json", {"000000000000": ALL[0]}, True),
    ],
)
def test_a_group_that_no_ablation_wrote_is_refused_and_nothing_is_written(
    store, packed, made, sealed
):
    """It names what is no cell, has a file that no cell has, or is not named as one."""
    data = record.encode(made) if sealed else json.dumps(made).encode()
    (store.path / "groups" / packed).write_bytes(data)
    before = contents(store.path.parent)
    with pytest.raises(LaunchError, match=r"was written by no ablation: it has .*twelve hex"):
        Store(store.path).begin(PLAN | {"command": "second"})
    assert contents(store.path.parent) == before


@pytest.mark.parametrize("name", ["result.json", "config.json", "metrics.jsonl", "timing.json"])
def test_a_group_with_a_file_too_few_is_damaged(store, name, capsys):
    made = {k: v for k, v in ALL[0].items() if k != name}
    record.write(store.path / "groups" / PACKED, {"000000000000": made})
    Store(store.path).begin(PLAN)
    assert statuses(store)[0] == "missing" and f"has no {name}" in capsys.readouterr().out


def test_a_group_of_an_older_version_is_unpacked_and_one_without_its_hash_is_damaged(store):
    for number, version in enumerate(("0.5.2", "0.6.0")):
        made = files(number)
        made["config.json"]["environment"]["dropjax"] = version
        packed = store.path / "groups" / f"{number:012x}.json"
        packed.write_text(json.dumps({CELLS[number].id: made}))
    Store(store.path).begin(PLAN)
    assert statuses(store) == ["completed", "missing", "missing"]


@pytest.mark.parametrize(
    "link", ["cells", "groups", "figures", "lock", "cells/000000000000", "shards/0-of-2/lock"]
)
def test_a_link_out_of_the_folder_is_refused(store, link, tmp_path_factory):
    target = tmp_path_factory.mktemp("elsewhere")
    path = store.path / link
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.symlink_to(target)
    with pytest.raises(LaunchError, match=rf"{link} is a symbolic link, and an ablation writes"):
        store.check_links()
    os.unlink(path)
    store.check_links()
    # The folder itself may be one.
    (target / "link").symlink_to(store.path)
    Store(target / "link").check_links()


@pytest.mark.parametrize("damage", ["", "{", '{"status": "comp', "[]", "{}", '{"status": NaN}'])
@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_a_damaged_file_makes_a_cell_missing(store, name, damage):
    store.put(CELLS, ALL)
    (store.folder(CELLS[1]) / name).write_text(damage)
    assert statuses(store) == ["completed", "missing", "completed"]
    assert f"{name} " in store.outcome(CELLS[1]).error
    assert "damaged" in store.outcome(CELLS[1]).error


@pytest.mark.parametrize("name", ["result.json", "config.json", "metrics.jsonl"])
def test_every_bit_of_a_cells_files_counts(store, name):
    """Spaces between JSON's values, and which case hex digits in escapes have, alone do not."""
    store.put(CELLS, ALL)
    path = store.folder(CELLS[0]) / name
    data = path.read_bytes()
    before = store.outcome(CELLS[0])
    for at in range(0, 8 * len(data), 3):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        found = store.outcome(CELLS[0])
        if found.status != "missing":
            assert json.loads(changed) == json.loads(data) and name != "metrics.jsonl"
            assert (found.result, found.record) == (before.result, before.record)


def test_a_file_that_is_gone_or_of_another_cell_makes_a_cell_missing(store):
    store.put(CELLS, ALL)
    for name in ("metrics.jsonl", "config.json"):
        path, other = (store.folder(cell) / name for cell in CELLS[:2])
        own = path.read_bytes()
        path.write_bytes(other.read_bytes())
        assert statuses(store) == ["missing", "completed", "completed"]
        path.unlink()
        assert statuses(store) == ["missing", "completed", "completed"]
        assert name in store.outcome(CELLS[0]).error != module.NOT_RUN
        path.write_bytes(own)
    assert statuses(store) == ["completed"] * 3
    (store.folder(CELLS[1]) / "result.json").unlink()
    assert store.outcome(CELLS[1]).error == module.NOT_RUN


def test_a_cell_of_an_older_version_is_taken_as_it_is(store):
    put_old(store, CELLS[0], old(0))
    found = store.outcome(CELLS[0])
    assert (found.status, found.hashed, len(found.history)) == ("completed", False, 2)
    assert found.record["environment"]["dropjax"] == "0.5.2"


@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_a_hash_that_was_taken_out_is_damage(store, name):
    store.put(CELLS, ALL)
    path = store.folder(CELLS[0]) / name
    path.write_text(json.dumps(record.read(path)[0]))
    assert statuses(store)[0] == "missing" and "has no sha256" in store.outcome(CELLS[0]).error


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"test_accuracy": 5.0}, "test_accuracy=5.0"),
        ({"test_accuracy": -0.1}, "test_accuracy=-0.1"),
        ({"test_nll": "0.1"}, "test_nll='0.1'"),
        ({"validation_rmse": True}, "validation_rmse=True"),
        ({"status": "complete"}, "status='complete'"),
        ({"status": None}, "status=None"),
    ],
)
def test_what_no_run_measures_is_damage_even_without_a_hash(store, result, words):
    put_old(store, CELLS[0], old(0, **result))
    assert store.outcome(CELLS[0]).error.endswith(f"is damaged: {words}")


@pytest.mark.parametrize("damage", [None, b'{"step": 1}\n{"st', b"[1]\n", b"\xff"])
def test_a_history_of_an_older_version_that_is_damaged_or_gone_is_noticed(store, damage):
    put_old(store, CELLS[0], old(0))
    path = store.folder(CELLS[0]) / "metrics.jsonl"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert statuses(store)[0] == "missing" and "metrics.jsonl" in store.outcome(CELLS[0]).error


def test_a_cell_whose_numbers_would_be_others_now_is_missing_and_says_why(tmp_path):
    def changes(version: str | None, cell: Cell) -> list[str]:
        return ["DropBlock rescales"] if version == "0.5.2" and cell in CELLS else []

    store = Store(tmp_path, changes)
    store.begin(PLAN)
    store.put(CELLS[:1], ALL[:1])
    put_old(store, CELLS[1], old(1))
    assert statuses(store) == ["completed", "missing", "missing"]
    assert store.outcome(CELLS[1]).error == (
        "it has other numbers than version 0.5.2 gave: DropBlock rescales"
    )


def test_a_cell_in_the_folder_of_another_is_missing(store):
    """Its files fit each other, but not the cell."""
    store.put(CELLS, ALL)
    shutil.rmtree(store.folder(CELLS[0]))
    shutil.copytree(store.folder(CELLS[1]), store.folder(CELLS[0]))
    assert statuses(store) == ["missing", "completed", "completed"]
    assert store.outcome(CELLS[0]).error.endswith("holds another cell: seed is 1, not 0")


def test_numbers_that_json_has_not_are_written_as_null(store):
    made = files(0, test_nll=float("inf"), learned={"a": [float("nan"), 1.0]})
    made["metrics.jsonl"].append({"loss": float("-inf")})
    store.put(CELLS[:1], [made])
    found = store.outcome(CELLS[0])
    assert found.result["test_nll"] is None and found.result["learned"] == {"a": [None, 1.0]}
    assert found.history[-1] == {"loss": None}


def test_the_digests_are_of_the_files(store):
    store.put(CELLS[:1], ALL[:1])
    folder = store.folder(CELLS[0])
    result, sealed = record.read(folder / "result.json")
    history = hashlib.sha256((folder / "metrics.jsonl").read_bytes()).hexdigest()
    config = json.loads((folder / "config.json").read_text())["sha256"]
    assert sealed and result["files"] == {"config.json": config, "metrics.jsonl": history}


@pytest.mark.parametrize("damage", ["{", "[]", "", '{"command": "x"}'])
def test_a_damaged_plan_is_said_and_written_anew(store, damage, capsys):
    store.put(CELLS, ALL)
    (store.path / "ablation.json").write_text(damage)
    assert Store(store.path).before() == {} and store.holds()
    assert Store(store.path).begin(PLAN) is None
    assert "ablation.json is damaged: it is written anew" in capsys.readouterr().out
    assert statuses(store) == ["completed"] * 3 and store.before() == PLAN


def test_a_plan_of_an_older_version_is_read(store):
    before = {k: v for k, v in PLAN.items() if k != "dropjax"}
    before["environment"] = {"dropjax": "0.5.2"}
    (store.path / "ablation.json").write_text(json.dumps(before))
    assert Store(store.path).begin(PLAN) == "first"


def test_a_grid_may_grow_and_the_way_it_is_run_may_not_change(store):
    store.put(CELLS, ALL)
    Store(store.path).begin(PLAN | {"command": "second"})
    assert json.loads((store.path / "ablation.json").read_text())["command"] == "second"
    for name, value in (("exact", True), ("experiment", "other")):
        with pytest.raises(LaunchError, match=rf"{name}=.*, and this one has {name}={value};"):
            Store(store.path).begin(PLAN | {name: value})
    assert statuses(store) == ["completed"] * 3


def test_what_a_single_run_repeats_of_its_flags_is_no_number(store):
    """Cells that were run one by one say the same as those in lanes."""
    single = {"dataset": "digits", "resumed_from_step": None, "mc_samples": 2}
    store.put(CELLS[:2], [files(1, seed=0), files(1, **single, examples_per_second=1.0)])
    first, second = map(store.outcome, CELLS[:2])
    assert first.result == second.result == {"test_accuracy": 0.1}
