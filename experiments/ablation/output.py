"""The files of an ablation."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropjax.train.checkpoint import write_whole
from experiments.ablation.analysis import Analysis, analyse
from experiments.ablation.cells import Outcome
from experiments.ablation.decide import Verdict
from experiments.ablation.page import page
from experiments.ablation.tables import cells_csv, table_md


def write(
    workdir: Path,
    outcomes: Sequence[Outcome],
    about: dict[str, Any],
    *,
    baseline: str,
    task: str,
    level: float = 0.95,
    test_examples: int | None = None,
    verdicts: Sequence[Verdict] = (),
    added: Sequence[Outcome] = (),
) -> Analysis:
    """Writes cells.csv, table.md, figures/*.png and report.html, each whole or not at all.

    Those of an earlier call are replaced, or removed if there is nothing to put in their place.

    Args:
      workdir: the ablation's folder; made if need be.
      outcomes: of every cell of the grid, in its order.
      about: as in `tables.table_md`.
      baseline: the scheme that the others are compared with.
      task: of the data.
      level: of the intervals, in (0, 1).
      test_examples: that the test results are of.
      verdicts: of seeds that were added.
      added: the outcomes of those, which cells_added.csv has.

    Returns:
      What they say.

    Raises:
      ValueError: as `analyse`; nothing is written then.
    """
    from experiments.ablation.figures import draw  # Matplotlib takes half a second to import

    analysis = analyse(
        outcomes, baseline=baseline, task=task, level=level, test_examples=test_examples
    )
    analysis = dataclasses.replace(analysis, verdicts=tuple(verdicts))
    figures = draw(analysis, outcomes)
    files = {
        "cells.csv": cells_csv(outcomes).encode(),
        "table.md": table_md(analysis, about).encode(),
        **{f"figures/{_file_name(title)}": picture.png for title, picture in figures.items()},
        "report.html": page(analysis, outcomes, about, figures).encode(),
    }
    if added:
        files["cells_added.csv"] = cells_csv(added).encode()
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_whole(workdir / name, data)
    if not added:
        (workdir / "cells_added.csv").unlink(missing_ok=True)
    for old in (workdir / "figures").glob("*.png"):
        if f"figures/{old.name}" not in files:
            old.unlink()
    return analysis


def _file_name(title: str) -> str:
    return re.sub(r"\W+", "_", title.lower()) + ".png"
