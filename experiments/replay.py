"""Shows which sub-network saw which example in a step of a finished run.

  python -m experiments.replay --run=runs/first --step=30
  python -m experiments.replay --run=runs/first --step=30 --row=945 --site=hidden --png

The seed and the step say it, so neither the data nor the weights are needed. Prints the rows of the
training data that were in the step's batch, for each site what share was dropped, and pictures of
the masks: of the whole batch a line an example, or with --row all of one example's. --png draws all
of them into a file, --png=FILE into one of that name.

Exit status: 0, 1 if no run or no step is named or a flag cannot be parsed, 2 if there is no such
run, step, row or site, or a file cannot be written, 130 or 143 if stopped by SIGINT or SIGTERM.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("replay", "nothing was changed")

import dataclasses
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from dropjax import runs, train
from dropjax.core.draw import acting
from dropjax.core.noise import select
from dropjax.core.site import Site
from dropjax.core.text import aligned
from experiments.picture import in_lines, picture

_WIDTH, _HEIGHT = 64, 32  # of pictures, in characters


@dataclasses.dataclass(frozen=True)
class Seen:
    """The noise of one scheme at one site, of several examples.

    Args:
      site: where.
      scheme: the scheme's text.
      rate: its rates in that step, as text.
      noise: (examples, ...); None where it depends on the layer's input.
    """

    site: Site
    scheme: str
    rate: str
    noise: np.ndarray | None

    @property
    def shared(self) -> bool:
        """Whether all examples have the same."""
        noise = self.noise
        return noise is not None and len(noise) > 1 and bool((noise == noise[:1]).all())

    @property
    def is_mask(self) -> bool:
        """Whether something is dropped, rather than made noisy."""
        return self.noise is not None and (self.noise.dtype == bool or not self.noise.all())


def look(replay: train.Replay, step: int, rows: np.ndarray, at: str) -> list[Seen]:
    """The noise of some rows at all sites that the scheme acts on and `at` names.

    Raises:
      ValueError: there are none, or no such step or row.
    """
    assert replay.sites is not None and replay.scheme is not None
    if not select(replay.scheme, replay.sites):
        raise ValueError(
            f"the run's scheme is {replay.scheme}: every example saw the whole network"
        )
    scheme, seen = replay.scheme_at(step), []
    for row in rows:
        replay.keys(step, row)  # it is in the batch
    for name, (site, _) in select(replay.scheme, replay.sites, at).items():
        links = acting(scheme, site)
        # Site by site, so that no more than one site's noise of a batch is made at a time.
        try:
            parts = replay.noise(step, rows, at=f"^{re.escape(name)}$")[name]
        except ValueError:
            parts = (None,) * len(links)
        for (number, link), part in zip(links, parts, strict=True):
            text = str(replay.scheme.links[number])
            rates = ", ".join(f"{float(rate):.4g}" for rate in link.rates_at(site).values())
            leaves = jax.tree.leaves(part) or [None]
            seen += [Seen(site, text, rates, leaf) for leaf in leaves]
    return seen


def lines(run: runs.Run, step: int, row: int | None, at: str) -> tuple[list[str], list[Seen]]:
    """What is printed, and the noise behind it.

    Raises:
      runs.RunError, ValueError: there is no such step, row or site.
    """
    learns = run.network.scheme.learns
    replay = run.replay(learned=run.values["learned"] if learns else None)
    batch = replay.batch(step)
    seen = look(replay, step, batch if row is None else np.array([row]), at)
    text = [
        f"step {step} of 0 to {(replay.steps or 0) - 1}, in epoch {step // replay.steps_per_epoch}"
        f" of 0 to {run.config['flags']['epochs'] - 1}"
    ]
    if step >= run.step:
        text.append(f"NOTE: the newest checkpoint is of step {run.step}; the run may have stopped")
    if learns:
        text.append(
            "NOTE: the scheme learns, and what it had learned then is not kept. Shown is the noise"
            " of that step under what it has learned in the weights that are evaluated, by step "
            f"{run.step}"
        )
    part = run.config["flags"].get("train_examples")
    of = "the training data" if part is None else f"the {part} examples that --train_examples drew"
    size = run.config["flags"]["batch_size"]
    short = f" (the epoch's last batch, which is not {size})" if len(batch) < size else ""
    text += [f"batch: {len(batch)} examples{short}, these rows of {of}"]
    text += textwrap.wrap(
        " ".join(map(str, batch)), 88, initial_indent="  ", subsequent_indent="  "
    )
    text += ["", *_table(seen, row)]
    for part in seen:
        text += _picture(part, batch, row)
    return text, seen


def _table(seen: list[Seen], row: int | None) -> list[str]:
    """The share that was dropped, or mean and standard deviation of the noise, a line a site."""
    cells = [
        ["site", "scheme", "rate", "noise", "dropped" + ("" if row is None else f", row {row}")]
    ]
    for part in seen:
        noise = part.noise
        if noise is None:
            shape, said = "-", "its noise depends on the dense layer's input"
        else:
            shape = str(noise.shape[1:])
            dropped = (noise == 0).reshape(len(noise), -1).mean(axis=1)
            said = f"{dropped.mean():.4f}"
            if not part.is_mask:
                said = f"nothing; noise of mean {noise.mean():.4f}, deviation {noise.std():.4f}"
            elif part.shared:
                said += "  the same for all"
            elif len(noise) > 1:
                said += f"  {dropped.min():.4f} to {dropped.max():.4f} of an example"
        cells.append([part.site.name, part.scheme, part.rate, shape, said])
    return aligned(cells)


def _picture(part: Seen, batch: np.ndarray, row: int | None) -> list[str]:
    """The noise as characters: of a batch a line an example, of one example all of it."""
    if part.noise is None:
        return []
    whole = part.shared or row is not None
    grid = _grid(part.noise[0]) if whole else part.noise.reshape(len(part.noise), -1)
    if whole and grid.shape[0] == 1:  # one long line
        pad = -grid.size % _WIDTH if grid.size > _WIDTH else 0
        drawn = _characters(part, grid).ravel().tolist() + [" "] * pad
        drawn = np.array(drawn).reshape(-1, min(_WIDTH, len(drawn)))
    else:
        drawn = _characters(part, grid)
    height, width = (_HEIGHT if whole else len(drawn)), _WIDTH
    heads = [""] * len(drawn) if whole else [f"{n} " for n in batch]
    pad = max(map(len, heads))
    legend = "# kept, . dropped" if part.is_mask else "+ above the mean, - below it"
    title = f"{part.site.name}, {part.scheme}: {legend}"
    if whole:
        title += ", of all examples" if row is None else f", of row {row}"
    if drawn.shape[0] > height or drawn.shape[1] > width:
        shown = f"{min(height, drawn.shape[0])} x {min(width, drawn.shape[1])}"
        title += f"; the first {shown} of {drawn.shape[0]} x {drawn.shape[1]}"
    body = [
        f"  {head:>{pad}}{''.join(line[:width])}".rstrip()
        for head, line in zip(heads[:height], drawn[:height], strict=True)
    ]
    return ["", title, *body]


def _grid(noise: np.ndarray) -> np.ndarray:
    """Noise of one example as a table, its last axis that is not shared along the lines."""
    squeezed = noise.squeeze()
    return squeezed.reshape(-1, squeezed.shape[-1]) if squeezed.ndim else squeezed.reshape(1, 1)


def _characters(part: Seen, grid: np.ndarray) -> np.ndarray:
    if part.is_mask:
        return np.where(grid != 0, "#", ".")
    assert part.noise is not None
    return np.where(grid > part.noise.mean(), "+", "-")


def draw_picture(seen: list[Seen], batch: np.ndarray, row: int | None, path: Path) -> None:
    """All of the noise as a picture, a panel a site.

    Args:
      seen: from `lines`.
      batch: the rows.
      row: whose; None for the whole batch.
      path: a PNG file.
    """
    panels = [part for part in seen if part.noise is not None]
    with picture(path, 8, 2.4 * len(panels), dpi=150) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axis, part in zip(axes, panels, strict=True):
            noise: Any = part.noise
            whole = part.shared or row is not None
            grid = _grid(noise[0]) if whole else noise.reshape(len(noise), -1)
            axis.imshow(grid.astype(float), aspect="auto", interpolation="nearest", cmap="gray")
            title = in_lines(f"{part.site.name}, {part.scheme}", 110, most=6)
            axis.set_title(title, fontsize=9, parse_math=False)
            if not whole:
                axis.set_ylabel("row")
                axis.set_yticks(range(len(batch)), map(str, batch), fontsize=4)


@program.guarded("replay")
def main(argv: list[str]) -> int:
    if argv[1:]:
        raise app.UsageError(f"what is {argv[1]!r}?")
    logging.set_verbosity(logging.WARNING)
    given = flags.FLAGS
    try:
        run = runs.load(os.path.expanduser(given.run))
        printed, seen = lines(run, given.step, given.row, given.site)
    except (runs.RunError, ValueError) as error:
        program.complain(f"replay: {error}")
        return 2
    status = program.deliver("replay", "\n".join(printed))
    if status or given.png is None:
        return status
    file = Path(os.path.expanduser(given.png or f"step_{given.step}.png"))
    try:
        draw_picture(seen, run.batch(given.step), given.row, file)
    except Exception as error:  # of Matplotlib, of a font, of the disk
        why = program.reason(error).removeprefix(f"{file}: ")
        program.complain(f"replay: {file} was not drawn: {why}")
        return 2
    return program.deliver("replay", f"\npicture: {file}")


def _define_flags() -> None:
    """Not where this is imported: another module has a flag of the same name."""
    flags.DEFINE_string("run", None, "The run's folder.", required=True)
    flags.DEFINE_integer("step", None, "The step, from 0.", required=True)
    flags.DEFINE_integer("row", None, "A row of the training data, one of the batch.")
    flags.DEFINE_string("site", "", "A regular expression: the sites that are shown.")
    flags.DEFINE_string("png", None, "A file for the masks as a picture; alone: step_STEP.png.")


def _with_values(argv: list[str]) -> list[str]:
    """`--png` alone is `--png=`: absl would take the next word for its value, or find none."""
    following = [*argv[1:], "-"]
    pairs = zip(argv, following, strict=True)
    return ["--png=" if a in ("--png", "-png") and b[:1] == "-" else a for a, b in pairs]


if __name__ == "__main__":
    _define_flags()
    program.launch("replay", main, _with_values(sys.argv))
