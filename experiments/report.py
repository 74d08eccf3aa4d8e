"""What a run prints at its end, and its picture."""

from pathlib import Path
from typing import Any

_RESULTS = ("accuracy", "nll", "ece")


def table(result: dict[str, Any]) -> str:
    """The results as aligned text."""
    lines = [f"{'':24}{'accuracy':>10}{'NLL':>10}{'ECE':>10}"]
    named = {
        "train": "train_",
        "validation": "validation_",
        "test": "test_",
        f"test, {result['mc_samples']} draws": "mc_test_",
    }
    for name, prefix in named.items():
        values = [result.get(prefix + metric) for metric in _RESULTS]
        if values[0] is not None:
            cells = ["" if value is None else f"{value:.4f}" for value in values]
            lines.append(f"{name:24}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def draw_curves(history: list[dict[str, float]], title: str, path: Path) -> None:
    """Draws train and validation loss and accuracy against epochs.

    Args:
      history: a record an epoch, as metrics.jsonl has them.
      title: above.
      path: a PNG file.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    epochs = [record["epoch"] for record in history]
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "train (with dropout)"), ("validation", "validation")):
            values = [record.get(f"{part}_{metric}") for record in history]
            if None not in values:
                axis.plot(epochs, values, marker="." if len(epochs) < 20 else "", label=label)
        axis.set_xlabel("epoch")
        axis.set_ylabel("cross-entropy (nats)" if metric == "loss" else metric)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].legend(frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
