"""What a run prints at its end, and its picture."""

import contextlib
import io
import math
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dropjax.disk import write_whole

_HEADS = {
    "accuracy": "accuracy",
    "nll": "NLL",
    "ece": "ECE",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
}


def table(result: dict[str, Any]) -> str:
    """The results as aligned text."""
    metrics = [name for name in _HEADS if f"test_{name}" in result]
    lines = [f"{'':24}" + "".join(f"{_HEADS[name]:>10}" for name in metrics)]
    named = {
        "train": "train_",
        "validation": "validation_",
        "test": "test_",
        f"test, {result['mc_samples']} draws": "mc_test_",
    }
    for name, prefix in named.items():
        values = [result.get(prefix + metric) for metric in metrics]
        if values[0] is not None:
            cells = ["" if value is None else f"{value:.4f}" for value in values]
            lines.append(f"{name:24}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join([*lines, *_learned(result.get("learned") or {})])


def _learned(found: dict[str, dict[str, float]]) -> list[str]:
    """What the scheme has learned, a line a site."""
    if not found:
        return []
    rows = [
        f"{site:24}" + "".join(f"   {name} {value:.4g}" for name, value in numbers.items())
        for site, numbers in found.items()
    ]
    return ["", "learned", *rows]


def draw_curves(history: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws loss and, where there is one, accuracy against epochs, of training and validation.

    Args:
      history: a record an epoch, as metrics.jsonl has them; what was not finite is missing.
      title: above.
      path: a PNG file.
    """
    epochs = [record["epoch"] for record in history]
    classes = any("train_accuracy" in record for record in history)
    metrics = ("loss", "accuracy") if classes else ("loss",)
    with picture(path, 4.0 * len(metrics), 3.2, dpi=100) as figure:
        axes = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axis, metric in zip(axes, metrics, strict=True):
            for part, label in (("train", "train (with dropout)"), ("validation", "validation")):
                values = [record.get(f"{part}_{metric}") for record in history]
                if any(value is not None for value in values):
                    drawn = [math.nan if value is None else value for value in values]
                    axis.plot(epochs, drawn, marker="." if len(epochs) < 20 else "", label=label)
            axis.set_xlabel("epoch")
            loss = "cross-entropy (nats)" if classes else "squared error, standardised"
            axis.set_ylabel(loss if metric == "loss" else metric)
            axis.grid(alpha=0.3)
        axes[0].set_yscale("log")
        axes[0].legend(frameon=False)
        figure.suptitle(in_lines(title, 52 * len(metrics)), fontsize=9, parse_math=False)


@contextlib.contextmanager
def picture(path: Path, width: float, height: float, *, dpi: int) -> Iterator[Any]:
    """Gives a Matplotlib figure, and writes what is then drawn in it to a file.

    Whatever settings a user has, it is the same file. Texts of others (a scheme, a path) are to be
    drawn with `parse_math=False`: a pair of "$" in them would be mathematics.

    Args:
      path: a PNG file, written whole or not at all.
      width, height: in inches.
      dpi: dots an inch.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        # Letters that the font has not are boxes, and a figure too small for its texts is drawn.
        warnings.simplefilter("ignore")
        figure, file = Figure(figsize=(width, height), layout="constrained"), io.BytesIO()
        yield figure
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    write_whole(path, file.getvalue())


def in_lines(text: str, width: int, most: int = 6) -> str:
    """A text as it can be drawn.

    What no font has is escaped: control characters, and bytes of a path that are no UTF-8.

    Args:
      text: any.
      width: letters in a line.
      most: lines; what is left then is cut.
    """
    escaped = text.encode("utf-8", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped)
    return "\n".join(textwrap.wrap(plain, width, max_lines=most, placeholder=" ..."))
