"""Runs on a file of one's own, for each task."""

import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from absl.flags import FlagValues, IllegalFlagValueError

from dropjax import evaluate, runs
from dropjax.train.log import JsonLines
from experiments import flags, folder, report, resume, run
from experiments.ablation.grid import Grid, Reader, plan_cells
from experiments.ablation.trainer import Trainer
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.results import losses
from experiments.setup import LaunchError, Resolved, Setup, read_once, resolve, set_up
from tests.experiments.conftest import contents, strict_json, table

DRAW_CURVES, FLAGS = report.draw_curves, FlagValues()
flags.define(EXPERIMENT, FLAGS)
TASKS = ("classification", "binary", "regression")
# The flags of `own_run`, whose compiled programs serve here too.
SMALL = {"model": "mlp(widths=(32,))", "optimizer": "sgd(momentum=0.9)", "learning_rate": 0.03}
SMALL |= {"epochs": 5, "mc_samples": 3}
OF_CLASSES = ["accuracy", "nll", "ece"]
NAMES = dict.fromkeys(TASKS, OF_CLASSES) | {"regression": ["rmse", "mae", "r2"]}


@pytest.fixture(scope="module")
def made(own_run) -> dict[str, Path]:
    """By task, the folder of a run on a file of one's own. Not to be changed."""
    return {task: own_run(task) for task in TASKS}


def start(path: Path, dataset: str, *, resume: bool = False, **given) -> int:
    return run.run(
        EXPERIMENT,
        Flags(**SMALL | {"dataset": dataset} | given),
        path,
        resume=resume,
        overwrite=False,
    )


def resolved(**given) -> Resolved:
    return resolve(EXPERIMENT, Flags(**given), lambda line: None)


def read(folder: Path, name: str) -> dict[str, Any]:
    return strict_json((folder / name).read_text())


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
def test_the_defaults_of_a_file_are_those_of_the_help(npz, task):
    config = resolved(dataset=npz(**table(task)), optimizer="sgd").config
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
    setup = set_up(EXPERIMENT, Flags(**setup_of | {"rate": None}), lambda line: None)
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
    # A value that is None leaves a gap.
    found = {f"test_{name}": 1.0 for name in NAMES[task][:2]} | {f"test_{NAMES[task][2]}": None}
    (row,) = report.table(found | {"mc_samples": 0}).splitlines()[1:]
    assert row == f"{'test':24}    1.0000    1.0000"


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


@pytest.mark.parametrize("dataset", ["own.npz", "./own.npz", "~/own.npz"])
def test_the_command_of_a_relative_path_repeats_the_run(npz, monkeypatch, dataset, tmp_path):
    """With the task that was asked for, from any folder."""
    path = Path(npz(**table("classification")))
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    first = resolved(**SMALL, dataset=dataset, task="regression")
    monkeypatch.chdir(tmp_path)
    command = folder.describe(first)["command"]
    assert f"--dataset={path}" in command and "--task=regression" in command
    FLAGS(["mnist", f"--dataset={path}", f"--task={first.config.task}"])
    assert resolved(**SMALL, dataset=FLAGS.dataset, task=FLAGS.task).config == first.config


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


WIDE = np.zeros((90, 1, 1, 1, 1, 5))
NAN = np.where(np.arange(90)[:, None] == 4, np.nan, table("classification")["x_train"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": NAN}, "x_train has 5 NaN"),
        ({"x_train": WIDE, "x_test": WIDE[:30]}, "1 to 4 axes"),
        ({"x_test": None, "y_test": None}, "missing: x_test, y_test"),
    ],
)
def test_data_that_are_wrong_are_refused_before_anything_is_written(npz, tmp_path, changes, words):
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
    before = contents(made["binary"])
    for path in (tmp_path / "run", made["binary"]):
        with pytest.raises(LaunchError, match=words):
            start(path, npz(**table("classification")), **given)
    assert os.listdir(tmp_path) == []
    assert contents(made["binary"]) == before


# A test split, class names, tokens.


WORDS = np.array(["he", "she", "it"])


def sentences(**changes) -> dict[str, np.ndarray]:
    """60 sequences of 6 of 9 tokens; the class is which of 0 to 2 stands in it."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(3, 9, (60, 6)), np.arange(60) % 3
    x[np.arange(60), rng.integers(0, 6, 60)] = y
    return {"x": x, "y": WORDS[y]} | changes


TOKENS = {
    "model": "transformer(vocabulary=9,width=4,heads=1,layers=1,hidden=4)",
    "dropout": "word(rate=0.2)|embedding(rate=0.2)",
    "epochs": 1,
    "test": 0.2,
    "validation": 0.25,
    "mc_samples": 2,
    "batch_size": 12,
}


def untrained(setup: Setup, path: Path) -> runs.Run:
    """What `runs.load` would return of a run, by way of its config.json, before its first step."""
    config, written = setup.config, json.loads(json.dumps(folder.describe(setup)))
    network = runs.Network.rebuild(config.model, config.dropout, written["network"])
    # As a checkpoint has them.
    values = jax.tree.map(np.asarray, setup.values(setup.program.init(setup.params), 0))
    return runs.Run(path, written, [], None, values, 0, network)


def test_tokens_names_and_shares_are_in_the_config_and_come_back(npz, tmp_path):
    arrays = sentences()
    setup = set_up(EXPERIMENT, Flags(dataset=npz(**arrays), **TOKENS), lambda line: None)
    found = untrained(setup, tmp_path)
    flags_, network = found.config["flags"], found.config["network"]
    assert (flags_["test"], flags_["validation"], setup.program.examples) == (12, 12, 36)
    assert "--test=12 " in found.config["command"]
    assert (network["example_dtype"], network["example_shape"]) == ("int32", [6])
    assert (network["shift"], network["scale"], "origin" in network) == (0, 1, False)
    assert found.classes == ("he", "it", "she")
    for site in ("embed/table", "embed/embedded"):
        assert re.search(rf"{site}.*0\.2\n", setup.site_table)
    x = arrays["x"][:5]
    plain = found.predict(x)
    assert plain.shape == (5, 3) and len(np.unique(plain, axis=0)) == 5
    predict = functools.partial(found.network.prediction, found.values)
    exported = jax.eval_shape(jax.vmap(predict), x.astype(np.int32))  # as `export` traces it
    assert exported.shape == (5, 3)
    for wrong_x in (x + 9, x - 4, x + 0.5):
        with pytest.raises(ValueError, match="xs must be tokens, integers from 0 to 8, got values"):
            found.predict(wrong_x)
    # The counts of the record are those of the shares that were typed.
    again = resolved(**flags_ | {"rate": None})
    assert again.config == setup.config and again.dataset.sha256() == setup.dataset.sha256()


def test_cells_of_tokens_are_trained_side_by_side(npz):
    fixed = {k: v for k, v in TOKENS.items() if k != "dropout"} | {"dataset": npz(**sentences())}
    grid = Grid(EXPERIMENT, ("word", "embedding"), {"rate": (0.1, 0.3)}, (0, 1), fixed)
    planned = plan_cells(grid, Reader(EXPERIMENT, lambda line: None))
    assert len({one.cell.id for one in planned}) == 8
    assert {one.cell.config["test"] for one in planned} == {12}
    cells = [one.resolved for one in planned[:2]]
    assert cells[0].whole.x_test is cells[1].whole.x_test
    trainer = Trainer(cells)
    state = jax.eval_shape(trainer.lanes.init)
    assert jax.tree.leaves(state.params)[0].shape[0] == 2


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ({"x": sentences()["x"] + 1}, {}, "has the token 9 in row .*vocabulary=9 tokens go from 0"),
        ({"x": sentences()["x"] / 1.0}, {}, r"vocabulary=9: a model with .* numbers of"),
        (
            {},
            {"dataset": "digits", "test": None},
            r"digits are images \(1,?\d+ of 8 x 8 pixels, ch",
        ),
        ({}, {"test": 0.001}, "test=0.001 must be a count, or a share .* at least one of the 60"),
        ({}, {"test": 59}, "has 60 training examples of 3 classes, so it must be from 3 to 57"),
        ({}, {"test": 1.5}, "test=1.5 must be a count, or a share between 0 and 1"),
        ({}, {"validation": -0.5}, "validation=-0.5 must be a count"),
        ({}, {"test": 0.0}, "test=0: .* so it must be from 3 to 57"),
        ({}, {"dataset": "digits", "model": "mlp", "dropout": "none"}, "test=0.2 would do nothing"),
    ],
)
def test_tokens_and_splits_that_cannot_be_are_refused(npz, changes, given, words):
    flags = {"dataset": npz(**sentences(**changes))} | TOKENS | {"mc_samples": None} | given
    with pytest.raises(LaunchError, match=words):
        resolved(**flags)


def test_without_a_vocabulary_integers_are_numbers_and_the_test_split_a_fifth(npz):
    said: list[str] = []
    given = Flags(dataset=npz(**sentences()), dropout="none", model="mlp(widths=())")
    found = resolve(EXPERIMENT, given, said.append)
    assert found.dataset.x_train.dtype == np.float32 and found.network.shift.shape == (6,)
    assert (found.config.test, found.config.validation) == (12, 4)
    assert "test=12: so many of the 60 examples are cut for the test data (--test)" in said
    again = resolved(**vars(given) | {"test": 12, "seed": 1})
    assert again.dataset.sha256() == found.dataset.sha256()  # whatever the seed


@pytest.mark.parametrize("flag", ["validation", "test"])
def test_counts_and_shares_as_flags(flag):
    for text, value in (("20", 20), ("0", 0), ("0.0", 0), ("0.2", 0.2), ("2e-1", 0.2)):
        FLAGS(["mnist", f"--{flag}={text}"])
        found = flags.given(FLAGS)[flag]
        assert found == value and type(found) is type(value)
    for text in ("1.5", "1.0", "-0.1", "nan", "0.2x", "a fifth"):
        words = f"{flag}={text}: must be a count such as 100, or a share .* got '?{text}"
        with pytest.raises(IllegalFlagValueError, match=words):
            FLAGS(["mnist", f"--{flag}={text}"])
    assert "0.2" in FLAGS["validation"].help and "a fifth, at most 10,000" in FLAGS["test"].help


def test_numbers_far_from_0_are_kept_from_the_file_to_the_exported_model(npz, tmp_path):
    """In training, evaluation, prediction and export: seconds of days in 2023, in x and in y."""
    rng = np.random.default_rng(0)
    x = np.stack([1.7e9 + rng.permutation(300) / 300, rng.normal(size=300)], axis=1)
    y = np.stack([3e8 + rng.permutation(300) / 300, rng.normal(size=300)], axis=1)
    given = Flags(dataset=npz(x=x, y=y), dropout="none", model="mlp(widths=())", test=50)
    setup = set_up(EXPERIMENT, given, lambda line: None)
    dataset = setup.dataset
    seen = np.asarray(jax.vmap(setup.network.inputs)(dataset.x_train))
    assert len(np.unique(seen[:, 0])) == len(seen)
    loaded = untrained(setup, tmp_path)
    train = x[np.isin(x[:, 1].astype(np.float32), dataset.x_train[:, 1])]
    mean, spread = train.mean(0), train.std(0)
    dense = loaded.params["head"]
    wanted = ((x - mean) / spread) @ dense["kernel"] + dense["bias"]
    found = loaded.predict(x)
    assert found.dtype == np.float64
    standardised = (found - dataset.target_origin - dataset.target_shift) / dataset.target_scale
    np.testing.assert_allclose(standardised, wanted, atol=1e-4)
    assert len(np.unique(found[:, 0])) > 290
    loaded.export(tmp_path / "model")
    exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    with jax.enable_x64(True):
        np.testing.assert_allclose(np.asarray(exported.call(x)), found, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="expected float64 and called with float32"):
        exported.call(x)


def test_what_a_run_of_an_older_version_says_of_its_network_is_enough(own_run):
    """It has no --test, no origin and no classes; nor has a new one of such data."""
    config = read(own_run("regression"), "config.json")
    assert not {"origin", "target_origin", "classes"} & config["network"].keys()
    assert config["flags"]["test"] is None and "--test" not in config["command"]
    loaded = runs.load(own_run("regression"))
    assert loaded.classes == () and loaded.predict(np.zeros((1, 5))).dtype == np.float32


def test_a_run_goes_on_whose_file_was_moved(own_run):
    record, load = folder.recorded(own_run("binary")), read_once(EXPERIMENT, lambda line: None)
    place = record["flags"]["dataset"]
    record["flags"]["dataset"] = "/old/place/own.npz"

    def agree(**given) -> None:
        flags = resume.flags_of(Flags(**given), given.keys(), record)
        resume.check_agreement(EXPERIMENT, flags, record, load)

    agree(dataset=place, mc_samples=3)
    with pytest.raises(LaunchError, match=r"^--validation: was \d+, is 5"):
        agree(dataset=place, validation=5)
    with pytest.raises(LaunchError, match=r"/old/place/own.npz: there is no such .*--dataset=FILE"):
        resume.check_file(resume.flags_of(Flags(), (), record))
