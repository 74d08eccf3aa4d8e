"""How programs end: signals, files that fail, and streams that cannot be written to."""

import ast
import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from absl import app

from dropjax.disk import write_whole
from dropjax.runs import record
from dropjax.train.checkpoint import save
from dropjax.train.log import JsonLines
from experiments import console, program
from experiments.ablation import runner, store
from experiments.folder import locked
from tests.conftest import ROOT

# Waits where no handler of Python's is run, as a program does that waits for a compiler.
WAIT = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
AT_ONCE = f"print('ready', flush=True); {WAIT}"
SWALLOWED = f"""
class Object: pass
def callback(reference):
    print("ready", flush=True)
    while True: pass
weak, made = None, Object()
weak = weakref.ref(made, callback)
del made
{WAIT}
"""
HELD = f"""
with program.held() as signalled:
    print("ready", flush=True)
    while not signalled(): pass
    print("noted", signalled(), flush=True)
    {WAIT}
"""
MEANS = "program.say_if_stopped(lambda: 'DIR has a run');"


@contextlib.contextmanager
def running(script: str) -> Iterator[subprocess.Popen[str]]:
    """Once it says that it is ready."""
    begin = "import hashlib, weakref; from experiments import program; program.begin('p');"
    command = [sys.executable, "-c", begin + MEANS + script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process


def ended(script: str, number: signal.Signals) -> tuple[int, str, str]:
    """Status, output and errors of a script that is sent a signal once it is ready."""
    with running(script) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", [AT_ONCE, SWALLOWED], ids=["waits", "in a callback"])
def test_a_signal_ends_a_program_with_one_line(script, number):
    said = f"p: {number.name}: stopped; DIR has a run\n"
    assert ended(script, number) == (128 + number, "", said)


def test_a_held_signal_is_noted_and_a_second_acts_at_once():
    with running(HELD) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # as `timeout` does; it is one
        assert process.stdout.readline() == "noted 15\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "p: SIGINT: stopped; DIR has a run\n"


def test_a_signal_that_a_part_has_taken_ends_the_whole_at_once():
    script = """
with program.held() as signalled:
    print("ready", flush=True)
    while not signalled(): pass
program.stop(signalled())
while True: pass
"""
    assert ended(script, signal.SIGTERM) == (143, "", "p: SIGTERM: stopped; DIR has a run\n")


def test_a_signal_that_ends_the_process_tidies_first(tmp_path):
    script = f"""
import pathlib
from experiments.program import tidying
with tidying(lambda: pathlib.Path({str(tmp_path / "tidy")!r}).touch()):
    {AT_ONCE}
"""
    assert ended(script, signal.SIGTERM)[0] == 143 and (tmp_path / "tidy").exists()


SCRIPTS = [
    ROOT / "scripts" / f"{name}.py" for name in ("ablate", "coverage", "mask_battery", "reference")
]
MAINS = [
    path
    for path in [*(ROOT / "experiments").rglob("*.py"), *SCRIPTS]
    if "__main__" in path.read_text() and path.name not in ("setup.py", "ray_engine.py")
]


@pytest.mark.parametrize("path", MAINS, ids=lambda path: path.stem)
def test_signals_are_minded_before_anything_is_imported(path):
    doc, imported, first, *_ = ast.parse(path.read_text()).body
    assert isinstance(doc, ast.Expr) and ast.unparse(imported) == "from experiments import program"
    assert isinstance(first, ast.If) and ast.unparse(first.test) == "__name__ == '__main__'"
    assert ast.unparse(first.body[0]).startswith("program.begin(")
    assert len(MAINS) >= 11


def test_minding_signals_imports_nothing_that_takes_time(python):
    script = "import sys, experiments.program; print({'jax', 'numpy', 'absl'} & {*sys.modules})"
    assert python("-c", script).stdout.strip() == "set()"


class Broken(io.StringIO):
    """A stream that fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def full() -> Any:
    return open("/dev/full", "w")


def without_reader() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed() -> Any:
    stream = io.StringIO()
    stream.close()
    return stream


def of_another_terminal() -> Any:
    return Broken(OSError(errno.EIO, "Input/output error"))


def ascii() -> Any:
    return io.TextIOWrapper(io.BytesIO(), "ascii")


STREAMS: dict[str, Callable[[], Any]] = {
    **{f.__name__: f for f in (full, without_reader, closed, of_another_terminal, ascii)},
    "none": lambda: None,
}


def of_a_console() -> None:
    shown = console.Console(2)
    shown.advance(1, {"ü": 0.5})
    shown.epoch({"step": 1, "epoch": 1, "validation_ü": 1.0}, 1)
    console.say("ü")
    shown.close()


def of_an_ablation() -> None:
    with runner._progress(2) as advance:
        advance(1)
        console.say("ü")


WRITERS: dict[str, Callable[[], Any]] = {
    "say": lambda: console.say("ü"),
    "complain": lambda: program.complain("ü"),
    "console": of_a_console,
    "ablation": of_an_ablation,
}


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("stream", STREAMS)
def test_no_way_of_writing_to_a_terminal_ends_a_run(monkeypatch, stream, writer, terminal):
    monkeypatch.setattr(program, "is_terminal", lambda: terminal)
    monkeypatch.setattr(runner, "_LINE_EVERY", -1.0)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, STREAMS[stream]())
    WRITERS[writer]()
    WRITERS[writer]()  # and once more, when it is known
    if stream == "ascii" and writer == "say":
        assert sys.stdout.buffer.getvalue() == b"\\xfc\n\\xfc\n"
    for of in (sys.stdout, sys.stderr):
        if of is not None:
            of.close()  # as Python does at exit, where a failure would be status 120


def test_closed_standard_streams_are_no_place_for_files(tmp_path):
    """The next file that is opened would have the number of a stream, and XLA's notes in it."""
    file = tmp_path / "file"
    script = f"""
import os
from experiments import program
program.begin("p")
with open({str(file)!r}, "w") as opened:
    program.write("to stdout"), program.complain("to stderr"), os.write(2, b"XLA")
    assert opened.fileno() > 2
"""
    shell = f'exec "{sys.executable}" -c "$0" >&- 2>&- <&-'
    assert subprocess.run(["sh", "-c", shell, script], cwd=ROOT).returncode == 0
    assert file.read_text() == ""


@pytest.mark.parametrize(
    ("stream", "status", "said"),
    [
        (without_reader, 0, ""),
        (full, 2, "p: standard output: No space left on device; free some space there\n"),
        (closed, 2, "p: standard output: I/O operation on closed file\n"),
    ],
)
def test_what_was_asked_for_must_arrive(monkeypatch, capsys, stream, status, said):
    monkeypatch.setattr(sys, "stdout", stream())
    assert program.deliver("p", "all of it") == status
    sys.stdout.close()
    assert capsys.readouterr().err == said


HELP = ["p", "--help"], ["p", "--helpfull"], ["p", "--none_such"]


@pytest.mark.parametrize("argv", HELP, ids=lambda argv: argv[1])
@pytest.mark.parametrize("stream", [full, without_reader])
def test_help_that_cannot_be_printed_is_no_traceback(monkeypatch, capsys, stream, argv):
    """absl prints it before the main function is called."""
    helps = argv[1].startswith("--help")
    name = "stdout" if helps else "stderr"
    monkeypatch.setattr(sys, name, stream())
    with pytest.raises(SystemExit) as caught:
        program.launch("p", lambda argv: pytest.fail("it was run"), argv)
    getattr(sys, name).close()
    is_full = helps and stream is full
    said = "p: standard output: No space left on device; free some space there\n"
    assert caught.value.code == (2 if is_full else 1)
    assert capsys.readouterr().err == (said if is_full else "")


def test_every_program_is_launched_so():
    """`app.run` alone shows a traceback where its help cannot be printed."""
    files = [*MAINS, *(ROOT / "experiments").rglob("*.py")]
    assert {path.name for path in files if "app.run(" in path.read_text()} == {"program.py"}


def test_what_a_main_function_returns_is_the_status(monkeypatch, capsys):
    # absl's own would change the logging of the tests that follow.
    monkeypatch.setattr(app, "run", lambda main, argv: sys.exit(main(argv)))
    for status in (0, 3):
        with pytest.raises(SystemExit) as caught:
            program.launch("p", lambda argv, status=status: status, ["p"])
        assert (caught.value.code or 0) == status
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def no_space(monkeypatch) -> Callable[[], None]:
    """From its call on no file can be written to: as on a full disk, the error names none."""

    def begin() -> None:
        real = Path.open

        def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            file = real(path, mode, *arguments, **options)
            return file if mode.strip("bt") == "r" else Full(file)

        monkeypatch.setattr(Path, "open", opened)

    return begin


class Full:
    """A file on a full disk."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, *arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    truncate = write

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *arguments: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def lock(path: Path) -> None:
    with locked(path.parent):
        raise AssertionError


FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a record": ("result.json", lambda path: record.write(path, {})),
    "bytes": ("sites.txt", lambda path: write_whole(path, b"sites")),
    "a line": ("metrics.jsonl", lambda path: JsonLines(path).append({})),
    "a checkpoint": ("0000000007", lambda path: save(path.parent, {}, 7)),
    "a lock": ("lock", lock),
    "a cell's file": ("config.json", lambda path: store._replace(path, b"{}")),
}


@pytest.mark.parametrize("what", FILES)
def test_a_full_disk_is_said_with_the_files_name_and_leaves_no_torn_file(
    tmp_path, no_space, capsys, what
):
    name, write = FILES[what]
    path = tmp_path / name

    @program.guarded("p")
    def main(argv: list[str]) -> int:
        write(path)
        return 0

    no_space()
    program.say_if_stopped("all is kept")
    assert main([]) == 2
    err = capsys.readouterr().err
    assert err == f"p: {path}: No space left on device; free some space there; all is kept\n"
    assert not [p for p in tmp_path.rglob("*") if "tmp-" in p.name] or what == "a cell's file"


def test_an_interrupt_without_handlers_is_a_line_as_well(capsys):
    @program.guarded("p")
    def main(argv: list[str]) -> int:
        raise KeyboardInterrupt

    program.say_if_stopped()
    assert main([]) == 130
    assert capsys.readouterr().err == "p: SIGINT: stopped; nothing was begun\n"


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    program.say_if_stopped()
