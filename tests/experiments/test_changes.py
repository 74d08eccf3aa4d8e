"""Each change of numbers is met by the runs that have it, and by no others."""

import types
from typing import Any

import numpy as np
import pytest

from dropjax import schemes
from dropjax.core.site import Kind, Site
from experiments import changes

MAP = ("height", "width", "feature")
MEETS = {
    "dropblock": [
        {"dropout": "dropblock", "side": 7},
        {"dropout": "dropblock(block_size=(2,9))", "side": 4},
        {"dropout": "none|dropblock", "side": 7},
    ],
    "linear depth rule": [
        {"dropout": "stochastic_depth", "model": "transformer(layers=2)"},
        {"dropout": "shake_drop", "model": "transformer(layers=2)"},
    ],
    "penalty": [{"dropout": "concrete", "task": "regression"}],
    "weight decay": [
        {"dropout": "concrete", "optimizer": optimizer}
        for optimizer in ("adamw", "lamb(weight_decay=0.1)", "adafactor(weight_decay_rate=0.1)")
    ],
    "batch statistics": [{"mutable": {"batch_stats": 1.0}, "batch_size": 32}],
}
MEETS_NOT = {
    "dropblock": [
        {"dropout": "dropblock", "side": 64},
        {"dropout": 'dropblock(normalize="none")', "side": 7},
        {"dropout": "bernoulli", "side": 7},
    ],
    "linear depth rule": [
        {"dropout": "stochastic_depth", "model": "cnn(residual=True)"},
        {"dropout": 'stochastic_depth(rule="constant")', "model": "transformer(layers=2)"},
    ],
    "penalty": [
        {"dropout": "concrete", "task": "binary"},
        {"dropout": "bernoulli", "task": "regression"},
    ],
    "weight decay": [
        {"dropout": "concrete", "optimizer": "adam"},
        {"dropout": "concrete", "optimizer": "adamw(weight_decay=0.0)"},
        {"dropout": "bernoulli", "optimizer": "adamw"},
    ],
    "batch statistics": [
        {"mutable": {"batch_stats": 1.0}, "batch_size": 50},
        {"mutable": None, "batch_size": 32},
    ],
}


def setup(
    dropout: str = "none",
    model: str = "mlp",
    task: str = "classification",
    optimizer: str = "adam",
    batch_size: int = 50,
    mutable: Any = None,
    side: int = 64,
) -> Any:
    """What the rows look at, of a run on 100 examples."""
    site = Site("stage_0/map", Kind.FEATURE_MAP, MAP)
    of = types.SimpleNamespace
    return of(
        config=of(model=model, optimizer=optimizer, batch_size=batch_size),
        network=of(scheme=schemes.parse(dropout)),
        dataset=of(task=task, x_train=np.zeros(100)),
        mutable=mutable,
        program=of(problem=of(sites={site.name: (site, (side, side, 3))})),
    )


def test_every_change_is_looked_at():
    assert MEETS.keys() == MEETS_NOT.keys()
    assert len(MEETS) == len(changes.CHANGES)
    for words in MEETS:
        assert sum(words in change.sentence for change in changes.CHANGES) == 1


@pytest.mark.parametrize("words", MEETS)
def test_a_run_that_has_a_change_is_told_it_and_no_other(words):
    for given in MEETS[words]:
        for version in ("0.5.2", "0.4.0", None, "what"):
            (reason,) = changes.reasons(version, setup(**given))
            assert words in reason
        for version in ("0.6.0", "0.6.1.dev0", "1.0"):
            assert changes.reasons(version, setup(**given)) == []


@pytest.mark.parametrize("words", MEETS_NOT)
def test_a_run_without_it_is_not(words):
    for given in MEETS_NOT[words]:
        assert changes.reasons("0.5.2", setup(**given)) == []
