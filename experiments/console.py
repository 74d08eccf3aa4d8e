"""What a person sees of a run."""

import sys
import time
from typing import Any

import tqdm

from experiments import program


class Console:
    """Lines, and on a terminal a progress bar below them.

    A stream that cannot be written to (`| head`, a full disk, a terminal that was closed) is silent
    from then on; the run goes on.

    Args:
      total: steps in all.
      done: steps done before.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self._bar = bar(total=total, initial=done, unit="step")
        self._last_line = 0.0
        self._validation: dict[str, float] = {}

    def advance(self, steps: int, means: dict[str, float]) -> None:
        """Shows that `steps` more are done, with the epoch's means and the last validation."""
        shown = means | self._validation
        self._bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items()}, refresh=False)
        self._bar.update(steps)

    def epoch(self, record: dict[str, float], epochs: int) -> None:
        """Shows an epoch's metrics; where there is no bar, a line every two seconds at most."""
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
    """A progress bar, which shows itself on a terminal alone.

    Args:
      **options: as tqdm takes them.
    """
    return tqdm.tqdm(
        dynamic_ncols=True,
        disable=not program.is_terminal(),
        file=_Stderr(),  # type: ignore[arg-type]
        **options,
    )


class _Stderr:
    """The standard stream, whose failures do not matter."""

    def write(self, text: str) -> None:
        program.write(text, "stderr", end="")

    def __eq__(self, other: object) -> bool:
        return (
            other is self or other is sys.stderr
        )  # for tqdm, which makes way for lines on a terminal

    def flush(self) -> None:
        pass  # each write has done so

    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def say(line: str) -> None:
    """Prints a line at once. Where it cannot be printed, it is not, and the run goes on."""
    with tqdm.tqdm.external_write_mode():
        program.write(line)
