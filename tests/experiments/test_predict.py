"""Pictures classified by a finished run."""

import dataclasses
import os
import types
from pathlib import Path

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image, ImageOps

from dropjax import data, runs
from dropjax.core.scheme import Chain
from dropjax.data.images import ImageError
from experiments import predict
from experiments.predict import lines

SHAPE = (8, 8, 1)
DIGITS = data.load("digits", None, say=pytest.fail)
# 16 levels, so that 8 bits hold an image of the digits exactly.
PIXELS = np.rint(DIGITS.x_test[0, :, :, 0] * (255 / 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def run(some_run) -> runs.Run:
    return runs.load(some_run)


@pytest.fixture(scope="module")
def colours(small_run, npz) -> runs.Run:
    """A run on coloured pictures, red or blue, two classes of one output."""
    y = np.arange(90) % 2
    x = np.random.default_rng(0).integers(0, 60, (90, 6, 4, 3), np.uint8)
    x[np.arange(90), :, :, 2 * y] += 190
    arrays = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    return runs.load(small_run(dataset=npz(**arrays), batch_size=16, mc_samples=0))


def saved(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def printed(run: runs.Run, *paths: Path, samples=5, top=3, invert=False) -> list[str]:
    return lines(run, [str(p) for p in paths], samples=samples, top=top, invert=invert)


GRAY = Image.fromarray(PIXELS)


def test_a_table_shows_what_the_run_predicts(run, tmp_path):
    paths = [saved(GRAY, tmp_path / "a.png"), saved(ImageOps.invert(GRAY), tmp_path / "b.png")]
    text = printed(run, *paths, samples=7)
    first, second = text[:5], text[5:]
    assert first[0] == str(paths[0]) and second[0] == str(paths[1])
    assert first[1].split() == ["class", "probability", "7", "draws"]
    plain = run.predict(DIGITS.x_test[:1])[0]
    mean, spread = (part[0] for part in run.predict_with_spread(DIGITS.x_test[:1], samples=7))
    for line, label in zip(first[2:], np.argsort(-mean)[:3], strict=True):
        values = [f"{value[label]:.4f}" for value in (plain, mean, spread)]
        assert line.split() == [str(label), values[0], values[1], "+-", values[2]]
    assert "NOTE" in second[1] and "--invert" in second[1] and "NOTE" not in "".join(first)
    again = printed(run, paths[1], samples=7, invert=True)
    assert again[1:] == first[1:]


@pytest.mark.parametrize("task", ["classification", "binary"])
def test_classes_have_the_names_that_the_data_gave_them(tmp_path, task):
    found = np.array([0.8] if task == "binary" else [[0.7, 0.1, 0.2]])
    described = {"task": task, "example_dtype": "uint8", "scale": 16, "example_shape": [8, 8, 1]}
    still = types.SimpleNamespace(is_random_in_evaluation=lambda: False)
    named = types.SimpleNamespace(
        config={"network": described, "flags": {"dataset": "own.npz"}},
        network=types.SimpleNamespace(scheme=still),
        classes=("a", "long name") if task == "binary" else ("cat", "ant", "long name"),
        predict=lambda images: found,
    )
    text = printed(named, saved(GRAY, tmp_path / "a.png"))  # type: ignore[arg-type]
    assert text[1] == "      class  probability"
    wanted = {"binary": ["long name       0.8000", "a       0.2000"]}
    wanted["classification"] = ["cat       0.7000", "long name       0.2000", "ant       0.1000"]
    assert [line.strip() for line in text[2:]] == wanted[task]
    assert len({len(line) for line in text[1:]}) == 1


def test_top_is_the_number_of_classes_shown(run, tmp_path):
    path = saved(GRAY, tmp_path / "a.png")
    assert [len(printed(run, path, top=n)) for n in (1, 10, 99)] == [3, 12, 12]


def test_two_classes_of_one_output_add_up(colours, tmp_path):
    path = saved(Image.new("RGB", (50, 50), (0, 0, 230)), tmp_path / "blue.png")
    text = printed(colours, path)
    assert len(text) == 4 and "NOTE" not in "".join(text)
    (label, plain, mean, _, spread), other = (line.split() for line in text[2:])
    assert (label, other[0]) == ("1", "0") and float(plain) > 0.6
    assert float(plain) + float(other[1]) == pytest.approx(1, abs=2e-4)
    assert float(mean) + float(other[2]) == pytest.approx(1, abs=2e-4) and spread == other[4]


def test_without_noise_there_is_no_column_of_draws(run, tmp_path):
    still = dataclasses.replace(run, network=dataclasses.replace(run.network, scheme=Chain()))
    text = printed(still, saved(GRAY, tmp_path / "a.png"))
    assert text[1].split() == ["class", "probability"]
    assert all(len(line.split()) == 2 for line in text[2:])


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_run_on_tables_is_refused(own_run, tmp_path, task):
    other = runs.load(own_run(task))
    with pytest.raises(ImageError, match=rf"for {task} of float32 \(5,\)"):
        printed(other, saved(GRAY, tmp_path / "a.png"))


def test_the_command_prints_its_table_and_errors_in_a_line(
    run, python, tmp_path, monkeypatch, capsys
):
    path = saved(GRAY, tmp_path / "a.png")
    start = ("-m", "experiments.predict", f"--run={run.folder}", "--samples=7")
    done = python(*start, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == printed(run, path, samples=7)
    os.truncate(path, 50)
    monkeypatch.setenv("HOME", str(run.folder.parent))
    with flagsaver.flagsaver():
        words = predict.flags.FLAGS(["predict", f"--run=~/{run.folder.name}", str(path)])
        assert predict.main(words) == 2
    out, error = capsys.readouterr()
    (line,) = error.splitlines()
    assert out == "" and line.startswith(f"predict: {path} is no image that can be read")
