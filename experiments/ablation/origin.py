"""Where the cells of an ablation were made: by their own records, not by the call that reports."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from experiments.ablation.cells import Outcome
from experiments.ablation.words import counted

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
"""Each by its path in a record's environment."""

COLUMNS = ("dropjax", "git_commit", "jax", "device", "devices")
"""Those that cells.csv has."""


def facts(outcome: Outcome) -> dict[str, str]:
    """Where one cell was made: versions, commit, device; what its record does not say is left out.

    Args:
      outcome: of the cell.
    """
    found = {}
    for name, path in _FACTS.items():
        value: Any = outcome.record.get("environment")
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            found[name] = str(value)
    return found


def origin(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Where the cells with a result were made. If not all in one place, how many in each.

    Args:
      outcomes: of all cells; one that belongs to two settings is counted once.
    """
    counts = _counts(outcomes)
    return {name: _text(values) for name, values in counts.items()}


def warnings(outcomes: Sequence[Outcome]) -> list[str]:
    """What a reader must know of where the cells were made; a sentence or two each.

    Args:
      outcomes: as in `origin`.
    """
    found = []
    mixed = {name: of for name, of in _counts(outcomes).items() if len(of) > 1}
    if mixed:
        listed = "; ".join(f"{name} {_text(of)}" for name, of in mixed.items())
        found.append(
            f"Mixed: the cells were not all made by one version on one kind of device. {listed}. "
            "Differences between schemes may come from that; cells.csv says which cell is which."
        )
    old = sum(not outcome.hashed for outcome in _different(outcomes))
    if old:
        found.append(
            f"{counted(old, 'cell')} of a version before 0.6, which wrote no hashes: "
            "the files cannot be checked, and are taken as they are."
        )
    return found


def _different(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that have something in the tables, each cell once."""
    kept = {o.cell.id: o for o in outcomes if o.status in ("completed", "diverged")}
    return list(kept.values())


def _counts(outcomes: Sequence[Outcome]) -> dict[str, Counter[str]]:
    """How many cells there are of each value of each fact, in the order of the facts."""
    found = [facts(outcome) for outcome in _different(outcomes)]
    named = [name for name in _FACTS if any(name in of for of in found)]
    return {name: Counter(of.get(name, "unknown") for of in found) for name in named}


def _text(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    parts = (f"{value} ({counted(n, 'cell')})" for value, n in sorted(values.items()))
    return ", ".join(parts)
