"""Runs on a file of one's own, for each task."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl.testing import flagsaver

from dropjax import evaluate
from dropjax.train.log import JsonLines
from experiments import flags, folder, report, run
from experiments.measure import losses
from experiments.setup import Flags, LaunchError, set_up
from tests.experiments.conftest import table

DRAW_CURVES, FLAGS = report.draw_curves, flags.flags.FLAGS
TASKS = ("classification", "binary", "regression")
SMALL = {"model": "mlp(widths=(8,))", "optimizer": "sgd", "learning_rate": 0.02, "mc_samples": 2}
OF_CLASSES = ["accuracy", "nll", "ece"]
NAMES = dict.fromkeys(TASKS, OF_CLASSES) | {"regression": ["rmse", "mae", "r2"]}


@pytest.fixture(scope="module")
def made(own_run) -> dict[str, Path]:
    """By task, the folder of a run on a file of one's own. Not to be changed."""
    return {task: own_run(task) for task in TASKS}


def start(path: Path, dataset: str, *, resume: bool = False, **given) -> int:
    return run.run(
        "mnist",
        Flags(**SMALL | {"dataset": dataset, "epochs": 2} | given),
        path,
        resume=resume,
        overwrite=False,
    )


def read(folder: Path, name: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / name).read_text(), parse_constant=refuse)


@pytest.mark.parametrize("task", TASKS)
def test_the_config_has_the_path_the_task_and_every_default(made, task):
    config = read(made[task], "config.json")
    given, network = config["flags"], config["network"]
    assert Path(given["dataset"]).is_absolute() and given["dataset"].endswith("own.npz")
    assert given["task"] == network["task"] == task
    # 90 examples: a tenth for validation, 32 in a batch.
    assert (given["validation"], given["batch_size"], given["data_dir"]) == (9, 32, None)
    assert network["outputs"] == {"classification": 3, "binary": 1, "regression": 2}[task]
    assert (network["example_shape"], network["example_dtype"]) == ([5], "float32")
    assert len(network["shift"]) == len(network["scale"]) == 5
    assert np.size(network["target_scale"]) == (2 if task == "regression" else 1)


@pytest.mark.parametrize("task", TASKS)
def test_the_defaults_of_a_file_are_those_of_the_help(made, task):
    path = read(made[task], "config.json")["flags"]["dataset"]
    config = set_up(Flags(dataset=path, optimizer="sgd"), lambda line: None).config
    assert (config.epochs, config.batch_size, config.learning_rate) == (50, 32, 0.001)
    for name, words in {
        "epochs": "less than 10,000 examples 50",
        "batch_size": "less than 10,000 examples 32",
        "learning_rate": "0.001",
        "validation": "a file of yours a tenth",
    }.items():
        assert words in re.sub(r"\s+", " ", FLAGS[name].help)


@pytest.mark.parametrize("task", TASKS)
def test_results_and_metrics_are_the_task_s(made, task):
    found, names = read(made[task], "result.json"), NAMES[task]
    assert found["task"] == task
    for part in ("train", "validation", "test", "mc_test"):
        assert all(isinstance(found[f"{part}_{name}"], float) for name in names)
    others = {name for of in NAMES.values() for name in of} - set(names)
    assert not [key for key in found if key.rpartition("_")[2] in others]
    lines = (made[task] / "metrics.jsonl").read_text().splitlines()
    watched = "rmse" if task == "regression" else "accuracy"
    last = json.loads(lines[-1])
    wanted = {"step", "epoch", "train_loss", "validation_loss", f"validation_{watched}"}
    assert set(last) == wanted | (set() if task == "regression" else {"train_accuracy"})
    assert last[f"validation_{watched}"] == found[f"validation_{watched}"]
    assert len(lines) == 5 and last["step"] == 15


def test_the_losses_of_a_regression_are_of_standardised_targets(made):
    """Targets of deviations 30 and 5 count the same, and 1 is what the mean would give."""
    setup_of = read(made["regression"], "config.json")["flags"]
    setup = set_up(Flags(**setup_of | {"rate": None}), lambda line: None)
    y = setup.program._data[1]
    np.testing.assert_allclose(np.mean(y, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(y, axis=0), 1, rtol=1e-5)
    state = setup.program.init(setup.params)
    values = setup.values(state, 0)
    x, y = setup.dataset.x_validation, setup.dataset.y_validation
    p = np.asarray(evaluate.map_examples(setup.network.prediction, values, x))
    scale = setup.dataset.target_scale
    wanted = np.mean(((p - y) / scale) ** 2)
    assert losses(setup.dataset, p)["validation_loss"] == pytest.approx(wanted, rel=1e-5)
    lines = (made["regression"] / "metrics.jsonl").read_text().splitlines()
    trained = [json.loads(line)["train_loss"] for line in lines]
    assert trained[-1] < trained[0] < 5


@pytest.mark.parametrize("task", TASKS)
def test_the_printed_table_has_the_task_s_metrics(made, task):
    found = read(made[task], "result.json")
    head, *rows = report.table(found).splitlines()
    assert head.split() == [name.upper() if name != "accuracy" else name for name in NAMES[task]]
    assert [row[:24].strip() for row in rows] == ["train", "validation", "test", "test, 3 draws"]
    for row, part in zip(rows, ("train", "validation", "test", "mc_test"), strict=True):
        assert row[24:].split() == [f"{found[f'{part}_{name}']:.4f}" for name in NAMES[task]]
        assert len(row) == len(head)


def test_a_value_that_is_none_leaves_a_gap():
    found = {"test_rmse": 1.0, "test_mae": 0.5, "test_r2": None, "mc_samples": 0}
    assert report.table(found).splitlines()[1:] == [f"{'test':24}    1.0000    0.5000          "]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_curves_are_drawn_of_every_task(made, task, tmp_path):
    DRAW_CURVES(JsonLines(made[task] / "metrics.jsonl").read(), "title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_target_that_does_not_vary_in_the_test_data_leaves_valid_json(npz, tmp_path, no_picture):
    """Its R2 does not exist, and NaN is no JSON. A single draw has no spread, but a mean."""
    arrays = table("regression")
    arrays["y_test"] = np.full_like(arrays["y_test"], 7.1)
    assert start(tmp_path / "run", npz(**arrays), mc_samples=1) == 0
    found = read(tmp_path / "run", "result.json")
    assert found["test_r2"] is None and found["mc_test_r2"] is None and found["train_r2"] < 1
    assert found["mc_test_rmse"] > 0 and found["mc_test_rmse"] != found["test_rmse"]


def test_a_task_may_be_asked_for(npz):
    arrays = table("classification")
    for task, outputs in (("regression", 1), ("classification", 3)):
        given = Flags(**SMALL, dataset=npz(**arrays), task=task)
        setup = set_up(given, lambda line: None)
        assert (setup.config.task, setup.dataset.outputs) == (task, outputs)


@pytest.mark.parametrize("dataset", ["own.npz", "./own.npz", "~/own.npz"])
def test_the_command_of_a_relative_path_repeats_the_run(npz, monkeypatch, dataset, tmp_path):
    """With the task that was asked for, from any folder."""
    path = Path(npz(**table("classification")))
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    first = set_up(Flags(**SMALL, dataset=dataset, task="regression"), lambda line: None)
    monkeypatch.chdir(tmp_path)
    command = folder.describe(vars(first.config), "", "mnist", {})["command"]
    assert f"--dataset={path}" in command and "--task=regression" in command
    with flagsaver.flagsaver():
        FLAGS(["mnist", f"--dataset={path}", f"--task={first.config.task}"])
        again = Flags(**SMALL, dataset=FLAGS.dataset, task=FLAGS.task)
    assert set_up(again, lambda line: None).config == first.config


def test_a_resumed_run_takes_the_same_file_and_no_other(tmp_path, no_picture, monkeypatch):
    arrays, path = table("regression"), tmp_path / "data" / "own.npz"
    path.parent.mkdir()
    np.savez(path, **arrays)
    assert start(tmp_path, str(path)) == 0
    first = read(tmp_path, "result.json")
    (tmp_path / "result.json").unlink()
    monkeypatch.chdir(path.parent)
    assert start(tmp_path, "own.npz", resume=True) == 0
    assert read(tmp_path, "result.json")["param_hash"] == first["param_hash"]
    before = (tmp_path / "config.json").read_bytes()
    arrays["y_train"][3, 1] += 1
    np.savez(path, **arrays)
    with pytest.raises(LaunchError, match="data_sha256: was"):
        start(tmp_path, str(path), resume=True)
    assert (tmp_path / "config.json").read_bytes() == before
    assert read(tmp_path, "result.json")["param_hash"] == first["param_hash"]


def wrong() -> dict[str, tuple[dict[str, Any], str]]:
    good, bad_x = table("classification"), table("classification")["x_train"].copy()
    bad_x[4, 2] = np.nan
    labels = good["y_train"].copy()
    labels[0] = 9
    test_labels = good["y_test"].copy()
    test_labels[0] = 3
    return {
        "objects": ({"x_train": bad_x.astype(object)}, "Python objects"),
        "a label that leaves a gap": ({"y_train": labels}, "never occurs"),
        "a label out of range in the test data": ({"y_test": test_labels}, "not among y_train"),
        "negative labels": ({"y_train": good["y_train"] - 1}, "label -1"),
        "NaN": ({"x_train": bad_x}, "x_train has 1 NaN"),
        "fewer labels": ({"y_train": good["y_train"][:-1]}, "90 examples and y_train 89"),
        "other features": ({"x_test": good["x_test"][:, :4]}, "they must be the same"),
        "too many axes": (
            {"x_train": np.zeros((90, 1, 1, 1, 1, 5)), "x_test": np.zeros((30, 1, 1, 1, 1, 5))},
            "1 to 4 axes",
        ),
        "no test data": ({"x_test": None, "y_test": None}, "missing: x_test, y_test"),
    }


@pytest.mark.parametrize("case", wrong())
def test_data_that_are_wrong_are_refused_before_anything_is_written(npz, tmp_path, case):
    changes, words = wrong()[case]
    arrays = {k: v for k, v in (table("classification") | changes).items() if v is not None}
    with pytest.raises(LaunchError, match=words):
        start(tmp_path / "run", npz(**arrays))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "binary"}, "task=binary needs 0 and 1"),
        ({"model": "cnn"}, "cnn reads images"),
        ({"validation": 89}, "must be 0, or from 3 to 87"),
        ({"data_dir": "."}, "data_dir would do nothing"),
        ({"dropout": "spatial"}, "spatial"),
        ({"dropout": "tests.throwaway:WrongShape"}, "WrongShape.* on mlp.* cannot be run: "),
    ],
)
def test_flags_that_do_not_fit_the_data_are_refused_and_an_old_run_survives(
    made, npz, tmp_path, given, words
):
    before = {p: p.read_bytes() for p in made["binary"].rglob("*") if p.is_file()}
    for path in (tmp_path / "run", made["binary"]):
        with pytest.raises(LaunchError, match=words):
            start(path, npz(**table("classification")), **given)
    assert os.listdir(tmp_path) == []
    assert {p: p.read_bytes() for p in made["binary"].rglob("*") if p.is_file()} == before
