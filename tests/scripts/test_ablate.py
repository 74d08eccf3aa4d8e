"""An ablation from the command line, cut off and continued."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_python

FLAGS = (
    *("--dataset=digits", "--model=mlp(widths=(4,))", "--epochs=2", "--batch_size=256"),
    *("--optimizer=sgd(momentum=0.9)", "--learning_rate=0.2"),
)
GRID = ("--dropout=none,bernoulli", "--rate=0.1,0.3", "--seeds=3", "--mc_samples=0", "--lanes=1")


def ablate(workdir: Path, *arguments: str):
    return run_python("-m", "scripts.ablate", *FLAGS, *arguments, f"--workdir={workdir}")


SCRIPT = """
import contextlib, io, json, pathlib, sys
from absl import flags
from absl.testing import flagsaver
from scripts import ablate

open("file", "w").close()
found = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = ablate.main(ablate._parsed(["ablate", *arguments]))
        except SystemExit as error:
            status = error.code
    files = sorted(str(path) for path in pathlib.Path(".").rglob("*") if path.is_file())
    found.append([status, out.getvalue(), err.getvalue(), files])
    flags.FLAGS.unparse_flags()
print(json.dumps(found))
"""


def in_one_process(
    commands: list[list[str]], folder: Path
) -> list[tuple[int, str, str, list[str]]]:
    """The status of each command, its output and errors, and the files in the folder then."""
    commands = [[*FLAGS, *arguments] for arguments in commands]
    done = run_python("-c", SCRIPT, json.dumps(commands), cwd=folder, HOME=".")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def results(workdir: Path) -> dict[str, int]:
    """When each cell was done."""
    found = workdir.glob("cells/*/result.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def said(workdir: Path) -> dict[str, bytes]:
    names = ["cells.csv", "table.md", "report.html", "ablation.json"]
    pictures = sorted((workdir / "figures").iterdir())
    paths = [*(workdir / name for name in names), *pictures, *sorted(workdir.glob("sites_*.txt"))]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An ablation that was not disturbed. Not to be changed."""
    path = tmp_path_factory.mktemp("whole") / "ablation"
    done = ablate(path, *GRID)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for words in ("9 cells of mlp(widths=(4,)): 108 steps", "rate=0.3", f"folder {path}"):
        assert words in done.stdout
    return path


def test_help_on_schemes_and_models_is_printed_and_nothing_runs(tmp_path):
    done = ablate(tmp_path / "none", "--dropout=help", "--model=help")
    assert done.returncode == 0 and done.stdout.count(" takes a name") == 2, done.stderr
    assert not (tmp_path / "none").exists()


def test_it_leaves_its_files(whole):
    assert len(results(whole)) == 9
    files = said(whole)
    assert {"cells.csv", "table.md", "report.html", "sites_0.txt", "sites_1.txt"} <= set(files)
    assert any(name.startswith("figures/") for name in files)
    assert files["cells.csv"].count(b"\n") == 10
    about = json.loads(files["ablation.json"])
    assert about["exact"] is False and about["swept"] == ["rate"]
    assert "--rate=0.1,0.3" in about["command"] and str(whole) not in about["command"]


def test_it_is_killed_and_continued_as_if_it_was_not(whole, tmp_path):
    path = tmp_path / "killed"
    command = [sys.executable, "-m", "scripts.ablate", *FLAGS, *GRID, f"--workdir={path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while len(results(path)) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    before = results(path)
    assert 3 <= len(before) < 9 and not (path / "table.md").exists()
    done = ablate(path, *GRID)
    assert done.returncode == 0, done.stderr
    # The one that was packed when it was killed, if any, is unpacked now.
    assert re.search(r"[345678] cells are there already; \d are left", done.stdout)
    after = results(path)
    assert len(after) == 9 and {id: after[id] for id in before} == before
    assert said(path) == said(whole)


def test_shards_make_the_whole_and_a_larger_grid_adds_to_it(whole, tmp_path):
    path = tmp_path / "grown"
    small, where = [*GRID, "--rate=0.1", "--seeds=2"], f"--workdir={path}"
    commands = [[*small, f"--shard={i}/2", where] for i in range(2)]
    first, last = in_one_process(commands, tmp_path)
    assert first[0] == 0, first
    assert "2 cells of other shards are missing; the last shard writes" in first[1]
    assert sum(file.endswith("/result.json") for file in first[3]) == 2
    assert "grown/table.md" not in first[3]
    assert last[0] == 0 and (path / "table.md").exists()
    before = results(path)
    assert len(before) == 4
    assert ablate(path, *GRID).returncode == 0
    after = results(path)
    assert len(after) == 9 and {id: after[id] for id in before} == before
    assert said(path) == said(whole)


REFUSED = [
    (["--sedes=3"], "Unknown command line flag 'sedes'. Did you mean: seeds"),
    (["--seeds=0"], "flag --seeds=0: 0 is not"),
    (["--lanes=0"], "flag --lanes=0: 0 is not"),
    (["--grid=batch_sice=32"], "'batch_sice=32' is not flag=value,value"),
    (["--grid=epochs=0,1"], "--epochs is swept by --grid; leave it out"),
    (["--dropout=none,bernouli"], "did you mean bernoulli?"),
    (["--rate=2"], "rate is the probability of dropping, in [0, 1]; got 2.0"),
    (["--rate=0.1", "--dropout=none"], "rate would do nothing for any of none"),
    (["--baseline=gaussian"], "baseline='gaussian' is not compared"),
    (["--shard=4/4"], "shard='4/4' is not i/n with i from 0 to n - 1"),
    (["--shard=0/2"], "name the folder by --workdir"),
    (["--only=tables"], "name the folder by --workdir"),
    (["--exact", "--lanes=2"], "--lanes would do nothing"),
    (["--dropout=none,zoneout"], "zoneout(rate=0.1) acts on STATE sites"),
    (["--validation=0", "--rate=0.1,0.2"], "there is no validation split to choose one on"),
    (["--workdir=file"], "--workdir=file is no folder"),
    (["--workdir=~/file"], "--workdir=file is no folder"),
    (["--workdir="], "--workdir is empty"),
    (["--workdir=."], "--workdir must name a folder for this ablation alone, got ."),
    (["--grid=strength=0.5,0.50"], "strength=0.5 and 0.50 are the same; leave one out"),
    (["here"], "unexpected arguments: here"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> list[tuple[int, str, str, list[str]]]:
    """What many commands say, one after another in one process and an empty folder."""
    commands = [arguments for arguments, _ in REFUSED]
    commands.append(["--dropout=none,bernoulli,gaussian", "--only=plan", "--workdir=new"])
    commands.append([*GRID, "--only=plan", "--workdir=new"])
    return in_one_process(commands, tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda i: " ".join(REFUSED[i][0]))
def test_what_cannot_start_is_refused_and_writes_nothing(answers, number):
    status, out, err, there = answers[number]
    assert status == 2 and err.startswith("ablate: ") and REFUSED[number][1] in err
    assert err.count("\n") == 1 and there == ["file"] and "Traceback" not in out


def test_a_plan_is_printed_and_nothing_written(answers):
    status, out, err, there = answers[-1]
    assert status == 0 and not err and there == ["file"]
    for words in ("bernoulli  rate=0.3", "3 seeds", "9 cells", "Programs to compile: 2"):
        assert words in out
    assert "No difference can be found with 3 seeds" in out and "(--seeds=6)" in out


def test_the_default_is_the_fewest_seeds_that_can_show_a_difference(answers):
    status, out, _, _ = answers[-2]
    assert status == 0 and "21 cells" in out
    assert "7 seeds can show a difference: 2 comparisons with the baseline take 7" in out
