"""How pictures are made: whatever settings a user has, they are the same files."""

import contextlib
import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dropjax.disk import write_whole


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's own settings and none of the user's, without its warnings.

    A letter that the font does not have is drawn as a box. A figure that is too small for its texts
    is drawn too.
    """
    import matplotlib  # takes half a second

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        warnings.simplefilter("ignore", UserWarning)
        yield


@contextlib.contextmanager
def picture(path: Path, width: float, height: float, *, dpi: int) -> Iterator[Any]:
    """Gives a Matplotlib figure, and writes what is then drawn in it to a file.

    Draw other people's texts (a scheme, a path) with `in_lines` and `parse_math=False`: a pair of
    "$" in them would be mathematics.

    Args:
      path: a PNG file, written whole or not at all.
      width: in inches.
      height: in inches.
      dpi: dots an inch.
    """
    from matplotlib.figure import Figure

    with drawing():
        figure, file = Figure(figsize=(width, height), layout="constrained"), io.BytesIO()
        yield figure
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    write_whole(path, file.getvalue())


def in_lines(text: str, width: int = 60, most: int | None = None) -> str:
    """A text as it can be drawn, in lines that are broken where an argument or a scheme ends.

    What no font has is escaped: control characters, and bytes of a path that are not UTF-8.

    Args:
      text: any.
      width: letters in a line.
      most: lines; the rest is cut. None for all.
    """
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    lines = [""]
    for piece in re.findall(r"[^,|]*[,|]?", plain):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece.lstrip() if not lines[-1] else piece
    lines = [part.strip() for line in lines for part in textwrap.wrap(line, width)]
    if most is not None and len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1][: width - 4].rstrip()} ..."]
    return "\n".join(lines)
