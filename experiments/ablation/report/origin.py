"""Where the cells of an ablation were made: by their own records, not by the call that reports."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dropjax.core.text import counted
from experiments.ablation.cells import Outcome

_FACTS = {
    "dropjax": ("dropjax",),
    "git_commit": ("git_commit",),
    "python": ("python",),
    **{
        name: ("versions", name)
        for name in ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn", "safetensors")
    },
    "backend": ("backend",),
    "device": ("device_kind",),
    "devices": ("devices",),
}
"""What is told of a cell, each by its path in the environment that the cell's record has."""

COLUMNS = ("dropjax", "git_commit", "jax", "device", "devices")
"""The facts that cells.csv has."""


def facts(outcome: Outcome) -> dict[str, str]:
    """Where one cell was made: versions, commit, device; without what its record does not say.

    Args:
      outcome: of the cell.
    """
    known = {}
    for name, path in _FACTS.items():
        value: Any = outcome.record.get("environment")
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            known[name] = str(value)
    return known


def origin(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Where the cells with a result were made; how many in each place, if there are several.

    Args:
      outcomes: of all cells. A cell that belongs to two settings is counted once.
    """
    counts = _counts(outcomes)
    return {name: _text(values) for name, values in counts.items()}


def warnings(outcomes: Sequence[Outcome]) -> list[str]:
    """Warnings about where the cells were made, in a sentence or two each.

    Args:
      outcomes: as in `origin`.
    """
    said = []
    mixed = {name: values for name, values in _counts(outcomes).items() if len(values) > 1}
    if mixed:
        listed = "; ".join(f"{name} {_text(values)}" for name, values in mixed.items())
        said.append(
            f"Mixed: the cells were not all made by one version on one kind of device. {listed}. "
            "Differences between schemes may come from that; cells.csv says which cell is which."
        )
    old = sum(not outcome.hashed for outcome in _different(outcomes))
    if old:
        said.append(
            f"{counted(old, 'cell')} of a version before 0.6, which wrote no hashes: "
            "the files cannot be checked, and are taken as they are."
        )
    return said


def _different(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes that the tables show, each cell once."""
    kept = {o.cell.id: o for o in outcomes if o.status in ("completed", "diverged")}
    return list(kept.values())


def _counts(outcomes: Sequence[Outcome]) -> dict[str, Counter[str]]:
    """How many cells there are of each value of each fact, in the order of the facts."""
    by_cell = [facts(outcome) for outcome in _different(outcomes)]
    named = [name for name in _FACTS if any(name in known for known in by_cell)]
    return {name: Counter(known.get(name, "unknown") for known in by_cell) for name in named}


def _text(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    parts = (f"{value} ({counted(n, 'cell')})" for value, n in sorted(values.items()))
    return ", ".join(parts)
