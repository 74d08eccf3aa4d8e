"""A second experiment is one file: run, resumed, predicted, replayed and ablated by its name."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from absl.flags import FlagValues
from PIL import Image

import experiments
from dropjax import runs, schemes
from experiments import experiment, flags, folder, predict, replay, run
from experiments.ablation import report
from experiments.ablation.ablate import Options, ablate
from experiments.ablation.grid import Grid
from experiments.experiment import Experiment, find, names
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError, resolve

SECOND = '''"""Made up: bright squares, at the left or at the right."""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("squares")

import numpy as np

from dropjax import data
from experiments import run
from experiments.experiment import Experiment


def load(name, folder, *, say, task):
    assert name in ("auto", "squares") and folder is None
    y = np.arange(80, dtype=np.int32) % 2
    x = np.zeros((80, 4, 4, 1), np.uint8)
    x[y == 0, :, :2], x[y == 1, :, 2:] = 200, 250
    return data.Dataset("squares", x[:60], y[:60], x[60:], y[60:], "classification", 2)


EXPERIMENT = Experiment(
    name="squares",
    load=load,
    datasets=("squares",),
    defaults={"squares": {"validation": 10, "epochs": 2, "batch_size": 25, "learning_rate": 0.1}},
    models=("mlp", "rnn"),
    made_for={"": "mlp(widths=(2,))"},
    bright_on_dark=("squares",),
)

if __name__ == "__main__":
    run.main(EXPERIMENT)
'''
pytestmark = pytest.mark.usefixtures("no_picture")


@pytest.fixture
def squares(tmp_path, monkeypatch) -> Iterator[Experiment]:
    """As if its file lay beside mnist.py."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "squares.py").write_text(SECOND)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(place)])
    yield find("squares")
    del sys.modules["experiments.squares"]
    if hasattr(experiments, "squares"):
        del experiments.squares


def start(of: Experiment, path: Path, given: Flags, *, resume: bool = False) -> int:
    typed = {"epochs"} if resume else None
    return run.run(of, given, path, resume=resume, overwrite=False, typed=typed)


def test_a_second_experiment_is_one_file(squares, tmp_path, capsys):
    assert {"mnist", "squares"} <= {*names()}
    path, given = tmp_path / "run", Flags(optimizer="sgd", mc_samples=0, rate=0.1)
    assert start(squares, path, given) == 0
    config = folder.recorded(path)
    assert config["experiment"] == "squares" and config["flags"]["model"] == "mlp(widths=(2,))"
    assert [config["flags"][name] for name in ("validation", "epochs", "batch_size")] == [10, 2, 25]
    assert "python -m experiments.squares --dropout=" in config["command"]
    # Its record finds the experiment again.
    again = find(config["experiment"])
    assert start(again, path, Flags(epochs=3), resume=True) == 0
    assert len(runs.load(path).history) == 3
    with pytest.raises(LaunchError, match=r"is of experiment squares, not mnist: python -m exp"):
        start(EXPERIMENT, path, Flags(epochs=4), resume=True)
    # A bright border is told, as this experiment's images are bright on dark.
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "a.png")
    printed = predict.lines(
        runs.load(path), [str(tmp_path / "a.png")], samples=2, top=1, invert=False
    )
    assert any("the training data are bright on dark" in line for line in printed)
    text, _ = replay.lines(runs.load(path), 0, None, "")
    assert text[0].startswith("step 0 of 0 to 5")


def test_a_second_experiment_is_ablated(squares, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "_draw", lambda *arguments: ({}, {}))  # figures take longest
    fixed = {"optimizer": "sgd", "mc_samples": 0, "epochs": 1}
    grid = Grid(squares, ("none",), {"learning_rate": (0.1, 0.2)}, (0, 1), fixed)
    path = tmp_path / "ablation"
    assert ablate(grid, path, Options("none")) == 0
    about = json.loads((path / "ablation.json").read_text())
    assert about["experiment"] == "squares" and "--experiment=squares" in about["command"]
    (config, *others) = [json.loads(file.read_text()) for file in path.glob("cells/*/config.json")]
    assert len(others) == 3 and "python -m experiments.squares" in config["command"]
    assert config["flags"]["model"] == "mlp(widths=(2,))"
    capsys.readouterr()
    assert ablate(grid, path, Options("none")) == 0
    assert "4 cells are there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["nothing", "run", "predict", "papers.concrete", "../mnist", "mnist.py", "", None, 3]
)
def test_an_unknown_name_is_refused_and_nothing_is_imported(name, monkeypatch):
    def refuse(module: str) -> None:
        raise AssertionError(f"{module} was imported")

    monkeypatch.setattr(experiment.importlib, "import_module", refuse)
    with pytest.raises(
        ValueError, match=r"^experiment=.*: there is none of that name, but .*\bmnist\b"
    ):
        find(name)


def test_a_module_must_have_the_experiment_of_its_name(squares, monkeypatch):
    monkeypatch.setattr(sys.modules["experiments.squares"], "EXPERIMENT", EXPERIMENT)
    with pytest.raises(ValueError, match=r"experiments\.squares: EXPERIMENT must be an Experiment"):
        find("squares")


def test_a_run_of_an_experiment_that_is_gone_is_not_predicted_with(some_run):
    loaded = runs.load(some_run)
    loaded.config["experiment"] = "gone"
    with pytest.raises(ValueError, match="experiment='gone': there is none of that name"):
        predict.lines(loaded, [], samples=2, top=1, invert=False)


def test_a_task_without_an_objective_is_refused():
    classes = {"classification": EXPERIMENT.objectives["classification"]}
    made = Experiment(name="mnist", objectives=classes)
    assert resolve(made, Flags(dataset="digits", optimizer="sgd"), lambda line: None)
    with pytest.raises(ValueError, match="task=regression: experiment mnist is for classification"):
        made.objective("regression")


def test_the_help_names_the_data_and_the_defaults_of_the_experiment(squares):
    values = FlagValues()
    flags.define(squares, values)
    assert values["dataset"].help.startswith("The data: squares, or the path of an .npz file")
    assert values["epochs"].help.endswith(" 50, for squares 2.")
    assert squares.model_for(schemes.parse("none")) == "mlp(widths=(2,))"
    assert squares.model_for(schemes.parse("zoneout")) == "rnn"
