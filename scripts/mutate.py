"""Puts faults into the code, one at a time, and tells which of them no test notices.

  python -m scripts.mutate
  python -m scripts.mutate --only='ops/|schemes/' --jobs=2
  python -m scripts.mutate --compare
  python -m scripts.mutate --record

The faults are in tests/mutations.toml, each with the tests that ought to fail. Each is put into a
copy of the checkout in a temporary folder, never into the checkout; its tests run there in a
process of their own until the first one fails. Tests that take longer than --limit count as failed.

Before that the same tests run without any fault (--nocheck leaves that out): tests that fail anyway
would notice everything.

Prints a line for each fault and a table by package. Exit status 0; 1 if with --compare a fault
survived that the file says was killed; 2 if something could not be run. All faults took 7 minutes
with --jobs=2 and --nocheck on 2 cores.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("mutate", "the checkout is as it was")

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutations.toml"
LIMIT = 300.0
"""Seconds that the tests of one fault may take."""

_PYTEST = ("-x", "-n", "0", "-q", "-p", "no:cacheprovider")
# At the top, beside the packages; one of those is called runs too.
_NOT_COPIED = (".git", ".venv", "build", "dist", "runs")
_HEAD = "[[mutation]]"
_FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.MULTILINE)
# Of pytest: tests failed; or a module could not be imported, at which -x interrupts it.
_RED, _INTERRUPTED = 1, 2
# Of Python: what broken code can do to it. Other signals come from without.
_CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One fault, as the list has it.

    Args:
      name: what is broken.
      file: where, from the checkout's root.
      old: text that stands once in the file.
      new: what replaces it.
      tests: arguments of pytest.
      killed: whether the tests failed when it was last recorded; None if it was not.
      by: the first test that failed then.
    """

    name: str
    file: str
    old: str
    new: str
    tests: list[str]
    killed: bool | None = None
    by: str = ""

    @property
    def package(self) -> str:
        """The folder of the file."""
        return str(Path(self.file).parent)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the tests of a fault said.

    Args:
      killed: whether one of them failed.
      by: the first that failed, or "the time limit".
      seconds: that they took.
      error: why they could not be run at all; "" if they could.
    """

    killed: bool
    by: str
    seconds: float
    error: str = ""


def read(path: Path) -> list[Mutation]:
    """The faults of a list, in its order.

    Raises:
      TypeError: one lacks a field, or has one that there is not.
    """
    return [Mutation(**fields) for fields in tomllib.loads(path.read_text())["mutation"]]


def problems(mutations: Sequence[Mutation], root: Path) -> list[str]:
    """What is wrong with a list for a checkout: a sentence for each fault that cannot be tried."""
    names = [mutation.name for mutation in mutations]
    found = [f"{name}: the name stands there twice" for name in names if names.count(name) > 1]
    for mutation in mutations:
        why = _problem(mutation, root)
        if why:
            found.append(f"{mutation.name}: {why}")
    return found


def _problem(mutation: Mutation, root: Path) -> str:
    file = root / mutation.file
    if not file.is_file():
        return f"there is no file {mutation.file}"
    text = file.read_text()
    count = text.count(mutation.old)
    if count != 1:
        return f"{mutation.old!r} stands {count} times in {mutation.file}, not once"
    if mutation.old == mutation.new:
        return "it changes nothing"
    try:
        compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
    except SyntaxError as error:
        return f"{mutation.file} would not compile: {error}"
    files = [argument for argument in mutation.tests if argument.startswith("tests")]
    missing = [name for name in files if not (root / name.partition("::")[0]).exists()]
    if missing or not files:
        return f"there is no file of tests {', '.join(missing)}".rstrip()
    return ""


class Runner:
    """Runs tests in copies of a checkout.

    Args:
      root: the checkout.
      folder: an empty one, for the copies.
      jobs: how many copies, which work at the same time.
      limit: seconds that a process of pytest may take.
    """

    def __init__(self, root: Path, folder: Path, jobs: int = 1, limit: float = LIMIT) -> None:
        self._limit = limit
        self._copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._processes: set[subprocess.Popen[str]] = set()
        self._written = 0
        self._stopped = False
        for number in range(jobs):
            copy = folder / f"copy_{number}"
            shutil.copytree(root, copy, ignore=_ignored(root))
            self._copies.put(copy)

    def try_one(self, mutation: Mutation) -> Outcome:
        """Puts a fault into a copy, runs its tests there, and takes it out again."""
        with self._copy() as copy:
            file = copy / mutation.file
            text = file.read_text()
            self._write(file, text.replace(mutation.old, mutation.new))
            try:
                return self._run(copy, mutation.tests)
            finally:
                if not self._stopped:
                    self._write(file, text)

    def check(self, tests: Sequence[str]) -> str:
        """Runs tests without a fault: "" if they pass, else which failed, or why none ran."""
        with self._copy() as copy:
            outcome = self._run(copy, tests)
        return outcome.error or outcome.by

    def stop(self) -> None:
        """Kills what is running, which then says nothing of a fault."""
        self._stopped = True
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Path]:
        copy = self._copies.get()
        try:
            yield copy
        finally:
            self._copies.put(copy)

    def _write(self, file: Path, text: str) -> None:
        """Writes a source file with a time that none had before.

        Python takes a compiled file for current by the source's size and its time in seconds.
        """
        file.write_text(text)
        self._written += 1
        then = 1_000_000_000 + self._written
        os.utime(file, (then, then))

    def _run(self, copy: Path, tests: Sequence[str]) -> Outcome:
        base = copy.with_name(f"{copy.name}_tmp")
        command = [sys.executable, "-m", "pytest", *_PYTEST, f"--basetemp={base}", *tests]
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._processes.add(process)
        try:
            output, _ = process.communicate(timeout=self._limit)
        except subprocess.TimeoutExpired:
            return Outcome(True, "the time limit", time.monotonic() - began)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it started
            process.communicate()
            self._processes.discard(process)
        seconds = time.monotonic() - began
        if self._stopped:
            return Outcome(False, "", seconds, error="it was stopped")
        return _outcome(process.returncode, output, seconds)


def _ignored(root: Path) -> Callable[[str, list[str]], set[str]]:
    """What is not copied of a checkout, as `shutil.copytree` asks for it."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        left = _NOT_COPIED if Path(folder) == root else ()
        return {name for name in names if name in left or name == "__pycache__"}

    return ignored


def _outcome(status: int, output: str, seconds: float) -> Outcome:
    """What an exit status of pytest and its output say."""
    if status == 0:
        return Outcome(False, "", seconds)
    failed = _FAILED.search(output)
    if status in (_RED, _INTERRUPTED) and failed:
        return Outcome(True, failed[1], seconds)
    if status in _CRASHES:
        return Outcome(True, f"the end of Python by {signal.Signals(-status).name}", seconds)
    last = (output.strip() or "nothing was printed").splitlines()[-1]
    return Outcome(False, "", seconds, error=f"pytest ended with status {status}: {last}")


def together(mutations: Iterable[Mutation]) -> list[list[str]]:
    """The tests of these faults, once each, in as few calls of pytest as can be."""
    files: dict[str, None] = {}
    chosen: dict[tuple[str, ...], None] = {}
    for mutation in mutations:
        if any(argument.startswith("-") for argument in mutation.tests):
            chosen[tuple(mutation.tests)] = None
        else:
            files |= dict.fromkeys(mutation.tests)
    return [[*files]] * bool(files) + [list(tests) for tests in chosen]


def recorded(text: str, outcomes: Mapping[str, Outcome]) -> str:
    """The text of a list with what was found in it; all else of it stays.

    Args:
      text: of the list. The line of `tests` is the last of a fault's own.
      outcomes: by the faults' names.
    """
    first, *blocks = text.split(_HEAD)
    made = []
    for block in blocks:
        outcome = outcomes.get(tomllib.loads(block)["name"])
        if outcome is not None:
            block = re.sub(r"^(killed|by) = .*\n", "", block, flags=re.MULTILINE)
            found = f"killed = {str(outcome.killed).lower()}\n"
            if outcome.by:
                found += f"by = {json.dumps(outcome.by, ensure_ascii=False)}\n"
            line = re.search(r"^tests = .*\n", block, re.MULTILINE)
            if line is None:
                raise ValueError(f"there is no line with tests in {block}")
            block = block[: line.end()] + found + block[line.end() :]
        made.append(block)
    return _HEAD.join([first, *made])


def line(mutation: Mutation, outcome: Outcome) -> str:
    """What became of a fault."""
    word = "killed" if outcome.killed else "SURVIVED"
    said = f"{word} by {outcome.by}" if outcome.by else word
    if outcome.error:
        said = f"NOT RUN: {outcome.error}"
    return f"{mutation.package}: {mutation.name}: {said}, {outcome.seconds:.0f} s"


def table(mutations: Sequence[Mutation], outcomes: Mapping[str, Outcome]) -> str:
    """How many faults of each package were killed, now and when it was last recorded."""
    rows = [("package", "faults", "killed", "recorded")]
    for package in (*dict.fromkeys(mutation.package for mutation in mutations), "all"):
        own = [m for m in mutations if package in (m.package, "all")]
        killed = sum(outcomes[m.name].killed for m in own)
        rows.append((package, str(len(own)), str(killed), str(sum(bool(m.killed) for m in own))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def lost(mutations: Sequence[Mutation], outcomes: Mapping[str, Outcome]) -> list[str]:
    """The names of the faults that were killed once and are not now."""
    return [m.name for m in mutations if m.killed and not outcomes[m.name].killed]


def try_all(runner: Runner, mutations: Sequence[Mutation], jobs: int) -> Iterator[Outcome]:
    """What becomes of each fault, in order."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(runner.try_one, mutations)


def main(argv: list[str]) -> int:
    """Tries the faults that are asked for, and prints what became of them."""
    if argv[1:]:
        program.complain(f"mutate: unexpected arguments: {' '.join(argv[1:])}")
        return 2
    given = flags.FLAGS
    listed = read(LIST)
    mutations = [m for m in listed if re.search(given.only, f"{m.file}: {m.name}")]
    wrong = problems(listed, ROOT)
    if not mutations:
        wrong.append(f"--only={given.only!r} finds no fault")
    if wrong:
        program.complain("\n".join(f"mutate: {why}" for why in wrong))
        return 2
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        runner = Runner(ROOT, Path(folder), given.jobs, given.limit)

        def tidy() -> None:
            runner.stop()
            shutil.rmtree(folder, ignore_errors=True)

        with program.tidying(tidy):
            return _tried(runner, mutations)


def _tried(runner: Runner, mutations: Sequence[Mutation]) -> int:
    given = flags.FLAGS
    for tests in together(mutations) if given.check else ():
        red = runner.check(tests)
        if red:
            program.complain(f"mutate: without any fault: {red}")
            return 2
    outcomes: dict[str, Outcome] = {}
    for mutation, outcome in zip(mutations, try_all(runner, mutations, given.jobs), strict=True):
        outcomes[mutation.name] = outcome
        program.write(line(mutation, outcome))
        if given.record and not outcome.error:  # at once: it may be stopped
            LIST.write_text(recorded(LIST.read_text(), {mutation.name: outcome}))
    program.write(f"\n{table(mutations, outcomes)}")
    gone = lost(mutations, outcomes)
    for name in gone:
        program.write(f"SURVIVED, and was killed before: {name}")
    if any(outcome.error for outcome in outcomes.values()):
        return 2
    return 1 if gone and given.compare else 0


def _define_flags() -> None:
    """Not where this is imported: other modules have flags of the same names."""
    flags.DEFINE_string(
        "only", "", "A regular expression: the faults that are tried, by 'file: name'."
    )
    flags.DEFINE_integer("jobs", 1, "How many are tried at the same time.", lower_bound=1)
    flags.DEFINE_float("limit", LIMIT, "Seconds that the tests of a fault may take.")
    flags.DEFINE_bool("check", True, "First run the same tests without any fault.")
    flags.DEFINE_bool("compare", False, "Fail if a fault survives that was killed before.")
    flags.DEFINE_bool("record", False, "Write what was found into tests/mutations.toml.")


if __name__ == "__main__":
    _define_flags()
    program.launch("mutate", main)
