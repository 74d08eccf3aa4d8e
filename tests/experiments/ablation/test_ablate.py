"""An ablation from its grid to its files, in this process; tests/scripts has it from outside."""

import csv

import pytest

from experiments.ablation import ablate as module
from experiments.ablation.ablate import Options, ablate
from experiments.ablation.grid import Grid
from experiments.setup import LaunchError

FIXED = {"dataset": "digits", "model": "mlp(widths=(4,))", "epochs": 1, "batch_size": 512}
GRID = Grid("mnist", ("none", "bernoulli"), {"rate": (0.1, 0.9)}, (0,), FIXED | {"mc_samples": 0})
DECIDED = Options("none", stop="decided", max_seeds=6)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_seeds_are_added_to_the_chosen_settings_alone(tmp_path, monkeypatch):
    assert ablate(GRID, tmp_path, DECIDED) == 0
    first, added = rows(tmp_path / "cells.csv"), rows(tmp_path / "cells_added.csv")
    assert [row["seed"] for row in first] == ["0"] * 3
    best = max((row for row in first[1:]), key=lambda row: float(row["validation_accuracy"]))
    assert len(added) == 12 and {row["seed"] for row in added} == {*"123456"}
    assert {row["dropout"] for row in added} == {"none", best["dropout"]}
    table = (tmp_path / "table.md").read_bytes()
    assert b"Seeds added until it was decided" in table and b" 6 more seeds" in table
    assert b"--stop=decided --max_seeds=6" in table

    def refuse(*arguments):
        raise AssertionError("it is all there")

    monkeypatch.setattr(module, "local", refuse)
    assert ablate(GRID, tmp_path, DECIDED) == 0
    assert (tmp_path / "table.md").read_bytes() == table


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options("none", stop="decided", shard=(0, 2)), "leave out --shard"),
        (Options("none", stop="decided", only="tables"), "would do nothing with --only=tables"),
        (Options("none", stop="decided", max_seeds=5), "max_seeds=5: of 1 comparisons .* than 6"),
    ],
)
def test_adding_seeds_that_could_not_decide_is_refused(options, words, tmp_path):
    with pytest.raises(LaunchError, match=words):
        ablate(GRID, tmp_path / "new", options)
    assert not (tmp_path / "new").exists()


def test_one_scheme_has_nothing_to_be_decided(tmp_path):
    grid = Grid("mnist", ("none",), {}, (0,), FIXED)
    with pytest.raises(LaunchError, match="there is one scheme"):
        ablate(grid, tmp_path / "new", DECIDED)
