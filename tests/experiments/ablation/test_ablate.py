"""An ablation from its grid to its files, in this process; tests/scripts has it from outside."""

import csv
import dataclasses
import json
import shutil

import pytest

from dropjax.runs import record
from experiments import folder
from experiments.ablation import ablate as module
from experiments.ablation import report
from experiments.ablation.ablate import Options, ablate
from experiments.ablation.grid import Grid
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError
from tests.experiments.conftest import contents

FIXED = {"dataset": "digits", "model": "mlp(widths=(4,))", "epochs": 1, "batch_size": 512}
GRID = Grid(
    EXPERIMENT, ("none", "bernoulli"), {"rate": (0.1, 0.9)}, (0,), FIXED | {"mc_samples": 0}
)
# One program serves both schemes and, one at a time, all numbers of seeds.
BASE = "bernoulli(rate=0.5)"
ALIKE = dataclasses.replace(GRID, schemes=(BASE, "bernoulli"))
DECIDED = Options(BASE, lanes=1, stop="decided", max_seeds=6)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def no_figures(monkeypatch):
    """They take longer than the rest."""
    monkeypatch.setattr(report, "_draw", lambda *arguments: ({}, {}))


def test_seeds_are_added_to_the_chosen_settings_alone(tmp_path, monkeypatch, capsys, no_figures):
    assert ablate(ALIKE, tmp_path, DECIDED) == 0
    first, added = rows(tmp_path / "cells.csv"), rows(tmp_path / "cells_added.csv")
    assert [row["seed"] for row in first] == ["0"] * 3
    best = max((row for row in first[1:]), key=lambda row: float(row["validation_accuracy"]))
    assert len(added) == 12 and {row["seed"] for row in added} == {*"123456"}
    assert {row["dropout"] for row in added} == {BASE, best["dropout"]}
    assert "cells_added.csv, figures/" in capsys.readouterr().out
    table = (tmp_path / "table.md").read_bytes()
    assert b"Seeds added until it was decided" in table and b" 6 more seeds" in table
    assert b"--stop=decided --max_seeds=6" in table

    def refuse(*arguments):
        raise AssertionError("it is all there")

    monkeypatch.setattr(module, "local", refuse)
    assert ablate(ALIKE, tmp_path, DECIDED) == 0
    assert (tmp_path / "table.md").read_bytes() == table
    assert "will be of this grid" not in capsys.readouterr().out
    # The tables again, on another machine: not a word changes, and the verdicts are kept.
    before = contents(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    real = folder.environment
    monkeypatch.setattr(folder, "environment", lambda: real() | {"devices": 2})
    assert ablate(ALIKE, tmp_path, Options(BASE, only="tables")) == 0
    assert contents(tmp_path) == before
    assert "will be of this grid" not in capsys.readouterr().out
    # Of added cells that are gone there is no verdict, and it says so.
    for row in rows(tmp_path / "cells_added.csv"):
        shutil.rmtree(tmp_path / "cells" / row["id"])
    assert ablate(ALIKE, tmp_path, Options(BASE, only="tables")) == 0
    assert "no verdicts: 0 seeds added for the baseline cannot" in capsys.readouterr().out
    # Another question in the same folder: what was made for the first one goes, and it says so.
    assert ablate(ALIKE, tmp_path, Options(BASE)) == 0
    assert not (tmp_path / "cells_added.csv").exists()
    assert "will be of this grid; before they were of: python -m scripts.ablate" in (
        capsys.readouterr().out
    )


def test_tables_of_nothing_replace_none(tmp_path, no_figures):
    tables = Options("none", only="tables")
    with pytest.raises(LaunchError, match=r"--only=tables: --workdir=\S*/new holds no ablation"):
        ablate(GRID, tmp_path / "new", tables)
    assert not (tmp_path / "new").exists()
    made = dataclasses.replace(GRID, schemes=("none",), swept={})
    assert ablate(made, tmp_path / "a", Options("none")) == 0
    before = contents(tmp_path)
    other = dataclasses.replace(GRID, fixed=FIXED | {"epochs": 2})
    with pytest.raises(LaunchError, match=r"has no cell of this grid; its .*=none --seeds"):
        ablate(other, tmp_path / "a", tables)
    assert contents(tmp_path) == before
    (tmp_path / "a" / "ablation.json").write_text("{")  # damaged, but all cells are there
    assert ablate(made, tmp_path / "a", tables) == 0
    assert "--dropout=none" in record.read(tmp_path / "a" / "ablation.json")[0]["command"]
    # Of a grid that is there in part: the rest is missing, as the table says.
    assert ablate(GRID, tmp_path / "a", tables) == 1
    assert "it was not run" in (tmp_path / "a" / "table.md").read_text()


def test_a_folder_with_a_single_run_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LaunchError, match="holds a run of an experiment; name another"):
        ablate(GRID, tmp_path, Options("none"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options("none", stop="decided", shard=(0, 2)), "leave out --shard"),
        (Options("none", stop="decided", only="plan"), "would do nothing with --only=plan"),
        (Options("none", stop="decided", max_seeds=5), "max_seeds=5: with 1 comparison it takes 6"),
    ],
)
def test_adding_seeds_that_could_not_decide_is_refused(options, words, tmp_path):
    with pytest.raises(LaunchError, match=words):
        ablate(GRID, tmp_path / "new", options)
    assert not (tmp_path / "new").exists()


def test_one_scheme_has_nothing_to_be_decided(tmp_path):
    grid = Grid(EXPERIMENT, (BASE,), {}, (0,), FIXED)
    with pytest.raises(LaunchError, match="there is one scheme"):
        ablate(grid, tmp_path / "new", DECIDED)


def test_what_lies_in_a_folder_writes_nowhere_else(tmp_path):
    """Whatever somebody put there, before anything is written."""
    path = tmp_path / "a"
    (path / "groups").mkdir(parents=True)
    (path / "mine").write_text("")
    (path / "lock").symlink_to(path / "mine")
    one = dataclasses.replace(GRID, schemes=("none",), swept={})
    before = contents(tmp_path)
    with pytest.raises(LaunchError, match="lock is a symbolic link"):
        ablate(one, path, Options("none"))
    (path / "lock").unlink()
    packed = path / "groups" / "000000000000.json"
    packed.write_text(json.dumps({"../../x": {"result.json": {"status": "completed"}}}))
    with pytest.raises(LaunchError, match=r"it has '\.\./\.\./x', where only cells"):
        ablate(one, path, Options("none"))
    assert contents(tmp_path).keys() - before.keys() == {"a/groups/000000000000.json"}
