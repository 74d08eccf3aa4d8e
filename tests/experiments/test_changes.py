"""Each change of numbers is met by the runs that have it, and by no others."""

from typing import Any

import numpy as np
import pytest

from dropjax import __version__, models, schemes
from dropjax.data import Dataset
from dropjax.runs import Network
from experiments import changes
from experiments.flags import Config
from experiments.mnist import EXPERIMENT
from experiments.setup import Resolved
from tests.conftest import ROOT


def test_the_changelog_names_every_change_under_its_version():
    text = " ".join((ROOT / "dropjax" / "CHANGELOG.md").read_text().split())
    for change in changes.CHANGES:
        section = text.partition(f"## {change.since[0]}.{change.since[1]}.0 ")[2].partition(" ## ")[
            0
        ]
        assert f"- {change.sentence}. Concerns " in section, change.sentence


def test_the_changelog_has_this_version():
    assert f"\n## {__version__} (" in (ROOT / "dropjax" / "CHANGELOG.md").read_text()


MEETS = {
    "dropblock": [
        {"dropout": "dropblock", "model": "cnn", "side": 14},
        {"dropout": 'dropblock(normalize="expected")', "model": "cnn", "side": 64},
        {"dropout": 'dropblock(block_size=9)|bernoulli(at="hidden")', "model": "cnn", "side": 16},
        {"dropout": "dropblock(rate=0.9)", "model": "cnn(channels=(4,))", "side": 28},
    ],
    "linear depth rule": [
        {"dropout": "stochastic_depth", "model": "transformer(layers=2)"},
        {"dropout": "shake_drop", "model": "transformer(layers=2)"},
    ],
    "rate of 1": [
        {"dropout": "bernoulli(rate=1.0)"},
        {"dropout": "gaussian|weight_drop(rate=1.0)", "model": "rnn(width=4)"},
    ],
    "penalty": [{"dropout": "concrete", "task": "regression"}],
    "weight decay": [
        {"dropout": "concrete", "optimizer": optimizer}
        for optimizer in ("adamw", "lamb(weight_decay=0.1)", "adafactor(weight_decay_rate=0.1)")
    ],
    "batch statistics": [
        {"dropout": "none", "model": 'cnn(channels=(4,),norm="batch")', "batch_size": 32}
    ],
}
MEETS_NOT = {
    "dropblock": [
        {"dropout": "dropblock", "model": "cnn(channels=(4,))", "side": 64},
        {"dropout": 'dropblock(normalize="none")', "model": "cnn", "side": 14},
        {"dropout": "bernoulli", "model": "cnn", "side": 14},
    ],
    "linear depth rule": [
        {"dropout": "stochastic_depth", "model": "cnn(residual=True)"},
        {"dropout": 'stochastic_depth(rule="constant")', "model": "transformer(layers=2)"},
    ],
    "rate of 1": [
        {"dropout": "bernoulli(rate=0.999)"},
        {"dropout": "gaussian_noise(std=1.0)"},
        {"dropout": "cutout(rate=1.0)"},
    ],
    "penalty": [
        {"dropout": "concrete", "task": "binary"},
        {"dropout": "bernoulli", "task": "regression"},
        {"dropout": "concrete", "task": "regression", "outputs": 2},
        {"dropout": "concrete", "task": "regression", "penalty": "0"},
    ],
    "weight decay": [
        {"dropout": "concrete", "optimizer": "adam"},
        {"dropout": "concrete", "optimizer": "adamw(weight_decay=0.0)"},
        {"dropout": "bernoulli", "optimizer": "adamw"},
        {"dropout": "mixout", "optimizer": "adamw"},
    ],
    "batch statistics": [
        {"dropout": "none", "model": 'cnn(channels=(4,),norm="batch")'},
        {"dropout": "none", "model": "cnn(channels=(4,))", "batch_size": 32},
    ],
}


def case(
    dropout: str,
    model: str = "mlp(widths=(4,))",
    task: str = "classification",
    optimizer: str = "adam",
    batch_size: int = 50,
    side: int = 16,
    outputs: int = 1,
    penalty: str = "1",
) -> changes.Case:
    """Of a run on 100 images; the model is traced."""
    x, y = np.zeros((100, side, side, 1), np.uint8), np.zeros(100, np.int32)
    dataset = Dataset("made", x, y, x[:1], y[:1], task, outputs)
    flags: dict[str, Any] = dict.fromkeys(Config.__dataclass_fields__)
    flags |= {"model": model, "optimizer": optimizer, "batch_size": batch_size, "seed": 0}
    config = Config(**flags | {"penalty": penalty, "dropout": dropout})
    network = Network(models.parse(model, outputs), schemes.parse(dropout), task)
    return changes.Case.of(Resolved(EXPERIMENT, config, dataset, dataset, None, network, 1.0, 1.0))


def test_every_change_is_looked_at():
    assert MEETS.keys() == MEETS_NOT.keys()
    assert len(MEETS) == len(changes.CHANGES)
    for words in MEETS:
        assert sum(words in change.sentence for change in changes.CHANGES) == 1


@pytest.mark.parametrize("words", MEETS)
def test_a_run_that_has_a_change_is_told_it_and_no_other(words):
    for given in MEETS[words]:
        made = case(**given)
        for version in ("0.5.2", "0.4.0", None, "what"):
            (reason,) = changes.reasons(version, made)
            assert words in reason and changes.is_older(version)
        for version in ("0.6.0", "0.6.1.dev0", "1.0"):
            assert changes.reasons(version, made) == [] and not changes.is_older(version)


@pytest.mark.parametrize("words", MEETS_NOT)
def test_a_run_without_it_is_not(words):
    for given in MEETS_NOT[words]:
        assert changes.reasons("0.5.2", case(**given)) == []
