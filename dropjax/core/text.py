"""Text for people: aligned columns, and numbers with their noun."""

from collections.abc import Sequence


def aligned(
    rows: Sequence[Sequence[str]],
    *,
    right: bool = False,
    least: Sequence[int] = (),
    frame: tuple[str, str, str] = ("", "  ", ""),
) -> list[str]:
    """A line of text for each row; a column is as wide as its widest cell.

    Args:
      rows: cells, as many in each row.
      right: the cells of all columns but the first end at the right, as numbers should.
      least: the least width of each column, in letters; all or none.
      frame: what stands before the cells of a row, between them, and behind them. Blanks at the end
        of a line are cut.
    """
    before, between, behind = frame
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if least:
        widths = [max(pair) for pair in zip(widths, least, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right and number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"{before}{between.join(cells)}{behind}".rstrip())
    return lines


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 seed", "2 seeds"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
