"""Cells side by side: one that broke is not measured, and those beside it are."""

import json

from experiments.ablation.train import Trainer
from experiments.setup import Flags, resolve
from tests.experiments.conftest import compile_once  # noqa: F401

MEASURES = [f"{part}_{name}" for part in ("train", "test") for name in ("accuracy", "nll", "ece")]


def test_a_cell_whose_last_step_broke_it_is_diverged():
    """Its loss and its parameters are finite. The other one says that nothing else was wrong."""
    given = {"dataset": "digits", "dropout": "none", "model": "mlp(widths=(4,))"}
    given |= {"validation": 144, "epochs": 1, "batch_size": 1293, "optimizer": "sgd"}
    cells = [
        resolve(Flags(**given, learning_rate=rate), lambda line: None) for rate in (1e38, 1e-2)
    ]
    broken, good = Trainer(cells).run(cells, lambda steps: None)
    result = broken["result"]
    assert (result["status"], result["diverged_at"]) == ("diverged", -1)
    why = "predictions for train, validation, test are not finite after step 0"
    assert result["error"] == why
    assert all(result[name] is None for name in MEASURES)
    assert broken["history"][0]["validation_loss"] is None
    assert good["result"]["status"] == "completed" and good["history"][0]["validation_loss"] > 0
    assert all(good["result"][name] is not None for name in MEASURES)
    json.dumps([broken, good], allow_nan=False)
