"""How a program ends when it is stopped, or when a file or a terminal fails.

The module that is run calls `begin` before it imports modules that take time. From then on Ctrl-C
and SIGTERM end the program soon, with one line. No exception is raised: in a callback of JAX it
would be swallowed, and the program would go on.
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


class _Ending:
    """What is known of the program by the thread that waits for signals."""

    def __init__(self) -> None:
        self.name = ""  # of the program, once it has begun
        self.after: str | Callable[[], str] = _NOTHING
        self.settled = False
        self.received: tuple[int, ...] = ()
        self.held: object | None = None
        self.raises = False
        self.tidying: tuple[Callable[[], Any], ...] = ()


_ending = _Ending()


def begin(name: str, after: str = _NOTHING) -> None:
    """Makes SIGINT and SIGTERM end this process with a line, and status 130 or 143.

    Afterwards any text can be written to the standard streams: what goes to a stream that was
    closed is lost, and a letter that a stream cannot show is written as its number.

    Args:
      name: of the program, which begins the line.
      after: see `say_if_stopped`.
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
    _ending.name, _ending.after = name, after
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in _SIGNALS:
        signal.signal(number, _note)
    # A thread acts also while this one waits in XLA, where no handler of Python's is run.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def say_if_stopped(after: str | Callable[[], str] = _NOTHING) -> None:
    """Sets the message that is printed if the program is stopped or a file fails.

    Args:
      after: what is kept, and how it is continued; or a function that returns this text.
    """
    if not _ending.settled:
        _ending.after = after


@contextlib.contextmanager
def same_message() -> Iterator[None]:
    """Within, `say_if_stopped` changes nothing, as what runs is a part of something larger."""
    before, _ending.settled = _ending.settled, True
    try:
        yield
    finally:
        _ending.settled = before


def message_if_stopped() -> str:
    """The message that `say_if_stopped` has set."""
    after = _ending.after
    return after if isinstance(after, str) else after()


@contextlib.contextmanager
def tidying(function: Callable[[], Any]) -> Iterator[None]:
    """Calls a function if a signal ends the process within."""
    before, _ending.tidying = _ending.tidying, (*_ending.tidying, function)
    try:
        yield
    finally:
        _ending.tidying = before


@contextlib.contextmanager
def held() -> Iterator[Callable[[], int]]:
    """Within, a first signal is only noted; a second one ends the program at once.

    Yields:
      A function that returns the number of the first signal, or 0.
    """
    mark = object()
    before = {}
    if not _ending.name:  # a caller of the functions, with handlers of its own
        _ending.received = ()
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def note(number: int, frame: Any) -> None:
            _note(number, frame)
            for caught, handler in before.items():
                signal.signal(caught, handler)

        for number in _SIGNALS:
            signal.signal(number, note)
    _ending.held = mark
    try:
        yield lambda: _ending.received[0] if _ending.received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # After a first one the program is ending; only a second one may be quicker.
        if before or not _ending.received:
            _ending.held = None


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Within, a first signal raises KeyboardInterrupt, so that what runs can end in order."""
    _ending.raises = True
    try:
        yield
    finally:
        _ending.raises = False


def guarded(name: str) -> Callable[[Callable[[list[str]], int]], Callable[[list[str]], int]]:
    """Makes a main function return 2, after a line that names the file, if a file fails.

    Args:
      name: of the program, which begins the line.
    """

    def guard(main: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
        @functools.wraps(main)
        def guarded_main(argv: list[str]) -> int:
            try:
                return main(argv)
            except OSError as error:
                complain(f"{name}: {reason(error)}; {message_if_stopped()}")
                return 2
            except KeyboardInterrupt:
                number = _ending.received[0] if _ending.received else signal.SIGINT
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

    absl itself prints help, and what is wrong with a flag, before `main` is called. If this cannot
    be written, absl and Python would print a traceback.

    Args:
      name: of the program, which begins the line.
      main: takes the arguments that are not flags, and returns the exit status.
      argv: the words of the command; None for those of this process.
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
    """Prints the output of a program.

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
    """Drops what is written to "stdout" or "stderr", also what Python has not written yet."""
    try:
        descriptor = getattr(sys, stream).fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    except (AttributeError, OSError, ValueError):
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115


def stop(number: int) -> None:
    """Ends the process as a signal does, after a part of it has received the signal."""
    if _ending.name:
        _end(number)
    signal.raise_signal(number)  # to the handlers of the caller


def _note(number: int, frame: Any) -> None:
    del frame
    _ending.received = (*_ending.received, number)
    if _ending.raises and len(_ending.received) == 1:
        raise KeyboardInterrupt


def _watch(reader: int) -> None:
    """Ends the process when a signal comes, unless it is the first that is held."""
    mark, first, since = None, 0, 0.0
    while True:
        for number in os.read(reader, 64):
            if number not in _SIGNALS:
                continue
            now = _ending.held or (_ending if _ending.raises else None)
            same = number == first and time.monotonic() - since < _TOGETHER
            if now is None or (now is mark and not same):
                _end(number)
            if now is not mark:
                mark, first, since = now, number, time.monotonic()


def _line(number: int) -> str:
    return f"{signal.Signals(number).name}: stopped; {message_if_stopped()}"


def _end(number: int) -> None:
    for function in _ending.tidying:
        with contextlib.suppress(Exception):
            function()
    line = f"{_ending.name}: {_line(number)}\n".encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        os.write(2, line)
    os._exit(128 + number)
