"""What a run shows on the terminal."""

import sys
import time
from typing import Any

import tqdm

from experiments import program


class Console:
    """Lines, and on a terminal a progress bar below them.

    When a stream cannot be written to any more (`| head`, a full disk, a closed terminal), nothing
    more is shown, and the run goes on.

    Args:
      total: number of steps of the run.
      done: how many of them were done before.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self._bar = bar(total=total, initial=done, unit="step")
        self._last_line = 0.0
        self._validation: dict[str, float] = {}

    def advance(self, steps: int, means: dict[str, float]) -> None:
        """Shows that `steps` more are done, with the means of the epoch and the last validation."""
        shown = means | self._validation
        self._bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items()}, refresh=False)
        self._bar.update(steps)

    def epoch(self, record: dict[str, float], epochs: int) -> None:
        """Shows the metrics of an epoch; without a bar by a line, at most one in two seconds."""
        self._validation = {k: v for k, v in record.items() if k.startswith("validation_")}
        last = record["epoch"] == epochs
        if self._bar.disable and (last or time.monotonic() - self._last_line > 2):
            self._last_line = time.monotonic()
            metrics = "  ".join(
                f"{name} {value:.4f}" for name, value in record.items() if name not in _COUNTERS
            )
            say(f"epoch {record['epoch']}/{epochs}  {metrics}")

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


_COUNTERS = ("step", "epoch")


def bar(**options: Any) -> tqdm.tqdm:
    """A progress bar, shown only on a terminal; the options are tqdm's."""
    return tqdm.tqdm(
        dynamic_ncols=True,
        disable=not program.is_terminal(),
        file=_Stderr(),  # type: ignore[arg-type]
        **options,
    )


class _Stderr:
    """The standard error stream. Its failures are ignored."""

    def write(self, text: str) -> None:
        program.write(text, "stderr", end="")

    def __eq__(self, other: object) -> bool:
        # tqdm compares: it clears its bar before a line is written to the same terminal.
        return other is self or other is sys.stderr

    def flush(self) -> None:
        pass  # each write has flushed

    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def say(line: str) -> None:
    """Prints a line at once. If it cannot be printed, the run goes on without it."""
    with tqdm.tqdm.external_write_mode():
        program.write(line)
