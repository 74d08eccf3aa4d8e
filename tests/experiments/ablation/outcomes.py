"""Outcomes of ablations that never ran."""

import itertools
from typing import Any

import numpy as np

from experiments.ablation.cells import Cell, Outcome

ABOUT = {
    "experiment": "mnist",
    "command": "python -m scripts.ablate --experiment=mnist --dropout='none,bernoulli' --seeds=6",
    "shared": {"dataset": "digits", "model": "mlp(widths=(32,))", "epochs": 3, "data_dir": "/data"},
    "swept": ["rate", "batch_size"],
    "environment": {
        "dropjax": "0.3.0",
        "git_commit": None,
        "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
        "device_kind": "cpu",
    },
    "data_sha256": "58618fc6",
    "mask_stream": 2,
}


def grid(schemes: dict[str, dict[str, list[Any]]], seeds: int) -> list[Cell]:
    """The cells of schemes with the values of each flag that are swept for each."""
    names = list(dict.fromkeys(name for flags in schemes.values() for name in flags))
    cells = []
    for scheme, flags in schemes.items():
        for values in itertools.product(*(flags.get(name, [None]) for name in names)):
            setting = dict(zip(names, values, strict=True))
            for seed in range(seeds):
                config = {"dropout": scheme, "seed": seed, "epochs": 3, "data_dir": None} | setting
                text = ",".join(f"{k}={v}" for k, v in setting.items())
                cells.append(
                    Cell(
                        id=f"c{len(cells):04d}",
                        scheme=scheme,
                        setting=setting,
                        seed=seed,
                        config=config,
                        command=f"python -m experiments.mnist --dropout='{scheme}' # {text} {seed}",
                    )
                )
    return cells


def completed(cell: Cell, **result: Any) -> Outcome:
    """A run that completed, with a history of three epochs that ends at its validation results."""
    history = []
    for epoch in (1, 2, 3):
        record = {"step": 10 * epoch, "epoch": epoch, "train_loss": 1 / epoch}
        for name in ("accuracy", "rmse"):
            if result.get(f"validation_{name}") is not None:
                record[f"validation_{name}"] = result[f"validation_{name}"] * (
                    1 - 0.5 ** (2 * epoch)
                )
                record["validation_loss"] = (1 - result[f"validation_{name}"] / 2) / epoch
        history.append(record)
    return Outcome(cell, "completed", {"status": "completed", **result}, history)


def accuracies(cells: list[Cell], validation: list[Any], test: list[float]) -> list[Outcome]:
    """Runs that completed with these results, cell by cell."""
    pairs = zip(cells, validation, test, strict=True)
    return [completed(c, validation_accuracy=v, test_accuracy=t) for c, v, t in pairs]


def small() -> list[Outcome]:
    """Three seeds, numbers that can be worked out by hand."""
    validation = [0.90, 0.92, 0.91, 0.93, 0.93, 0.93, 0.94, 0.90, 0.97]
    test = [0.80, 0.82, 0.84, 0.99, 0.99, 0.99, 0.83, 0.82, 0.90]
    return accuracies(grid({"none": {}, "bernoulli": {"rate": [0.1, 0.3]}}, 3), validation, test)


def lost(cell: Cell, status: str, error: str = "") -> Outcome:
    """A run without a result."""
    return Outcome(cell, status, {} if status == "missing" else {"status": status}, [], error)


def classifiers(cells: list[Cell], *, seed: int = 0, noise: float = 0.004) -> list[Outcome]:
    """Runs whose accuracy depends on the rate, with noise of the seed and of the run."""
    rng = np.random.default_rng(seed)
    of_seed = rng.normal(0, noise, size=1 + max(cell.seed for cell in cells))
    outcomes = []
    for cell in cells:
        rate = cell.setting.get("rate") or 0.0
        best = 0.97 - 0.2 * (rate - 0.3) ** 2 - 0.00003 * (cell.setting.get("batch_size") or 32)
        validation, test = best + of_seed[cell.seed] + rng.normal(0, noise, size=2)
        outcomes.append(
            completed(
                cell,
                train_accuracy=min(best + 0.03 - 0.05 * rate, 1.0),
                validation_accuracy=validation,
                validation_nll=1 - validation,
                test_accuracy=test,
                test_nll=1.2 - test,
                mc_test_accuracy=test + 0.001 if cell.scheme != "none" else None,
                seconds=rng.uniform(),
                parameters=100,
                learned={},
            )
        )
    return outcomes


QUOTED = 'bernoulli(rate=0.2,at="stage_[01]/map")|bernoulli(rate=0.5,at="<hidden>")'
"""A scheme whose text has all that must be escaped somewhere."""


def example() -> list[Outcome]:
    """An ablation with two flags swept, seven seeds, and two cells that are lost."""
    rates, sizes = {"rate": [0.1, 0.3, 0.5]}, {"batch_size": [32, 128]}
    schemes = {"bernoulli": rates | sizes, "none": sizes, QUOTED: sizes}
    outcomes = classifiers(grid(schemes, 7))
    outcomes[1] = lost(outcomes[1].cell, "diverged", "at step 310")
    outcomes[22] = lost(outcomes[22].cell, "failed", "OSError: <b>no | `space`</b>\nleft")
    return outcomes
