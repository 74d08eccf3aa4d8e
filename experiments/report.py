"""What a run shows at its end: its results as text, and its curves as a picture."""

import math
from pathlib import Path
from typing import Any

from dropjax.core.text import aligned
from experiments.picture import in_lines, picture

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
    lines = [["", *(_HEADS[name] for name in metrics)]]
    named = {
        "train": "train_",
        "validation": "validation_",
        "test": "test_",
        f"test, {result['mc_samples']} draws": "mc_test_",
    }
    for name, prefix in named.items():
        values = [result.get(prefix + metric) for metric in metrics]
        if values[0] is not None:
            lines.append([name, *("" if value is None else f"{value:.4f}" for value in values)])
    least = (24, *[10] * len(metrics))
    text = aligned(lines, right=True, least=least, frame=("", "", ""))
    return "\n".join([*text, *_learned(result.get("learned") or {})])


def _learned(learned: dict[str, dict[str, float]]) -> list[str]:
    """The values that the scheme has learned, a line for each site."""
    if not learned:
        return []
    rows = [
        (site, "   ".join(f"{name} {value:.4g}" for name, value in values.items()))
        for site, values in learned.items()
    ]
    return ["", "learned", *aligned(rows, least=(24, 0), frame=("", "   ", ""))]


def draw_curves(history: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws loss and, where there is one, accuracy against epochs, of training and validation.

    Args:
      history: a record for each epoch, as metrics.jsonl has them; without values that were not
        finite.
      title: stands above the picture.
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
        shown = in_lines(title, 52 * len(metrics), most=6)
        figure.suptitle(shown, fontsize=9, parse_math=False)
