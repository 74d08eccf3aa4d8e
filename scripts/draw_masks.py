"""Draws what eight functions do to an array of ones: scripts/masks.png, for the README.

  python -m scripts.draw_masks

Dark is dropped, bright is kept; Gaussian noise has values between. The picture is the same to the
byte under one version of Matplotlib.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

import dropjax
from experiments.report import picture

PATH = Path(__file__).parent / "masks.png"
SIZE = 24
"""Height and width of each panel, in values."""
RATE = 0.3

Array = jax.Array


class Panel(NamedTuple):
    """One function on ones.

    Args:
      title: the function.
      axes: what stands along the vertical and the horizontal axis.
      values: of a key, (SIZE, SIZE).
    """

    title: str
    axes: tuple[str, str]
    values: Callable[[Array], Array]


def _maps(key: Array) -> Array:
    """16 feature maps, side by side."""
    maps = dropjax.spatial_dropout(key, jnp.ones((SIZE // 4, SIZE // 4, 16)), RATE)
    rows = maps.transpose(2, 0, 1).reshape(4, 4, SIZE // 4, SIZE // 4)
    return rows.transpose(0, 2, 1, 3).reshape(SIZE, SIZE)


def _patches(key: Array) -> Array:
    """16 patches of an image, in their places."""
    side = SIZE // 4
    _, kept = dropjax.patch_dropout(key, jnp.ones((16, 1)), RATE)
    grid = jnp.zeros(16).at[kept].set(1.0).reshape(4, 4)
    return jnp.kron(grid, jnp.ones((side, side)))


def _branches(key: Array) -> Array:
    """Residual branches, the deeper the more often dropped, of one example a column."""
    rows = [
        dropjax.drop_path(
            dropjax.derive(key, i),
            jnp.ones((SIZE, 1)),
            2 * RATE * (i + 1) / SIZE,
            batch_axes=0,
        )[:, 0]
        for i in range(SIZE)
    ]
    return jnp.stack(rows)


PLANE, MAP = (SIZE, SIZE), (SIZE, SIZE, 1)
PANELS = (
    Panel("dropout", ("time", "feature"), lambda key: dropjax.dropout(key, jnp.ones(PLANE), RATE)),
    Panel(
        "gaussian_dropout",
        ("time", "feature"),
        lambda key: dropjax.gaussian_dropout(key, jnp.ones(PLANE), RATE),
    ),
    Panel(
        "variational_dropout",
        ("time", "feature"),
        lambda key: dropjax.variational_dropout(key, jnp.ones(PLANE), RATE),
    ),
    Panel("drop_path", ("depth", "example"), _branches),
    Panel("spatial_dropout", ("16 feature maps", ""), _maps),
    Panel(
        "dropblock",
        ("height", "width"),
        lambda key: dropjax.dropblock(key, jnp.ones(MAP), RATE, block_size=5)[..., 0],
    ),
    Panel(
        "cutout",
        ("height", "width"),
        lambda key: dropjax.cutout(key, jnp.ones(MAP), size=10)[..., 0],
    ),
    Panel("patch_dropout", ("16 patches", ""), _patches),
)


def draw(path: Path) -> None:
    """Draws all panels.

    Args:
      path: a PNG file.
    """
    with picture(path, 8.0, 4.4, dpi=90) as figure:
        axes = figure.subplots(2, 4)
        for axis, panel in zip(axes.flat, PANELS, strict=True):
            values = np.asarray(panel.values(jax.random.key(1)))
            axis.imshow(values, cmap="cividis", vmin=0, vmax=max(2.0, values.max()))
            axis.set_title(panel.title, fontsize=9, family="monospace")
            axis.set_ylabel(panel.axes[0], fontsize=8)
            axis.set_xlabel(panel.axes[1], fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])


def main(argv: list[str]) -> None:
    """Draws the README's picture."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    draw(PATH)
    print(f"wrote {PATH.name}")


if __name__ == "__main__":
    app.run(main)
