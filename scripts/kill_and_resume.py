"""Kills a run again and again, resumes it, and demands the bits of a run that was never stopped.

  python -m scripts.kill_and_resume
  python -m scripts.kill_and_resume --kills=20 -- --dropout=zoneout --epochs=100

What follows `--` goes to `python -m experiments.mnist`; without it, an LSTM on the digits. One run
is left alone. Others are killed by SIGKILL after random times, spread over the time that the first
one took, and resumed, until --kills processes died; what then is left is run to its end.
A run that ends before its kill is compared, and a new folder begun. Beside the checkpoints lie
torn ones under temporary names, as a kill in the middle of writing leaves them.

Takes 4 to 6 minutes on 2 cores. Prints a line for each kill and each completed run, then "ALL
EQUAL", with exit status 0, if every completed run has the first one's result.json (parameters,
measures; not the times) and metrics.jsonl bit for bit. Exit status 1 otherwise, and the folders
are kept.
"""

import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from absl import app, flags

from dropjax.runs import record

KILLS = flags.DEFINE_integer("kills", 10, "Processes to kill.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments of the kills.")
FOLDER = flags.DEFINE_string("folder", None, "Where runs are kept. Default: a temporary folder.")

_CHECKOUT = Path(__file__).resolve().parent.parent
# Training and Monte-Carlo last long enough that kills land in both.
_RUN = (
    "--model=rnn(width=128)",
    "--dropout=variational",
    "--dataset=digits",
    "--epochs=200",
    "--mc_samples=600",
)
_VARIES = ("seconds", "examples_per_second", "resumed_from_step", "files")
_PHASES = ("start-up", "training", "evaluation")
_TORN_CHECKPOINTS = ("tmp-0000000041-1", "tmp-9999999999-1", "tmp-removed-0000000000")
_TORN_FILES = ("config.json.tmp-1", "result.json.tmp-1")


class Failure(Exception):
    """A process failed by itself, or no kill could be delivered."""


@dataclasses.dataclass(frozen=True)
class Runner:
    """Starts runs.

    Args:
      arguments: for the experiment.
      root: holds the runs' folders.
    """

    arguments: tuple[str, ...]
    root: Path

    def log(self, name: str) -> Path:
        """The file with what a run's processes printed."""
        return self.root / f"{name}.log"

    def run(self, name: str, kill_after: float | None = None) -> float | None:
        """Starts or resumes a run, and waits until it ends or is killed.

        Args:
          name: of its folder.
          kill_after: seconds until SIGKILL; None for never.

        Returns:
          The seconds it took if it completed; None if it was killed.

        Raises:
          Failure: it ended with an exit status other than 0.
        """
        path = self.root / name
        command = [sys.executable, "-m", "experiments.mnist", *self.arguments, f"--workdir={path}"]
        # Killed before it wrote config.json, it has claimed nothing yet.
        if (path / "config.json").exists():
            command.append("--resume")
        began = time.perf_counter()
        # Compiled programs in a place of their own: a kill may tear one, and not the user's.
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "XDG_CACHE_HOME": str(self.root / "cache"),
        }
        with self.log(name).open("a") as log:
            process = subprocess.Popen(
                command, cwd=_CHECKOUT, env=environment, stdout=log, stderr=log
            )
            try:
                status = process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
                if status == -signal.SIGKILL:
                    return None
            finally:
                process.kill()  # for when this script is stopped
        if status:
            raise Failure(f"{path}: exit status {status}; see {name}.log beside it")
        return time.perf_counter() - began


def step_of(path: Path) -> int | None:
    """The step of a run's newest checkpoint."""
    found = [p.name for p in (path / "checkpoints").glob("*") if re.fullmatch(r"\d{10}", p.name)]
    return int(max(found)) if found else None


def chunks_logged(path: Path) -> int:
    """How many lines timing.jsonl has: it grows in training, over all processes of a run."""
    log = path / "timing.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def phase_of(path: Path, said: str, trained: bool, last_step: int | None) -> str:
    """What a process that was killed was doing.

    Args:
      path: its run.
      said: what it had printed.
      trained: whether it logged a chunk of training.
      last_step: the last of the whole run.
    """
    if step_of(path) == last_step and (trained or f"resuming from step {last_step}" in said):
        return "evaluation"
    return "training" if trained else "start-up"


def leftovers(path: Path) -> list[str]:
    """Files and folders under temporary names."""
    return sorted(p.name for p in [*path.glob("*tmp-*"), *path.glob("checkpoints/*tmp-*")])


def plant_leftovers(path: Path) -> None:
    """Puts torn files where a kill in the middle of writing leaves them."""
    if not (path / "config.json").exists():
        return
    checkpoints = path / "checkpoints"
    for name in _TORN_CHECKPOINTS:
        (checkpoints / name).mkdir(parents=True, exist_ok=True)
        (checkpoints / name / "state.safetensors").write_bytes(b"\x08\x00\x00\x00torn")
    for name in _TORN_FILES:
        (path / name).write_text('{"torn')


def outcome(path: Path) -> tuple[dict[str, Any], bytes]:
    """What must be equal: result.json without what varies, and the bytes of metrics.jsonl."""
    result, _ = record.read(path / "result.json")
    fixed = {name: value for name, value in result.items() if name not in _VARIES}
    return fixed, (path / "metrics.jsonl").read_bytes()


def differences(path: Path, reference: Path) -> list[str]:
    """Names of what a completed run has otherwise than the reference."""
    (result, metrics), (expected, expected_metrics) = outcome(path), outcome(reference)
    names = sorted(result.keys() | expected.keys())
    different = [name for name in names if result.get(name) != expected.get(name)]
    return different + ["metrics.jsonl"] * (metrics != expected_metrics)


class Sequences:
    """Runs that are killed and resumed, one folder after the other.

    Args:
      runner: starts them.
      reference: the folder of the run that was left alone.
      seconds: it took.
    """

    def __init__(self, runner: Runner, reference: Path, seconds: float) -> None:
        self.runner, self.reference, self.seconds = runner, reference, seconds
        self.last_step = step_of(reference)
        self.number, self.killed_here = 1, 0
        self.completed = self.unequal = self.misses = 0
        self.phases: Counter[str] = Counter()

    @property
    def path(self) -> Path:
        return self.runner.root / f"killed-{self.number}"

    def kill(self, fraction: float) -> None:
        """Kills one process, starting as many runs anew as end before their kill.

        Args:
          fraction: when, of the time that an uninterrupted run takes.
        """
        while True:
            moment, log = fraction * self.seconds, self.runner.log(self.path.name)
            chunks, said = chunks_logged(self.path), log.stat().st_size if log.exists() else 0
            seconds = self.runner.run(self.path.name, moment)
            if seconds is None:
                break
            self.misses += 1
            if self.misses > 5 * KILLS.value + 10:
                raise Failure("the runs end before they can be killed: train for longer")
            if not self.killed_here:
                self.seconds = seconds  # never interrupted, so a fresher measure of the same
            self._complete()
        self.killed_here += 1
        output, trained = log.read_bytes()[said:].decode(), chunks_logged(self.path) > chunks
        phase = phase_of(self.path, output, trained, self.last_step)
        self.phases[phase] += 1
        step = step_of(self.path)
        torn = set(leftovers(self.path)) - {*_TORN_CHECKPOINTS, *_TORN_FILES}
        print(
            f"kill {self.phases.total():3}  {self.path.name:<10} after {moment:5.1f} s  "
            f"checkpoint {'-' if step is None else step:>6}  in {phase}"
            f"{'  left ' + ' '.join(sorted(torn)) if torn else ''}",
            flush=True,
        )
        plant_leftovers(self.path)

    def finish(self) -> None:
        """Lets the last run end."""
        self.runner.run(self.path.name)
        self._complete()

    def _complete(self) -> None:
        different = differences(self.path, self.reference)
        self.completed += 1
        self.unequal += bool(different)
        verdict = f"DIFFERS in {', '.join(different)}" if different else "equal"
        kept = " ".join(leftovers(self.path))
        print(
            f"          {self.path.name:<10} completed after {self.killed_here} kills: {verdict}"
            f"{f'; still there: {kept}' if kept else ''}",
            flush=True,
        )
        self.number, self.killed_here = self.number + 1, 0


def moments(kills: int, seed: int) -> list[float]:
    """Fractions of a run's time: one uniform in each of `kills` equal parts of it, shuffled.

    Every fifth is then moved into the first tenth, as start-up is short.
    """
    rng = random.Random(seed)
    fractions = [(i + rng.random()) / kills for i in range(kills)]
    rng.shuffle(fractions)
    return [f / 10 if i % 5 == 0 else f for i, f in enumerate(fractions)]


def check(runner: Runner) -> bool:
    """Runs it all; whether everything was equal."""
    seconds = runner.run("uninterrupted")
    assert seconds is not None
    reference = runner.root / "uninterrupted"
    sequences = Sequences(runner, reference, seconds)
    param_hash = outcome(reference)[0]["param_hash"]
    print(
        f"uninterrupted: {seconds:.1f} s, {sequences.last_step} steps, param_hash {param_hash}",
        flush=True,
    )
    for fraction in moments(KILLS.value, SEED.value):
        sequences.kill(fraction)
    sequences.finish()
    phases = ", ".join(f"{sequences.phases[phase]} in {phase}" for phase in _PHASES)
    print(f"{KILLS.value} kills ({phases}), {sequences.completed} completed runs: ", end="")
    print(f"{sequences.unequal} DIFFER" if sequences.unequal else "ALL EQUAL")
    return not sequences.unequal


def main(argv: list[str]) -> int:
    """Runs the check in a folder, which is removed if all is well and nobody named it."""
    root = Path(FOLDER.value or tempfile.mkdtemp(prefix="kill_and_resume-"))
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise app.UsageError(f"folder={root} is not empty")
    good = False
    try:
        good = check(Runner(tuple(argv[1:]) or _RUN, root))
    except Failure as failure:
        print(f"FAILED: {failure}")
    if good and FOLDER.value is None:
        shutil.rmtree(root)
    else:
        print(f"the runs are in {root}")
    return 0 if good else 1


if __name__ == "__main__":
    app.run(main)
