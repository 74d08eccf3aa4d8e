"""The words of an ablation: a cell is one run of its grid, an outcome is what became of it."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run.

    Args:
      id: a hash of all that decides its results.
      scheme: the entry of --dropout that it belongs to, as it was written: what is compared.
      setting: its value of each flag that is swept, by the flag's name, without the seed; None
        where the flag has no meaning for the scheme (`none` has no rate).
      seed: runs of one seed are paired.
      config: every flag, resolved.
      command: what makes this run alone.
    """

    id: str
    scheme: str
    setting: dict[str, Any]
    seed: int
    config: dict[str, Any]
    command: str


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a cell.

    Args:
      cell: which.
      status: "completed", "diverged" (its loss became infinite or NaN), "failed" or "missing".
      result: the numbers of result.json, such as "validation_accuracy", "test_accuracy" and
        "mc_test_nll"; None where there is no number. Empty if it is missing.
      history: a record an epoch, as metrics.jsonl has them.
      error: why it failed or is missing, or at which step it diverged.
      record: its config.json, which says by which command it was made, and where; empty if it is
        missing.
      hashed: whether its files hold their hashes; those of versions before 0.6 do not.
    """

    cell: Cell
    status: str
    result: dict[str, Any]
    history: list[dict[str, Any]]
    error: str = ""
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    hashed: bool = True
