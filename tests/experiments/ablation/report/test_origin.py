"""Where cells were made, by their own records."""

import csv
import dataclasses
import io

from experiments.ablation.report.origin import COLUMNS, origin, warnings
from experiments.ablation.report.tables import cells_csv
from tests.experiments.ablation.outcomes import completed, grid, lost


def made(cell, **of):
    """A cell of one place."""
    environment = {
        "dropjax": "0.6.0",
        "git_commit": "abc",
        "python": "3.11.7",
        "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
        "backend": "cpu",
        "device_kind": "cpu",
        "devices": 1,
        "cpus": 8,
    }
    return dataclasses.replace(
        completed(cell, test_accuracy=0.5), record={"environment": environment | of}
    )


CELLS = grid({"none": {}, "bernoulli": {}}, 10)


def test_cells_of_one_place_have_one_value_each_and_no_warning():
    outcomes = [made(cell) for cell in CELLS]
    assert origin(outcomes) == {
        "dropjax": "0.6.0",
        "git_commit": "abc",
        "python": "3.11.7",
        "jax": "0.10.2",
        "numpy": "2.4.6",
        "backend": "cpu",
        "device": "cpu",
        "devices": "1",
    }
    assert warnings(outcomes) == []


def test_mixed_cells_are_counted_by_version_commit_and_device():
    outcomes = [made(cell, dropjax="0.5.2", git_commit=None) for cell in CELLS[:15]]
    outcomes += [made(cell, devices=2) for cell in CELLS[15:]]
    found = origin(outcomes)
    assert found["dropjax"] == "0.5.2 (15 cells), 0.6.0 (5 cells)"
    assert found["git_commit"] == "abc (5 cells), unknown (15 cells)"
    assert found["devices"] == "1 (15 cells), 2 (5 cells)" and found["jax"] == "0.10.2"
    (text,) = warnings(outcomes)
    assert text.startswith("Mixed: ") and "dropjax 0.5.2 (15 cells), 0.6.0 (5 cells)" in text
    assert "devices 1 (15 cells), 2 (5 cells)" in text and "jax" not in text.replace("dropjax", "")


def test_a_cell_of_two_settings_is_counted_once_and_one_without_a_result_not_at_all():
    outcomes = [made(CELLS[0]), made(CELLS[0]), made(CELLS[1], dropjax="0.7.0")]
    missing = dataclasses.replace(made(CELLS[2], dropjax="0.1.0"), status="missing")
    found = origin([*outcomes, missing, lost(CELLS[3], "failed")])
    assert found["dropjax"] == "0.6.0 (1 cell), 0.7.0 (1 cell)"


def test_cells_without_hashes_are_counted_in_one_note():
    outcomes = [dataclasses.replace(made(cell), hashed=False) for cell in CELLS[:3]]
    (text,) = warnings([*outcomes, made(CELLS[3])])
    assert text.startswith("3 cells of a version before 0.6, which wrote no hashes: ")


def test_records_that_say_nothing_are_unknown_and_break_nothing():
    odd = [
        dataclasses.replace(made(CELLS[0]), record=record)
        for record in ({}, {"environment": None}, {"environment": {"versions": [1]}})
    ]
    assert origin(odd) == {} and warnings(odd) == []


def test_cells_csv_says_of_each_cell_where_it_was_made():
    text = cells_csv([made(CELLS[0]), made(CELLS[1], devices=2), completed(CELLS[2])])
    rows = list(csv.DictReader(io.StringIO(text)))
    found = [[row[name] for name in COLUMNS] for row in rows]
    assert found == [
        ["0.6.0", "abc", "0.10.2", "cpu", "1"],
        ["0.6.0", "abc", "0.10.2", "cpu", "2"],
        [""] * 5,
    ]
