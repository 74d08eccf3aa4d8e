"""A run and an ablation that version 0.5.2 made go on, also under a version with more flags.

They lie in v052/, as that version wrote them, without what it said of the machine and of time.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dropjax import runs
from experiments import run
from experiments.ablation.grid import Grid, Reader, plan_cells
from experiments.ablation.runner import make_plan, outcomes, run_plan
from experiments.ablation.store import Store
from experiments.flags import DECLARED, Flags
from experiments.folder import environment
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError
from tests.conftest import ROOT

MADE = Path(__file__).parent / "v052"
GIVEN: dict[str, Any] = {"dataset": "digits", "model": "mlp(widths=(2,))", "epochs": 1}
GIVEN |= {"batch_size": 512, "optimizer": "sgd", "learning_rate": 0.2, "mc_samples": 0}
pytestmark = pytest.mark.usefixtures("no_picture")


@pytest.fixture
def old(tmp_path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "v052"))


def go_on(path: Path, **given: Any) -> int:
    flags = Flags(**given)
    return run.run(EXPERIMENT, flags, path, resume=True, overwrite=False, typed=given.keys())


def test_the_run_goes_on_and_is_the_one_from_the_start(old, tmp_path, capsys):
    path, before = old / "run", (old / "run" / "metrics.jsonl").read_bytes()
    assert go_on(path, epochs=2) == 0
    assert "has no sha256, which its version did not write" in capsys.readouterr().out
    assert (path / "metrics.jsonl").read_bytes().startswith(before)
    flags = Flags(**GIVEN | {"dropout": "bernoulli(rate=0.3)", "epochs": 2})
    fresh = tmp_path / "fresh"
    assert run.run(EXPERIMENT, flags, fresh, resume=False, overwrite=False) == 0
    ours, theirs = runs.load(path), runs.load(fresh)
    # To rounding: the first epoch was trained on another machine.
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(same, ours.params, theirs.params)
    for line, other in zip(ours.history, theirs.history, strict=True):
        assert line == pytest.approx(other, rel=1e-3)
    assert ours.config["command"] == theirs.config["command"].replace(" --test=None", "")
    then = {name for name, flag in DECLARED.items() if flag.since <= (0, 5, 2)}
    assert ours.config["flags"] == {k: v for k, v in theirs.config["flags"].items() if k in then}


def test_a_run_whose_numbers_are_others_now_is_refused_and_it_is_said_why(old):
    path = old / "run" / "config.json"
    config = json.loads(path.read_text())
    config["flags"] |= {"dropout": "bernoulli(rate=1.0)", "rate": 1.0}
    path.write_text(json.dumps(config))
    with pytest.raises(LaunchError, match=r"begun by dropjax 0\.5\.2.*\n  at a rate of 1, where "):
        go_on(path.parent, epochs=2)


def test_the_ablation_s_cells_are_taken_and_those_of_a_larger_grid_are_run(old):
    ran: list[str] = []

    def train(works: Any, advance: Any) -> Any:
        for work in works:
            ran.extend(planned.cell.id for planned in work.cells)
            made = {"result": {"status": "completed"}, "history": [], "lanes": 1, "seconds": 1.0}
            yield work.cells, [made] * len(work.cells), environment()

    path, reader = old / "ablation", Reader(EXPERIMENT, lambda line: None)
    grid = Grid(EXPERIMENT, ("none", "bernoulli"), {"rate": (0.3,)}, (0, 1), GIVEN)
    planned, store = plan_cells(grid, reader), Store(path, reader.changes)
    made = {folder.name for folder in (MADE / "ablation" / "cells").iterdir()}
    assert made == {each.cell.id for each in planned if each.cell.seed == 0}
    before = {file: file.read_bytes() for file in path.rglob("*.json") if file.parent != path}
    assert store.begin({"experiment": "mnist", "exact": False}) is not None
    run_plan(make_plan(planned, lanes=None), store, engine=train)
    assert sorted(ran) == sorted({each.cell.id for each in planned} - made) and len(ran) == 2
    assert all(file.read_bytes() == data for file, data in before.items())
    assert [outcome.status for outcome in outcomes(planned, store)] == ["completed"] * 4


NEW_FLAG = """
import json, sys
from pathlib import Path
from experiments import flags, run
from experiments.ablation.grid import Grid, Reader, plan_cells
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError

path, given = Path(sys.argv[1]), json.loads(sys.argv[2])
assert Flags().made_up == 0.0

def ids(**more):
    grid = Grid(EXPERIMENT, ("none", "bernoulli"), {"rate": (0.3,)}, (0,), given | more)
    planned = plan_cells(grid, Reader(EXPERIMENT, lambda line: None))
    return sorted(each.cell.id for each in planned)

def go_on(**more):
    flags = Flags(epochs=2, **more)
    typed = {"epochs", *more}
    return run.run(EXPERIMENT, flags, path, resume=True, overwrite=False, typed=typed)

try:
    go_on(made_up=0.1)
except LaunchError as error:
    print(error)
said = flags.in_command({"made_up": 0.1, "l1": 0.0, "rate": 0.3})
print(json.dumps([ids(), ids(made_up=0.1), go_on(made_up=0.0), said]))
"""


def test_a_new_flag_at_its_default_changes_no_id_and_lets_an_old_run_go_on(old, tmp_path, python):
    """In a copy of the experiments, in whose one declaration a flag is added."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "experiments", tree / "experiments")
    file = tree / "experiments" / "flags.py"
    text, declared = file.read_text(), "    mc_samples: int | None = _flag("
    assert text.count(declared) == 1
    added = f'    made_up: float = _flag(0.0, "Made up.", since=(9, 0))\n{declared}'
    file.write_text(text.replace(declared, added))
    arguments = (str(old / "run"), json.dumps(GIVEN))
    done = python("-c", NEW_FLAG, *arguments, cwd=tree, PYTHONPATH=f"{tree}:{ROOT}")
    assert done.returncode == 0, done.stderr
    assert "--made_up: was 0.0, is 0.1: the run goes on with what it was begun with" in done.stdout
    ids, others, status, said = json.loads(done.stdout.splitlines()[-1])
    made = {folder.name for folder in (MADE / "ablation" / "cells").iterdir()}
    assert set(ids) == made and not made & set(others)
    assert status == 0 and said == {"made_up": 0.1}
    assert len(runs.load(old / "run").history) == 2


def test_what_is_kept_of_0_5_2_says_nothing_of_a_machine():
    files = [file for file in MADE.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12_000
    for file in files:
        if file.name == "config.json":
            assert json.loads(file.read_text())["environment"] == {"dropjax": "0.5.2"}
        data = file.read_bytes()
        assert not any(word in data for word in (b"/home", b"/root", b"/tmp", b"Linux", b"git_"))
