"""All that an ablation says: what `write` puts into its folder, and what it is made of.

  analysis  the setting that validation chose for each scheme, and its comparison with the baseline
  decide    verdicts on seeds that are added until each comparison is decided
  origin    where the cells were made, by their own records
  words     sentences
  tables    tables: as values, as Markdown (table.md), as text, and cells.csv
  figures   pictures
  page      report.html

What runs cells imports nothing of it.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropjax.disk import write_whole
from experiments.ablation.cells import Outcome
from experiments.ablation.report.analysis import Analysis, analyse
from experiments.ablation.report.decide import Verdict, add_seeds, check_most
from experiments.ablation.report.origin import origin, warnings
from experiments.ablation.report.page import page
from experiments.ablation.report.tables import answers_text, cells_csv, table_md
from experiments.console import say

if TYPE_CHECKING:
    from experiments.ablation.report.figures import Picture

__all__ = [
    "Analysis",
    "Verdict",
    "add_seeds",
    "analyse",
    "answers_text",
    "check_most",
    "origin",
    "warnings",
    "write",
]

_FIGURES = (
    *("test_error_against_*", "differences_seed_by_seed", "learning_curves"),
    *("training_and_test_error", "error_against_*_and_*"),
)
"""What the files of figures are called, without .png."""


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
    """Writes cells.csv, table.md, report.html and figures/*.png, each whole or not at all.

    Files of an earlier call are replaced, or removed if nothing takes their place. Figures are
    drawn when all else is written. A figure that cannot be drawn is missing; this is printed, and
    stands in the report.

    Args:
      workdir: the ablation's folder; made if need be.
      outcomes: of every cell of the grid, in its order.
      about: as in `tables.table_md`.
      baseline: the scheme that the others are compared with.
      task: of the data.
      level: of the intervals, in (0, 1).
      test_examples: how many examples each test result is of.
      verdicts: on seeds that were added.
      added: the outcomes of these seeds, for cells_added.csv.

    Returns:
      What the outcomes say.

    Raises:
      ValueError: as `analyse`; nothing is written then.
    """
    analysis = analyse(
        outcomes, baseline=baseline, task=task, level=level, test_examples=test_examples
    )
    analysis = dataclasses.replace(analysis, verdicts=tuple(verdicts))
    texts = {"cells.csv": cells_csv(outcomes), "table.md": table_md(analysis, about)}
    if added:
        texts["cells_added.csv"] = cells_csv(added)
    undrawn = {"Each figure": "it was not drawn yet when this was written"}
    texts["report.html"] = page(analysis, outcomes, about, {}, undrawn)
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        _write(workdir / name, text)
    if not added:
        (workdir / "cells_added.csv").unlink(missing_ok=True)
    figures, missing = _draw(analysis, outcomes)
    for title, why in missing.items():
        say(f"figure missing: {title}: {why}")
    for pattern in _FIGURES:
        for old in (workdir / "figures").glob(f"{pattern}.png"):
            if old.name not in map(_file_name, figures):
                old.unlink()
    for title, picture in figures.items():
        write_whole(workdir / "figures" / _file_name(title), picture.png)
    _write(workdir / "report.html", page(analysis, outcomes, about, figures, missing))
    return analysis


def _draw(
    analysis: Analysis, outcomes: Sequence[Outcome]
) -> tuple[dict[str, "Picture"], dict[str, str]]:
    """The figures by title, and why others are missing."""
    try:
        # Not above: Matplotlib takes half a second to import.
        from experiments.ablation.report.figures import draw
    except Exception as error:  # an installation that is broken
        return {}, {"Each figure": f"{type(error).__name__}: {error}"}
    return draw(analysis, outcomes)


def _write(path: Path, text: str) -> None:
    # The name of a file may have bytes that are not UTF-8.
    write_whole(path, text.encode(errors="backslashreplace"))


def _file_name(title: str) -> str:
    return re.sub(r"\W+", "_", title.lower()) + ".png"
