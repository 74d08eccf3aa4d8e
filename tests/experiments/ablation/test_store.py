"""What an ablation leaves on disk, and what is made of it when it was cut off."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.ablation import store as module
from experiments.ablation.cells import Cell
from experiments.ablation.store import Store
from experiments.setup import LaunchError
from tests.experiments.ablation.outcomes import grid

CELLS = grid({"none": {}}, 3)
PLAN = {"experiment": "mnist", "exact": False, "command": "first"}


class Killed(BaseException):
    """What ends a process in the middle."""


def files(number: int, **result: Any) -> dict[str, Any]:
    result = {"status": "completed", "test_accuracy": number / 10, "seconds": 3.0} | result
    history = [{"step": 1, "loss": 2.0 + number}, {"step": 2, "loss": 1.0 + number}]
    return {
        "result.json": result,
        "metrics.jsonl": history,
        "config.json": {"seed": number},
        "timing.json": {"lanes": 3},
    }


ALL = [files(number) for number in range(3)]


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(tmp_path)
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
        assert json.loads((store.folder(cell) / "config.json").read_text()) == {"seed": number}
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
    store.put(CELLS[:1], [files(1)])
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
        patch.setattr(module, "write_whole", write)
        with pytest.raises(Killed):
            store.put(CELLS, ALL)
    again = Store(store.path)
    again.begin(PLAN)
    assert statuses(again) == ["missing"] * 3
    again.put(CELLS, ALL)
    assert statuses(again) == ["completed"] * 3


def test_a_packed_group_that_is_damaged_is_run_again(store):
    (store.path / "groups" / "c0000.json").write_text('{"c0000": {"result.js')
    Store(store.path).begin(PLAN)
    assert statuses(store) == ["missing"] * 3
    assert not list((store.path / "groups").iterdir())


def test_a_group_that_another_process_unpacks_meanwhile_is_no_error(store, monkeypatch):
    packed = store.path / "groups" / "c0000.json"
    packed.write_text("{}")
    real = Path.read_text

    def read(path: Path) -> str:
        path.unlink()
        return real(path)

    monkeypatch.setattr(Path, "read_text", read)
    store._unpack(packed)
    assert not packed.exists()


@pytest.mark.parametrize("damage", ["", "{", '{"status": "comp'])
def test_a_damaged_result_is_missing(store, damage):
    store.put(CELLS, ALL)
    (store.folder(CELLS[1]) / "result.json").write_text(damage)
    assert statuses(store) == ["completed", "missing", "completed"]
    assert "damaged" in store.outcome(CELLS[1]).error


def test_a_cell_without_its_history_has_an_empty_one(store):
    store.put(CELLS, ALL)
    (store.folder(CELLS[0]) / "metrics.jsonl").unlink()
    (store.folder(CELLS[1]) / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    assert [len(store.outcome(cell).history) for cell in CELLS] == [0, 0, 2]


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
    single = {"dataset": "digits", "seed": 3, "resumed_from_step": None, "mc_samples": 2}
    store.put(CELLS[:2], [files(1), files(1, **single, examples_per_second=1.0)])
    first, second = map(store.outcome, CELLS[:2])
    assert first.result == second.result == {"test_accuracy": 0.1}


def test_a_cell_is_named_by_its_id(store):
    cell: Cell = CELLS[2]
    assert store.folder(cell) == store.path / "cells" / cell.id
