"""Finished runs: read back they predict what they predicted, whole or refused."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dropjax import data, evaluate, models, runs
from dropjax.core.keys import Keys
from dropjax.models.network import Network
from dropjax.runs import RunError, files, record
from dropjax.runs.run import PLATFORMS
from dropjax.schemes import parse
from dropjax.train.checkpoint import tree_hash
from tests.conftest import optimising
from tests.experiments.conftest import rewrite, table

RAMP = "linear_schedule(init_value=0.5,end_value=1.0,transition_steps=30)"
TRANSFORMER = "transformer(layers=1,width=4,heads=1,hidden=4)"
NETWORK = 'cnn(channels=(4,),dense=(),norm="batch")'


@pytest.fixture(scope="module")
def folder(small_run) -> Path:
    """A run on the digits under dropout that grows. Not to be changed."""
    return small_run(strength=RAMP)


@pytest.fixture(scope="module")
def run(folder) -> runs.Run:
    return runs.load(folder)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits", None, say=pytest.fail)


@pytest.fixture(scope="module")
def normalised(small_run) -> Path:
    """A run with batch norm and without dropout. Not to be changed."""
    return small_run(model=NETWORK, dropout="none", mc_samples=None)


@pytest.fixture(scope="module", params=["binary", "regression"])
def own(request, own_run) -> tuple[Path, dict[str, np.ndarray]]:
    """A run on a file of one's own, and what is in the file."""
    return own_run(request.param), table(request.param)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "run"))


def config(folder: Path) -> dict:
    return record.read(folder / "config.json")[0]


def result(folder: Path) -> dict:
    found, _ = record.read(folder / "result.json")
    del found["files"]
    return found


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# What is read.


def test_a_loaded_run_has_what_its_files_say(folder, run):
    assert run.folder == folder
    assert run.config == config(folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert run.history == [json.loads(line) for line in lines] and len(lines) == 2
    assert run.result == result(folder) and run.step == 12
    learned = {name: run.values[name] for name in ("params", "learned")}
    assert tree_hash(learned) == run.result["param_hash"]
    assert sum(leaf.size for leaf in jax.tree.leaves(run.params)) == run.result["parameters"]


@pytest.mark.parametrize("name", ["folder", "normalised"])
def test_loading_and_predicting_change_nothing_in_the_folder(request, digits, name):
    path = request.getfixturevalue(name)
    before = hashes(path)
    runs.load(str(path)).predict(digits.x_test)
    runs.read(path)
    assert hashes(path) == before and len(before) >= 8


# What is predicted.


@pytest.mark.parametrize("name", ["folder", "normalised"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_run_predicts_what_it_was_measured_by(request, digits, name, part):
    """So a batch norm uses its running means: those of 1000 examples would give other numbers."""
    path = request.getfixturevalue(name)
    run, found = runs.load(path), result(path)
    cut = digits.with_validation(144)
    x, y = getattr(cut, f"x_{part}"), getattr(cut, f"y_{part}")
    p = run.predict(x)
    assert p.shape == (len(y), 10) and p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert evaluate.accuracy(np.log(p), y) == found[f"{part}_accuracy"] > 0.3
    assert evaluate.nll(np.log(p), y) == pytest.approx(found[f"{part}_nll"], rel=1e-6)
    # To the last bit it is the same if it is compiled as the run was.
    with optimising() if name == "normalised" else contextlib.nullcontext():
        exact = evaluate.map_examples(run.network.prediction, run.values, x)
    assert evaluate.nll(exact, y) == found[f"{part}_nll"]


def test_averages_over_draws_are_those_of_the_run(folder, run, digits):
    """The draws are the very ones, at the strength of the last step; others move the NLL more."""
    p = run.predict(digits.x_test, samples=3, batch_size=256)
    found = result(folder)
    nll = evaluate.nll(np.log(p), digits.y_test)
    assert nll == pytest.approx(found["mc_test_nll"], rel=1e-6)
    assert evaluate.accuracy(np.log(p), digits.y_test) == found["mc_test_accuracy"]
    assert abs(found["test_nll"] - nll) > 1e-3
    other = run.predict(digits.x_test, samples=4)
    assert abs(evaluate.nll(np.log(other), digits.y_test) - nll) > 1e-4
    assert run.values["strength"] == pytest.approx(0.5 + 0.5 * 11 / 30)


def test_each_draw_can_be_had_and_their_mean_is_the_prediction(run, own, digits):
    path, arrays = own
    own_run, own_x = runs.load(path), arrays["x_test"]
    for loaded, x, rtol, atol in (
        (run, digits.x_test[:9], 1e-3, 1e-5),
        (own_run, own_x, 1e-2, 1e-4),
    ):
        each = loaded.predict(x, samples=3, average=False, batch_size=4)
        mean, spread = loaded.predict_with_spread(x, samples=3)
        assert each.shape == (3, *mean.shape)
        averaged, first = loaded.predict(x, samples=3), loaded.predict(x, samples=1)
        np.testing.assert_allclose(each.mean(0), averaged, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(mean, averaged, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(each.std(0, ddof=1), spread, rtol=rtol, atol=atol)
        assert (spread.reshape(len(x), -1).max(axis=1) > 0).mean() > 0.8
        np.testing.assert_allclose(each[0], first, rtol=1e-4, atol=1e-6)
        whole, parts = loaded.predict(x), loaded.predict(x, batch_size=4)
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)


def test_predictions_of_ones_own_data_are_in_its_units(own):
    path, arrays = own
    run, found = runs.load(path), result(path)
    x, y = arrays["x_test"], arrays["y_test"]
    p, mean = run.predict(x), run.predict(x, samples=3, batch_size=32)
    spread_mean, spread = run.predict_with_spread(x, samples=3)
    assert p.shape == mean.shape == spread.shape == y.shape and p.dtype == np.float32
    np.testing.assert_allclose(mean, spread_mean, rtol=1e-4)
    assert (spread > 0).mean() > 0.8
    if found["task"] == "regression":
        assert np.sqrt(np.mean((p - y) ** 2)) == pytest.approx(found["test_rmse"], rel=1e-5)
        assert np.abs(mean - y).mean() == pytest.approx(found["mc_test_mae"], rel=1e-5)
        assert abs(p.mean() - 100) < 30 and found["test_r2"] > -1
    else:
        assert np.mean((p > 0.5) == y) == found["test_accuracy"] > 0.6
        nll = -np.mean(np.log(np.where(y, mean, 1 - mean), dtype=np.float64))
        assert nll == pytest.approx(found["mc_test_nll"], rel=1e-4)


def test_integers_and_doubles_predict_as_the_training_dtype_does(own, run, digits):
    x = digits.x_test[:5]
    for dtype in (np.int64, np.uint16, np.float64):
        np.testing.assert_allclose(run.predict(x.astype(dtype)), run.predict(x), rtol=1e-5)
    path, _ = own
    table_run, rows = runs.load(path), np.arange(10).reshape(2, 5)
    for dtype in (np.int8, np.uint8, np.uint64, np.float16):
        np.testing.assert_allclose(
            table_run.predict(rows.astype(dtype)), table_run.predict(rows * 1.0), rtol=1e-5
        )


def test_noise_of_training_alone_is_no_noise_of_a_prediction(digits):
    cutout = parse("bernoulli(rate=0.5)|cutout(rate=1.0)")
    values = {"mutable": {}, "learned": cutout.init_learned(jax.random.key(0), {}, {})}
    values["strength"] = np.float32(1)
    x, module = digits.x_test[0], models.parse("mlp(widths=())", 10)
    network = runs.Network(module, cutout, scale=16.0)
    values["params"], _ = network.init(jax.random.key(0), x)
    for number in range(3):
        keys = Keys.of(jax.random.key(number))
        found = network.sampled_prediction(values, x, keys)
        np.testing.assert_allclose(found, network.prediction(values, x), rtol=1e-5)


def test_a_batch_norm_uses_its_running_statistics_under_draws_too():
    """So noise is all that a draw adds, and no example changes what another one is."""
    network = runs.Network(models.parse(NETWORK, 3), parse("spatial(rate=0.5)"))
    key, rng = jax.random.key(1), np.random.default_rng(0)
    xs = rng.normal(size=(5, 6, 6, 1)).astype(np.float32)
    params, mutable = jax.tree.map(
        lambda leaf: rng.uniform(1, 2, leaf.shape).astype(np.float32),
        jax.eval_shape(network.init, key, xs[0]),
    )
    values = {"params": params, "mutable": mutable, "learned": {}}

    def average(xs, strength):
        values["strength"] = np.float32(strength)
        return network.monte_carlo(values, xs, key, samples=3, batch_size=5)

    clean, noisy = average(xs, 0), average(xs, 1)
    exact = evaluate.map_examples(network.prediction, values, xs)
    np.testing.assert_allclose(clean, exact, rtol=1e-5, atol=1e-6)
    assert np.abs(noisy - exact).max() > 0.1
    others = np.concatenate([xs[:2], 9 * xs[2:]])
    np.testing.assert_array_equal(average(others, 1)[:2], noisy[:2])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_scheme_that_draws_nothing_at_the_sites_of_the_model_loses_no_run(task):
    """Of one patch none can be dropped, which no one knows at the launch."""
    network = runs.Network(models.parse(TRANSFORMER, 3), parse("patch(rate=0.5)"), task)
    xs, key = np.ones((2, 1, 4), np.float32), jax.random.key(0)
    params, _ = jax.eval_shape(network.init, key, xs[0])
    options = {"samples": 2, "batch_size": 2}

    def under(average):
        def of_params(params):
            values = {"params": params, "mutable": {}, "learned": {}, "strength": 1.0}
            return average(values, xs, key, **options)

        return jax.eval_shape(of_params, params)

    assert under(network.monte_carlo).shape == (2, 3)
    with pytest.raises(evaluate.NoNoiseError):
        under(network.moments)


# What is refused.


def test_without_noise_there_are_no_draws(normalised, digits):
    run = runs.load(normalised)
    for sampled in (run.predict, run.predict_with_spread):
        with pytest.raises(ValueError, match="samples=2 would do nothing: none has no noise"):
            sampled(digits.x_test, samples=2)
    assert run.result["mc_test_nll"] is None
    with pytest.raises(ValueError, match=r"average=False needs draws of the noise: give samples"):
        run.predict(digits.x_test, average=False)


@pytest.mark.parametrize("samples", [0, -1, 1.5])
def test_too_few_samples_are_refused(run, digits, samples):
    with pytest.raises(ValueError, match="samples must be an integer"):
        run.predict(digits.x_test, samples=samples)
    with pytest.raises(ValueError, match=r"samples must be .* at least 2"):
        run.predict_with_spread(digits.x_test, samples=1)


def pixels(value: float) -> np.ndarray:
    x = np.zeros((3, 8, 8, 1), np.float32)
    x[1, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("xs", "words"),
    [
        *[
            (np.zeros(shape), r"so of shape \(examples, 8, 8, 1\)")
            for shape in ((8, 8, 1), (3, 8, 8), (3, 8, 8, 3), (0, 8, 8, 1), (3, 64), ())
        ],
        *[(pixels(of), r"pixels in \[0, 16\]") for of in (-1, 17, np.nan, np.inf, -np.inf)],
        (pixels(1.5), "whole numbers, as they are in the data's files"),
        *[
            (np.zeros((2, 8, 8, 1)).astype(dtype), "xs must be numbers")
            for dtype in (bool, object, str, complex)
        ],
    ],
)
def test_what_are_no_pixels_is_refused(run, xs, words):
    for predict in (run.predict, run.predict_with_spread):
        with pytest.raises(ValueError, match=words):
            predict(xs)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused(own, value):
    x = np.zeros((3, 5))
    x[2, 4] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        runs.load(own[0]).predict(x)


# Exported.

CALL = """
import pathlib, sys, jax.export, numpy as np
for path in pathlib.Path(sys.argv[1]).glob("*.bin"):
    f = jax.export.deserialize(bytearray(path.read_bytes()))
    xs = np.load(path.with_suffix(".npy"))
    found = {"whole": f.call(xs), "part": f.call(xs[:3]), "platforms": f.platforms}
    np.savez(path.with_suffix(".npz"), **found)
assert not [name for name in sys.modules if name.startswith(("dropjax", "flax", "optax"))]
"""


def test_an_exported_model_predicts_without_this_package(
    python, normalised, own_run, digits, tmp_path
):
    cases = {"norm": (runs.load(normalised), digits.x_test[:40])}
    for task in ("binary", "regression"):
        cases[task] = runs.load(own_run(task)), np.float32(table(task)["x_test"])
    for name, (run, x) in cases.items():
        before = hashes(run.folder)
        run.export(tmp_path / f"{name}.bin")
        np.save(tmp_path / f"{name}.npy", x)
        assert hashes(run.folder) == before
    done = python("-I", "-c", CALL, str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name, (run, x) in cases.items():
        with np.load(tmp_path / f"{name}.npz") as out:
            np.testing.assert_allclose(out["whole"], run.predict(x), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(out["part"], run.predict(x[:3]), rtol=1e-5, atol=1e-6)
            assert out["whole"].dtype == np.float32 and tuple(out["platforms"]) == PLATFORMS


def test_export_overwrites_nothing(run, tmp_path):
    (tmp_path / "model.bin").write_text("mine")
    with pytest.raises(FileExistsError, match="not overwritten"):
        run.export(str(tmp_path / "model.bin"))
    assert (tmp_path / "model.bin").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


# Many runs.


def test_runs_are_rows_and_what_is_none_is_passed_over(folder, normalised, copied, tmp_path):
    for name in ("b", "a"):
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "b" / "result.json").unlink()
    diverged = {"status": "diverged", "diverged_at": 7, "test_accuracy": None}
    files.write_result(tmp_path / "a", diverged)
    (tmp_path / "stray").mkdir()
    (tmp_path / "file").write_text("")
    rows = runs.read(tmp_path / "*")
    assert [row["folder"] for row in rows] == [str(tmp_path / name) for name in ("a", "b", "run")]
    assert [row["status"] for row in rows] == ["diverged", "unfinished", "completed"]
    assert rows[0]["diverged_at"] == 7 and "test_accuracy" not in rows[1]
    flags = config(folder)["flags"]
    assert rows[2] == rows[2] | flags | result(folder)
    assert all(row["learning_rate"] == 0.2 and row["mask_stream"] == 2 for row in rows)
    (tmp_path / "a" / "config.json").write_text("{")
    assert [row["status"] for row in runs.read(tmp_path / "*")] == [
        *("damaged", "unfinished", "completed")
    ]


def test_where_there_is_no_run_is_an_error(tmp_path):
    (tmp_path / "stray").mkdir()
    for pattern in (tmp_path / "*", tmp_path / "none", ""):
        with pytest.raises(RunError, match="no run in"):
            runs.read(pattern)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match="holds no run"):
            runs.load(path)


def test_an_unfinished_and_a_diverged_run_can_be_loaded(copied, digits):
    os.remove(copied / "result.json")
    assert runs.load(copied).result is None
    files.write_result(copied, {"status": "diverged"})
    assert runs.load(copied).result == {"status": "diverged"}
    assert runs.load(copied).predict(digits.x_test).shape == (360, 10)


# Damage.


def refused(folder: Path, words: str, *, read: bool = False) -> None:
    before = hashes(folder)
    with pytest.raises(RunError, match=words):
        runs.load(folder)
    if read:
        (row,) = runs.read(folder)
        assert row["status"] == "damaged" and re.search(words, row["error"])
    assert hashes(folder) == before


GONE, NO_NETWORK = object(), "does not describe a network"
CONFIGS = [
    # a part of it, what it becomes, and what the message says
    *[(name, GONE, f"has no {name}") for name in ("flags", "network", "mask_stream")],
    ("mask_stream", 1, r"made under mask stream 1, this version has 2.*dropjax \d"),
    *[(f"flags.{name}", GONE, NO_NETWORK) for name in ("model", "dropout", "strength", "seed")],
    *[("flags.model", model, NO_NETWORK) for model in ("nosuch", "nosuch:Model", "mlp(", "", 3)],
    ("flags.model", "dropjax.models.mlp:Gone", NO_NETWORK),
    ("flags.model", "mlp(widths=8)", NO_NETWORK),
    (
        "flags.model",
        "mlp(widths=(33,))",
        r"none of the 2 checkpoints .* float32\[32, 10\], expected float32\[33, 10\]",
    ),
    *[(f"network.{name}", GONE, NO_NETWORK) for name in ("task", "outputs", "shift", "scale")],
    ("network.example_dtype", GONE, NO_NETWORK),
    ("network.target_shift", GONE, NO_NETWORK),
    *[("network.example_shape", value, NO_NETWORK) for value in (GONE, [8, -8, 1], "8x8")],
    ("network.task", "sorting", NO_NETWORK),
    ("network.outputs", "ten", NO_NETWORK),
    ("network.example_dtype", "uint9", NO_NETWORK),
    *[("network.scale", value, NO_NETWORK) for value in ("sixteen", [1, 2, 3])],
]


@pytest.mark.parametrize(("part", "value", "words"), CONFIGS)
def test_a_config_that_is_not_whole_or_not_right_is_refused(copied, part, value, words):
    above, _, name = part.rpartition(".")

    def change(config):
        of = config[above] if above else config
        of.pop(name) if value is GONE else of.update({name: value})

    rewrite(copied / "config.json", change)
    refused(copied, words, read=words.startswith("has no"))


def test_a_result_without_a_status_or_that_is_no_object_is_refused(copied):
    rewrite(copied / "result.json", lambda result: result.pop("status"))
    refused(copied, "no status", read=True)
    (copied / "result.json").write_text("[]")
    refused(copied, "result.json is damaged", read=True)


def test_metrics_that_are_not_those_of_the_result_are_refused(copied):
    path = copied / "metrics.jsonl"
    whole = path.read_bytes()
    for other in (whole[:-9], whole[: whole.index(b"\n") + 1], whole.replace(b"1", b"2", 1), b""):
        path.write_bytes(other)
        refused(copied, r"metrics.jsonl is damaged: it is not the one that result.json", read=True)
    path.unlink()
    refused(copied, r"metrics.jsonl cannot be read: No such file", read=True)


def test_metrics_of_an_unfinished_run_are_those_up_to_its_checkpoint(copied, run):
    """What came after it is dropped by a resume, and nothing says that it was not changed."""
    (copied / "result.json").unlink()
    path = copied / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 18, "epo')
    assert runs.load(copied).history == run.history
    for other in (whole[:-1], whole.replace(b"1", b"2", 1)):
        path.write_bytes(other)
        refused(copied, "metrics.jsonl is damaged: it was changed after the newest checkpoint")


# Hashes.


def unsealed(folder: Path, version: str) -> None:
    """Makes a run's files those of another version, without hashes."""
    rewrite(
        folder / "config.json",
        lambda of: of["environment"].update(dropjax=version) or of.pop("sessions"),
    )
    for name in ("config.json", "result.json"):
        value, _ = record.read(folder / name)
        value.pop("files", None)
        (folder / name).write_text(json.dumps(value))


def test_a_run_of_a_version_without_hashes_is_read_with_a_note(copied, run, tmp_path):
    unsealed(copied, "0.5.2")
    shutil.copytree(copied, tmp_path / "second")
    note = "version 0.5.2 wrote no hashes"
    with pytest.warns(UserWarning, match=note) as told:
        old = runs.load(copied)
    assert (old.history, old.result) == (run.history, run.result) and len(told) == 1
    with pytest.warns(UserWarning, match=f"{note}.*; 1 more runs likewise") as told:
        rows = runs.read(tmp_path / "*")
    assert [row["status"] for row in rows] == ["completed"] * 2 and len(told) == 1
    # One that it has, or had, must be right, whatever the version; and so must the metrics.
    for change in ({"files": {}}, {"sha256": "0" * 64}):
        text = json.dumps(run.result | change)
        (copied / "result.json").write_text(text)
        refused(copied, "result.json is damaged: it (has no|does not have the) sha256", read=True)
    (copied / "result.json").write_text(json.dumps(run.result))
    text = (copied / "metrics.jsonl").read_text()
    (copied / "metrics.jsonl").write_text(text.replace("1", "2", 1))
    with pytest.warns(UserWarning, match=note):
        refused(copied, "metrics.jsonl is damaged: it was changed after the newest checkpoint")


@pytest.mark.parametrize("version", ["0.6.0", "1.2.3", "?"])
def test_a_hash_that_was_taken_out_is_missed(copied, version):
    unsealed(copied, version)
    refused(copied, "config.json is damaged: it has no sha256, which version", read=True)


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_each_file_needs_its_own_hash(copied, name):
    value, _ = record.read(copied / name)
    (copied / name).write_text(json.dumps(value))
    refused(copied, f"{name} is damaged: it has no sha256, which version", read=True)


def test_a_result_of_another_run_is_none_of_this(copied, normalised):
    shutil.copy(normalised / "result.json", copied / "result.json")
    refused(copied, "is not the one that result.json was written beside", read=True)


def loaded(folder: Path) -> Any:
    """All that is read of a run's files, but for its checkpoints."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config, sealed = files.read_config(folder)
        result = files.read_result(folder, config)
        mark = json.loads(max(folder.glob("checkpoints/*/manifest.json")).read_text())["extra"]
        history = files.read_history(folder, mark["metrics"], whole=result is not None)
    return config, result, history, sealed


def damages(data: bytes, number: int) -> Iterator[bytes]:
    """A file with a bit or a digit changed, a line removed or doubled, or its end cut."""
    rng = random.Random(number)
    for _ in range(60):
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    digits = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
    for at in rng.sample(digits, min(40, len(digits))):
        yield data[:at] + str((int(chr(data[at])) + 1) % 10).encode() + data[at + 1 :]
    lines = data.splitlines(keepends=True)
    for at in rng.sample(range(len(lines)), min(20, len(lines))):
        yield b"".join(lines[:at] + lines[at + 1 :])
        yield b"".join(lines[: at + 1] + lines[at:])
    for at in rng.sample(range(len(data)), 10):
        yield data[:at]


@pytest.mark.parametrize("finished", [True, False])
def test_damage_anywhere_is_noticed_or_changes_no_value(copied, finished):
    if not finished:
        (copied / "result.json").unlink()
    before, noticed = loaded(copied), 0
    for number, path in enumerate(sorted(copied.glob("*"))):
        if not path.is_file() or path.name == "lock":
            continue
        whole = path.read_bytes()
        for damaged in damages(whole, number):
            path.write_bytes(damaged)
            try:
                assert loaded(copied) == before, path.name
            except files.RecordError as error:
                noticed += 1
                assert ".json" in str(error)
        path.write_bytes(whole)
    assert noticed > 100


def test_a_damaged_checkpoint_is_passed_over(copied, run):
    newest = sorted((copied / "checkpoints").iterdir())[-1]
    os.truncate(newest / "state.safetensors", 100)
    with pytest.warns(UserWarning, match="is damaged and not used.*an older one is"):
        older = runs.load(copied)
    assert older.step < run.step == 12
    assert tree_hash(older.params) != tree_hash(run.params)


def test_without_a_good_checkpoint_nothing_is_loaded(copied):
    for path in (copied / "checkpoints").iterdir():
        (path / "manifest.json").write_text("{}")
    refused(copied, "none of the 2 checkpoints .* manifest.json does not .*; put back a copy")
    shutil.rmtree(copied / "checkpoints")
    refused(copied, "has no checkpoint")


OWN = """
from dropjax import schemes
from dropjax.schemes.bernoulli import Bernoulli

@schemes.scheme
class Mine(Bernoulli):
    pass
"""


def test_an_edited_scheme_of_ones_own_is_not_taken_for_the_runs(copied, tmp_path, monkeypatch):
    """Its masks would be others, without a word."""
    file = tmp_path / "scheme_of_mine.py"
    file.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    was = hashlib.sha256(OWN.encode()).hexdigest()

    def of_mine(config):
        config["flags"]["dropout"] = "scheme_of_mine:Mine(rate=0.5)"
        config["sources"] = {"scheme_of_mine": was}

    rewrite(copied / "config.json", of_mine)
    assert type(runs.load(copied).network.scheme.links[0]).__name__ == "Mine"
    file.write_text(f"{OWN}# edited")
    now = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(RunError) as caught:
        runs.load(copied)
    assert str(caught.value) == (
        f"{copied}: {file} was changed since the run was begun: its sha256 was {was}, is {now}. "
        "Put it back as it was; else noise and predictions would not be the run's"
    )
    rewrite(copied / "config.json", lambda config: config.pop("sources"))  # as versions before
    assert runs.load(copied).config["flags"]["dropout"] == "scheme_of_mine:Mine(rate=0.5)"


CALLS = {
    "predict": lambda run, x: run.predict(x),
    "one draw": lambda run, x: run.predict(x, samples=1),
    "spread": lambda run, x: run.predict_with_spread(x, samples=4),
}


@pytest.mark.parametrize("call", CALLS)
def test_runs_of_equal_networks_share_one_program(own_run, call, monkeypatch):
    """However many are loaded. Whatever is compiled is traced first."""
    traced, outputs = [], Network.outputs

    def counted(*arguments):
        traced.append(1)
        return outputs(*arguments)

    loaded = [runs.load(own_run("regression")) for _ in range(2)]
    x = np.linspace(0, 1, 13 * 5).reshape(13, 5)  # so many as no other test has
    monkeypatch.setattr(Network, "outputs", counted)
    first = CALLS[call](loaded[0], x)
    assert traced, "nothing was traced, so nothing could be seen"
    traced.clear()
    jax.tree.map(np.testing.assert_array_equal, CALLS[call](loaded[1], x), first)
    assert not traced
