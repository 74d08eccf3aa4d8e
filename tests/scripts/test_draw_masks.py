"""The README's picture."""

import jax
import numpy as np

import dropjax
from scripts.draw_masks import PANELS, PATH, RATE, SIZE, draw


def test_each_panel_is_what_its_function_does():
    shown = {panel.title: np.asarray(panel.values(jax.random.key(1))) for panel in PANELS}
    assert all(values.shape == (SIZE, SIZE) for values in shown.values())
    assert set(shown) <= set(dropjax.__all__)
    assert set(np.unique(shown["dropout"])) == {0.0, np.float32(1 / (1 - RATE))}
    assert (shown["variational_dropout"] == shown["variational_dropout"][:1]).all()
    maps = shown["spatial_dropout"].reshape(4, 6, 4, 6).transpose(0, 2, 1, 3).reshape(16, 36)
    assert (maps == maps[:, :1]).all() and len(np.unique(maps)) == 2
    assert (shown["drop_path"][: SIZE // 2] == 0).mean() < (
        shown["drop_path"][SIZE // 2 :] == 0
    ).mean()


def test_the_picture_is_drawn(tmp_path):
    draw(tmp_path / "masks.png")
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")
    assert PATH.stat().st_size < 40_000
