"""An ablation from the command line, cut off and continued."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, run_python

FLAGS = (
    *("--dataset=digits", "--model=mlp(widths=(4,))", "--epochs=2", "--batch_size=256"),
    *("--optimizer=sgd(momentum=0.9)", "--learning_rate=0.2"),
)
GRID = ("--dropout=none,bernoulli", "--rate=0.1,0.3", "--seeds=3", "--mc_samples=0", "--lanes=1")
SMALL = (*GRID, "--rate=0.1", "--seeds=2")
REFUSED = [
    (["--sedes=3"], "Unknown command line flag 'sedes'. Did you mean: seeds"),
    (["--seeds=0"], "flag --seeds=0: 0 is not"),
    (["--lanes=0"], "flag --lanes=0: 0 is not"),
    (["--grid=epochs=0,1"], "--epochs is swept by --grid; leave it out"),
    (["--rate=2"], "rate is the probability of dropping, in [0, 1]; got 2.0"),
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
    (["here"], "unexpected arguments: here"),
]
COMMANDS = {
    **{" ".join(arguments): arguments for arguments, _ in REFUSED},
    "help": ["--dropout=help", "--model=help", "--workdir=new"],
    "plan": [*GRID, "--only=plan", "--workdir=new"],
    "plan of three": ["--dropout=none,bernoulli,gaussian", "--only=plan", "--workdir=new"],
    "whole": [*GRID, "--workdir=whole"],
    "small": [*SMALL, "--shard=0/2", "--workdir=grown"],
    "first shard": [*GRID, "--shard=0/2", "--workdir=grown"],
    "last shard": [*GRID, "--shard=1/2", "--workdir=grown"],
    "continued": [*GRID, "--workdir=killed"],
}
"""Run in this order, in one process: most of what they take is the start of Python."""
SCRIPT = """
import contextlib, io, json, pathlib, sys
from absl import flags
from absl.testing import flagsaver
from scripts import ablate


def files():
    found = [path for path in pathlib.Path(".").rglob("*") if path.is_file()]
    return {(str(path), path.stat().st_mtime_ns) for path in found}


answers = {}
for name, arguments in json.loads(sys.argv[1]).items():
    out, err, before = io.StringIO(), io.StringIO(), files()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = ablate.main(ablate._parsed(["ablate", *arguments]))
        except SystemExit as error:
            status = error.code
    written = sorted(path for path, _ in files() - before)
    answers[name] = status, out.getvalue(), err.getvalue(), written
    flags.FLAGS.unparse_flags()
print(json.dumps(answers))
"""


class Answer(NamedTuple):
    """What a command says, and the files that it writes."""

    status: int
    out: str
    err: str
    written: list[str]

    @property
    def cells(self) -> set[str]:
        """Those that it did itself."""
        return {Path(path).parent.name for path in self.written if path.endswith("/result.json")}


def done_in(workdir: Path) -> set[str]:
    return {path.parent.name for path in workdir.glob("cells/*/result.json")}


def said(workdir: Path) -> dict[str, bytes]:
    names = ["cells.csv", "table.md", "report.html", "ablation.json"]
    pictures = sorted((workdir / "figures").iterdir())
    paths = [*(workdir / name for name in names), *pictures, *sorted(workdir.glob("sites_*.txt"))]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a file, and an ablation that was killed."""
    path = tmp_path_factory.mktemp("ablations")
    (path / "file").touch()
    command = [sys.executable, "-m", "scripts.ablate", *FLAGS, *GRID, f"--workdir={path}/killed"]
    with (path / "file").open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    end = time.monotonic() + 120
    while len(done_in(path / "killed")) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert not (path / "killed" / "table.md").exists()
    return path


@pytest.fixture(scope="module")
def killed(folder) -> set[str]:
    """The cells that were done when it was killed."""
    return done_in(folder / "killed")


@pytest.fixture(scope="module")
def answers(folder, killed) -> dict[str, Answer]:
    commands = {name: [*FLAGS, *arguments] for name, arguments in COMMANDS.items()}
    done = run_python("-c", SCRIPT, json.dumps(commands), cwd=folder, HOME=".")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: Answer(*answer) for name, answer in found.items()}


def test_what_cannot_start_is_refused_and_writes_nothing(answers):
    for arguments, words in REFUSED:
        status, out, err, written = answers[" ".join(arguments)]
        assert status == 2 and err.startswith("ablate: ") and words in err, arguments
        assert err.count("\n") == 1 and not written and "Traceback" not in out, arguments


def test_help_on_schemes_and_models_is_printed_and_nothing_runs(answers):
    status, out, err, written = answers["help"]
    assert status == 0 and out.count(" takes a name") == 2, err
    assert not written


def test_a_plan_is_printed_and_nothing_written(answers):
    status, out, err, written = answers["plan"]
    assert status == 0 and not err and not written
    for words in ("bernoulli  rate=0.3", "3 seeds", "9 cells", "Programs to compile: 2"):
        assert words in out
    assert "No difference can be found with 3 seeds" in out and "(--seeds=6)" in out


def test_the_default_is_the_fewest_seeds_that_can_show_a_difference(answers):
    status, out, _, _ = answers["plan of three"]
    assert status == 0 and "21 cells" in out
    assert "7 seeds can show a difference: 2 comparisons with the baseline take 7" in out


def test_it_leaves_its_files(answers, folder):
    status, out, err, _ = answers["whole"]
    assert status == 0 and "Traceback" not in err
    for words in ("9 cells of mlp(widths=(4,)): 108 steps", "rate=0.3", "folder whole"):
        assert words in out
    assert len(answers["whole"].cells) == 9
    files = said(folder / "whole")
    assert {"cells.csv", "table.md", "report.html", "sites_0.txt", "sites_1.txt"} <= set(files)
    assert any(name.startswith("figures/") for name in files)
    assert files["cells.csv"].count(b"\n") == 10
    about = json.loads(files["ablation.json"])
    assert about["exact"] is False and about["swept"] == ["rate"]
    assert "--rate=0.1,0.3" in about["command"] and "whole" not in about["command"]


def test_it_is_killed_and_continued_as_if_it_was_not(answers, folder, killed):
    assert 3 <= len(killed) < 9
    status, out, err, _ = answers["continued"]
    assert status == 0, err
    # The one that was packed when it was killed, if any, is unpacked now.
    assert re.search(r"[345678] cells are there already; \d are left", out)
    assert answers["continued"].cells == done_in(folder / "killed") - killed
    assert said(folder / "killed") == said(folder / "whole")


def test_shards_make_the_whole_and_a_larger_grid_adds_to_it(answers, folder):
    small, first, last = (answers[name] for name in ("small", "first shard", "last shard"))
    assert small.status == 0, small
    assert "2 cells of other shards are missing; the last shard writes" in small.out
    assert first.status == 0 and "the last shard writes" in first.out and last.status == 0
    assert len(small.cells) == 2 and len(small.cells | first.cells | last.cells) == 9
    assert len(first.cells) + len(last.cells) == 7 and first.cells and last.cells
    assert "grown/table.md" not in small.written + first.written
    assert said(folder / "grown") == said(folder / "whole")
