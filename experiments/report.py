"""What a run prints at its end, and its picture."""

from pathlib import Path
from typing import Any

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


def draw_curves(history: list[dict[str, float]], title: str, path: Path) -> None:
    """Draws loss and, where there is one, accuracy against epochs, of training and validation.

    Args:
      history: a record an epoch, as metrics.jsonl has them.
      title: above.
      path: a PNG file.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    epochs = [record["epoch"] for record in history]
    classes = "train_accuracy" in history[0]
    metrics = ("loss", "accuracy") if classes else ("loss",)
    figure, axes = pyplot.subplots(
        1, len(metrics), figsize=(4 * len(metrics), 3.2), layout="constrained", squeeze=False
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        for part, label in (("train", "train (with dropout)"), ("validation", "validation")):
            values = [record.get(f"{part}_{metric}") for record in history]
            if None not in values:
                axis.plot(epochs, values, marker="." if len(epochs) < 20 else "", label=label)
        axis.set_xlabel("epoch")
        loss = "cross-entropy (nats)" if classes else "squared error, standardised"
        axis.set_ylabel(loss if metric == "loss" else metric)
        axis.grid(alpha=0.3)
    axes[0, 0].set_yscale("log")
    axes[0, 0].legend(frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
