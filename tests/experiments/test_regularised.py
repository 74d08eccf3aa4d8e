"""Runs with flags of regularisation: they stop, go on, and refuse what would do nothing."""

import json
import shutil

import pytest

from experiments import flags, run, setup
from experiments.flags import Flags
from experiments.folder import recorded
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError
from tests.experiments.conftest import table

pytestmark = pytest.mark.usefixtures("no_picture")


def numbers(path) -> tuple:
    result = json.loads((path / "result.json").read_text())
    names = ("param_hash", "best_step", "stopped_at", "test_nll", "mc_test_nll", "validation_nll")
    return tuple(result[name] for name in names), (path / "metrics.jsonl").read_bytes()


def resume(path, **given) -> int:
    return run.run(
        EXPERIMENT, Flags(**given), path, resume=True, overwrite=False, typed=given.keys()
    )


def test_a_run_that_is_made_longer_stops_where_a_long_one_stops(small_run, tmp_path):
    given = {"dropout": "bernoulli(rate=0.4)", "patience": 2, "min_gain": 0.02}
    given |= {"average": "ema(decay=0.9)", "max_norm": 2.0}
    whole, path = small_run(epochs=40, **given), tmp_path / "run"
    shutil.copytree(small_run(epochs=3, **given), path)
    assert numbers(path)[0][2] is None
    assert resume(path, epochs=40) == 0
    assert numbers(path) == numbers(whole)
    (_, best, end, *_), lines = numbers(whole)
    epochs = [json.loads(line)["validation_loss"] for line in lines.splitlines()]
    assert 3 < len(epochs) < 40 and epochs.index(min(epochs[:-2])) == len(epochs) - 3
    assert (best, end) == tuple(end // len(epochs) * n for n in (len(epochs) - 2, len(epochs)))
    with pytest.raises(LaunchError, match=f"stopped early, at step {end}: more epochs would"):
        resume(path, epochs=50)
    (path / "result.json").unlink()  # as if it was killed after it had stopped
    assert resume(path) == 0 and numbers(path) == numbers(whole)


def test_a_schedule_over_the_whole_run_cannot_be_made_longer(small_run, tmp_path):
    given = {"dropout": "none", "learning_rate": "linear(peak=0.2)", "average": "last(share=0.5)"}
    finished = small_run(**given | {"mc_samples": 0})
    # After each epoch the average is measured, as at the end.
    result = json.loads((finished / "result.json").read_text())
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation_loss"] == pytest.approx(result["validation_nll"], rel=1e-6)
    shutil.copytree(finished, tmp_path / "run")
    why = "schedule over the whole run; it averages weights over a share of the whole run"
    with pytest.raises(LaunchError, match=why):
        resume(tmp_path / "run", epochs=5)


def test_the_command_has_a_later_flag_only_if_it_does_something(small_run):
    plain = recorded(small_run(dropout="none", mc_samples=0))["command"]
    assert "--learning_rate=0.2" in plain
    assert not [name for name in ("l1", "l2", "average", "monitor") if f"--{name}=" in plain]
    config = vars(Flags()) | {"l2": 0.1, "average": "ema(decay=0.9)"}
    said = flags.in_command(config)
    assert said["l2"] == 0.1 and said["average"] == "ema(decay=0.9)" and "l1" not in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"patience": 3, "validation": 0}, "patience=3 needs validation data, and there are none"),
        ({"min_gain": 0.1}, "min_gain=0.1 would do nothing without --patience"),
        ({"monitor": "accuracy"}, "monitor=accuracy would do nothing without --patience"),
        (
            {"patience": 3, "monitor": "rmse"},
            "monitor=rmse: in classification it can be loss or acc",
        ),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"clip": -1.0}, "clip must be a finite number above 0, got -1.0"),
        ({"max_norm": 0.0}, "max_norm must be a finite number, above 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"augment": "turn"}, "augment='turn': there is no turn, but flip, rotate, scale, shift"),
        ({"augment": "shift(pixels=0)"}, "pixels must be a whole number from 1 on, got 0"),
        ({"mix": "cutmix(alpha=0)"}, "alpha must be a finite number above 0"),
        ({"average": "swa"}, "average='swa' must be none, ema"),
        ({"learning_rate": "cosine(warmup=0.1)"}, "learning_rate='cosine.*peak"),
        ({"learning_rate": "cosin(peak=0.1)"}, "did you mean cosine"),
    ],
)
def test_what_would_do_nothing_is_refused(given, words):
    with pytest.raises(LaunchError, match=words):
        setup.resolve(EXPERIMENT, Flags(dataset="digits", **given), lambda line: None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"label_smoothing": 0.1}, r"label_smoothing=0\.1 would do nothing"),
        ({"augment": "flip"}, r"augment=flip is for images; the examples are of shape \(5,\)"),
        ({"mix": "cutmix"}, "mix=cutmix is for images"),
    ],
)
def test_what_a_table_of_numbers_has_not_is_refused(npz, given, words):
    with pytest.raises(LaunchError, match=words):
        setup.resolve(
            EXPERIMENT, Flags(dataset=npz(**table("regression")), **given), lambda _: None
        )
