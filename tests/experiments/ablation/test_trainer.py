"""Cells side by side: one that broke is not measured, and those beside it are."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from dropjax.train import State
from experiments.ablation.trainer import Trainer
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import resolve

BAD = {
    "train_": "predictions for train are not finite after step 5",
    "test_": "predictions for test are not finite after step 5",
    "mc_test_": "predictions for mc_test are not finite after step 5",
    "parameters": "parameters are not finite after step 5",
    "loss": "the loss is not finite at step 3",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_cell_that_broke_is_diverged_and_the_one_beside_it_is_not(bad, monkeypatch):
    """Nothing is trained: predictions, parameters and losses are given."""
    flags = Flags(dataset="digits", dropout="bernoulli", validation=0, mc_samples=2)
    cell = resolve(EXPERIMENT, flags, lambda line: None)
    trainer: Any = object.__new__(Trainer)
    trainer.first, trainer.whole = cell, cell.whole

    def predictions(part: str, examples: int) -> np.ndarray:
        found = np.full((2, examples, 10), np.log(0.1), np.float32)
        found[1, examples // 2, 3] = np.nan if part == bad else found[1, 0, 0]
        return found

    parts = {len(cell.whole.y_train): "train_", len(cell.whole.y_test): "test_"}
    trainer._predictions = lambda *of: predictions(parts[len(of[-1])], len(of[-1]))
    trainer._sampled = lambda *of: predictions("mc_test_", len(cell.whole.y_test))
    w = np.float32([0, np.inf if bad == "parameters" else 0])
    at = np.int32([-1, 3 if bad == "loss" else -1])
    state = State(np.int32(6), {"params": {"w": w}, "learned": {}}, (), {}, {}, at)

    def alone(state: State, lane: int) -> State:
        own = jax.tree.map(lambda leaf: leaf[lane], dataclasses.replace(state, step=w))
        return dataclasses.replace(own, step=state.step)

    lanes: Any = SimpleNamespace(alone=alone, report=lambda state: [{}, {"a": {"b": np.inf}}])
    good, broken = trainer._results(lanes, [cell, cell], state, None)
    assert good["status"] == "completed" and 0 < good["test_nll"] == good["mc_test_nll"]
    assert (broken["status"], broken["diverged_at"]) == ("diverged", at[1])
    assert broken["error"] == BAD[bad]
    measures = [name for name in good if name.endswith(("_accuracy", "_nll", "_ece"))]
    assert len(measures) == 12 and all(broken[name] is None for name in measures)
    assert broken["learned"] == {"a": {"b": None}}
    json.dumps([good, broken], allow_nan=False)
