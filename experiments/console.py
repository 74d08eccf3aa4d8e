"""What a person sees of a run."""

import os
import sys
import time

import tqdm


class Console:
    """Lines, and on a terminal a progress bar below them.

    A reader that goes away (`| head`) silences it; the run goes on.

    Args:
      total: steps in all.
      done: steps done before.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self._bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
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


def say(line: str) -> None:
    """Prints a line at once."""
    try:
        with tqdm.tqdm.external_write_mode():
            print(line, flush=True)
    except BrokenPipeError:
        # Also what Python would print at exit must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
