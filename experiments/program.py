"""How a program ends that is stopped, or that a file or a terminal fails.

The module that is run calls `begin` before it imports what takes time. From then on Ctrl-C and
SIGTERM end the program soon, with one line. No exception is raised for that: in a callback of JAX's
it would be swallowed, and the program would go on.
"""

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTHING = "nothing was begun"
_TOGETHER = 1.0
"""Seconds in which the same signal is not a second one: `timeout` sends it twice, to the program
and to its group."""
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EACCES: "change who may read and write it",
    errno.EPERM: "change who may read and write it",
    errno.EROFS: "make it writable",
}


class _State:
    """What the signals' thread needs to know."""

    def __init__(self) -> None:
        self.name = ""  # of the program, once it has begun
        self.after: str | Callable[[], str] = _NOTHING
        self.settled = False
        self.received: tuple[int, ...] = ()
        self.held: object | None = None
        self.raises = False
        self.tidying: tuple[Callable[[], Any], ...] = ()


_state = _State()


def begin(name: str, after: str = _NOTHING) -> None:
    """Makes SIGINT and SIGTERM end this process with a line, and status 130 or 143.

    Also makes standard streams such that writing text to them can be tried: one that was closed
    goes nowhere, and a letter that a stream cannot show is written as its number.

    Args:
      name: of the program, which begins the line.
      after: see `means`.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # or the next file would be taken for the stream
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
        else:
            getattr(sys, stream).reconfigure(errors="backslashreplace")
    _state.name, _state.after = name, after
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in _SIGNALS:
        signal.signal(number, _note)
    # A thread acts also while this one waits in XLA, where no handler of Python's is run.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def means(after: str | Callable[[], str] = _NOTHING) -> None:
    """Sets what is said from now on if the program is stopped or a file fails.

    Args:
      after: what is there then, and what continues it; or what returns that.
    """
    if not _state.settled:
        _state.after = after


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Within, `means` changes nothing: what is run is a part of what was spoken of."""
    before, _state.settled = _state.settled, True
    try:
        yield
    finally:
        _state.settled = before


def meaning() -> str:
    """What `means` was given last."""
    after = _state.after
    return after if isinstance(after, str) else after()


@contextlib.contextmanager
def tidying(function: Callable[[], Any]) -> Iterator[None]:
    """Calls a function if a signal ends the process within."""
    before, _state.tidying = _state.tidying, (*_state.tidying, function)
    try:
        yield
    finally:
        _state.tidying = before


@contextlib.contextmanager
def held() -> Iterator[Callable[[], int]]:
    """Within, a first signal is only noted; a second one acts at once.

    Yields:
      What returns the first signal's number, or 0.
    """
    mark = object()
    before = {}
    if not _state.name:  # a caller of the functions, with handlers of its own
        _state.received = ()
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def note(number: int, frame: Any) -> None:
            _note(number, frame)
            for caught, handler in before.items():
                signal.signal(caught, handler)

        for number in _SIGNALS:
            signal.signal(number, note)
    _state.held = mark
    try:
        yield lambda: _state.received[0] if _state.received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # After a first one the program is ending; only a second one may be quicker.
        if before or not _state.received:
            _state.held = None


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Within, a first signal raises KeyboardInterrupt, for what must be ended in order."""
    _state.raises = True
    try:
        yield
    finally:
        _state.raises = False


def guarded(name: str) -> Callable[[Callable[[list[str]], int]], Callable[[list[str]], int]]:
    """Makes a main function say in one line what file failed, with status 2.

    Args:
      name: of the program, which begins the line.
    """

    def guard(main: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
        @functools.wraps(main)
        def guarded_main(argv: list[str]) -> int:
            try:
                return main(argv)
            except OSError as error:
                complain(f"{name}: {reason(error)}; {meaning()}")
                return 2
            except KeyboardInterrupt:
                number = _state.received[0] if _state.received else signal.SIGINT
                complain(f"{name}: {_line(number)}")
                return 128 + number

        return guarded_main

    return guard


def launch(
    name: str,
    main: Callable[[list[str]], int | None],
    argv: list[str] | None = None,
    **options: Any,
) -> NoReturn:
    """Runs a main function by `absl.app.run`, and exits.

    absl prints by itself, before `main` is called: help, and what is wrong with a flag. Where that
    cannot be written, absl and Python would say so by a traceback.

    Args:
      name: of the program, which begins the line.
      main: takes the arguments that are no flags, and returns the exit status.
      argv: the command's words; None for those of this process.
      **options: of `absl.app.run`.
    """
    from absl import app  # not at the top: `begin` is to come before what takes time

    status: Any = 1  # absl's, after help and after a wrong flag
    failed: OSError | None = None
    try:
        app.run(main, argv, **options)
    except SystemExit as end:
        status = end.code
    except OSError as error:
        failed = error
    lost = [write("", stream, end="") for stream in ("stdout", "stderr")]  # what Python has kept
    error = lost[0] or failed
    if error is not None and not isinstance(error, BrokenPipeError):
        where = "" if getattr(error, "filename", None) else "standard output: "
        complain(f"{name}: {where}{reason(error)}")
        status = 2
    sys.exit(status)


def reason(error: Exception) -> str:
    """The file, what is wrong with it, and what helps, if that is known."""
    if not isinstance(error, OSError):
        return str(error)
    where = "" if error.filename is None else f"{error.filename}: "
    advice = "" if error.errno not in _ADVICE else f"; {_ADVICE[error.errno]}"
    return f"{where}{error.strerror or error}{advice}"


def complain(line: str) -> None:
    """Prints a line on stderr, if that can be written to."""
    write(line, "stderr")


def write(text: str, stream: str = "stdout", end: str = "\n") -> OSError | ValueError | None:
    """Prints a text at once. A stream that cannot be written to is silent from then on.

    Args:
      text: a line.
      stream: "stdout" or "stderr".
      end: what follows.

    Returns:
      Why it could not be written; None if it was.
    """
    try:
        try:
            print(text, end=end, file=getattr(sys, stream), flush=True)
        except UnicodeEncodeError:
            escaped = text.encode("ascii", "backslashreplace").decode()
            print(escaped, end=end, file=getattr(sys, stream), flush=True)
    except (OSError, ValueError) as error:  # full, without a reader, or closed
        silence(stream)
        return error
    return None


def deliver(name: str, text: str) -> int:
    """Prints what a program was asked for.

    Args:
      name: of the program.
      text: the lines.

    Returns:
      The exit status: 0, also if a reader (`| head`) has gone; 2 if it cannot be printed.
    """
    error = write(text)
    if error is None or isinstance(error, BrokenPipeError):
        return 0
    complain(f"{name}: standard output: {reason(error)}")
    return 2


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it was closed
        return False


def silence(stream: str) -> None:
    """Lets what is written to "stdout" or "stderr" go nowhere, also what Python has kept of it."""
    try:
        descriptor = getattr(sys, stream).fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    except (AttributeError, OSError, ValueError):
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115


def stop(number: int) -> None:
    """Ends the process as a signal does, where a part of it has taken the signal for all."""
    if _state.name:
        _end(number)
    signal.raise_signal(number)  # to the handlers of the caller


def _note(number: int, frame: Any) -> None:
    del frame
    _state.received = (*_state.received, number)
    if _state.raises and len(_state.received) == 1:
        raise KeyboardInterrupt


def _watch(reader: int) -> None:
    """Ends the process when a signal comes, unless it is the first that is held."""
    mark, first, since = None, 0, 0.0
    while True:
        for number in os.read(reader, 64):
            if number not in _SIGNALS:
                continue
            now = _state.held or (_state if _state.raises else None)
            same = number == first and time.monotonic() - since < _TOGETHER
            if now is None or (now is mark and not same):
                _end(number)
            if now is not mark:
                mark, first, since = now, number, time.monotonic()


def _line(number: int) -> str:
    return f"{signal.Signals(number).name}: stopped; {meaning()}"


def _end(number: int) -> None:
    for function in _state.tidying:
        with contextlib.suppress(Exception):
            function()
    line = f"{_state.name}: {_line(number)}\n".encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        os.write(2, line)
    os._exit(128 + number)
