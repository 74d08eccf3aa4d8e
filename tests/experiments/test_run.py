import dataclasses
import errno
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from absl.flags import FlagValues

from dropjax import runs
from dropjax.runs import Network, files, record
from dropjax.runs.sources import sources
from dropjax.train.checkpoint import CheckpointError
from dropjax.train.log import JsonLines, LogError
from experiments import changes, flags, folder, report, results, resume, run
from experiments.experiment import Experiment
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError, Setup, read_once, resolve, set_up
from tests.experiments.conftest import rewrite

LOAD = read_once(EXPERIMENT, lambda line: None)
DRAW_CURVES = report.draw_curves
MODEL = "mlp(widths=(8,))"
SMALL = Flags(
    dropout="bernoulli",
    model=MODEL,
    dataset="digits",
    epochs=2,
    batch_size=256,
    learning_rate=0.01,
    mc_samples=2,
)
STEPS = 12
MLP = dataclasses.replace(SMALL, mc_samples=0, optimizer="sgd", learning_rate=0.1)
# One program for all tests that need some run and no particular one.
QUICK = dataclasses.replace(MLP, dropout="none", validation=0, epochs=1)
MEASURES = [
    f"{part}_{measure}"
    for part in ("train", "validation", "test", "mc_test")
    for measure in ("accuracy", "nll", "ece")
]
FILES = {
    *("config.json", "sites.txt", "metrics.jsonl", "timing.jsonl", "result.json", "curves.png"),
    *("checkpoints", "lock"),
}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch) -> None:
    monkeypatch.setattr(report, "draw_curves", lambda history, title, path: None)


_READY: dict[Flags, Setup] = {}


@pytest.fixture(autouse=True)
def set_up_once(monkeypatch) -> None:
    """Runs of the same flags share what is set up, and so the compiled program."""

    def cached(experiment: Experiment, given: Flags, *arguments: Any) -> Setup:
        if given not in _READY:
            _READY[given] = set_up(experiment, given, *arguments)
        return _READY[given]

    monkeypatch.setattr(run, "set_up", cached)


def start(
    path: Path | None,
    given: Flags = SMALL,
    *,
    resume: bool = False,
    overwrite: bool = False,
    typed: Collection[str] | None = None,
) -> int:
    # optax's Adam mixes dtypes; all else is held to the suite's strictness.
    mode = "standard" if given.optimizer.startswith("adam") else "strict"
    with jax.numpy_dtype_promotion(mode):
        return run.run(EXPERIMENT, given, path, resume=resume, overwrite=overwrite, typed=typed)


@pytest.fixture(scope="module")
def finished(compile_once, tmp_path_factory) -> Path:
    """A run that was not disturbed, with its picture. Not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert start(path) == 0
    return path


@pytest.fixture(scope="module")
def longer(compile_once, tmp_path_factory) -> Path:
    """As `finished`, of twice as many epochs from its start on. Not to be changed."""
    path = tmp_path_factory.mktemp("longer") / "run"
    assert start(path, dataclasses.replace(SMALL, epochs=4)) == 0
    return path


@pytest.fixture(scope="module")
def broken_off(compile_once, tmp_path_factory) -> Path:
    """A run that ended after 8 steps, with checkpoints of the last two. Not to be changed."""
    path = tmp_path_factory.mktemp("broken") / "run"
    interrupt(path, before=8)
    return path


@pytest.fixture
def broken(broken_off, tmp_path) -> Path:
    return Path(shutil.copytree(broken_off, tmp_path / "run"))


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def result(path: Path) -> dict[str, Any]:
    found = files.read_result(path, files.read_config(path)[0])  # it refuses what is no JSON
    assert found is not None
    return found


def assert_same_run(path: Path, other: Path) -> None:
    for name in ("metrics.jsonl", "sites.txt"):
        assert (path / name).read_bytes() == (other / name).read_bytes()
    # The hashes of "files" are checked when a run is read; config.json lists sessions.
    timed = dict.fromkeys(("resumed_from_step", "seconds", "examples_per_second", "files"))
    assert result(path) | timed == result(other) | timed
    assert result(path)["param_hash"] == result(other)["param_hash"]


def disturb(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], *, before: int, saving: bool = True
) -> None:
    """Makes chunks of one step, and lets `act` happen before that one is handed out.

    With `saving`, so much time seems to pass that a checkpoint follows each; else none.
    """
    clock, real = [0.0], run.chunks

    def chunks(program: Any, state: Any, *, epochs: int) -> Iterator[Any]:
        for number, chunk in enumerate(real(program, state, epochs=epochs, seconds=1e-9)):
            assert chunk.steps == 1
            if number == before:
                act()
            clock[0] += 10.0 if saving else 0.0
            yield chunk

    monkeypatch.setattr(run, "chunks", chunks)
    monkeypatch.setattr(run, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))


class Broken(Exception):
    """What ends a run in the middle."""


def break_off() -> None:
    raise Broken


def interrupt(path: Path, *, before: int, saving: bool = True) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Broken):
        disturb(patch, break_off, before=before, saving=saving)
        start(path)


def typed(*words: str) -> tuple[Flags, set[str]]:
    """The flags of a command, and the names of those that it has."""
    values = run.define_flags(EXPERIMENT, FlagValues())
    assert values(["mnist", *words]) == ["mnist"]
    return Flags(**flags.given(values)), flags.typed(values)


def checkpoints(path: Path) -> list[int]:
    return sorted(int(p.name) for p in (path / "checkpoints").iterdir())


def test_a_run_leaves_its_files(finished):
    assert {p.name for p in finished.iterdir()} == FILES
    assert (finished / "lock").read_text() == ""
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "layer_0/hidden " in (finished / "sites.txt").read_text()
    assert len(checkpoints(finished)) == 2 and checkpoints(finished)[-1] == STEPS


def test_result_json_has_what_was_measured(finished):
    found = result(finished)
    assert set(found) == {
        *("status", "dataset", "model", "dropout", "strength", "seed", "mc_samples", "parameters"),
        *("param_hash", "resumed_from_step", "seconds", "examples_per_second", "task", *MEASURES),
        *("penalty", "learned"),
    }
    assert (found["status"], found["dataset"], found["seed"]) == ("completed", "digits", 0)
    assert found["model"] == MODEL
    assert found["task"] == "classification"
    assert (found["dropout"], found["mc_samples"]) == ("bernoulli(rate=0.5)", 2)
    assert found["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert found["resumed_from_step"] is None and len(bytes.fromhex(found["param_hash"])) == 32
    assert found["seconds"] > 0 and found["examples_per_second"] > 0
    for name in MEASURES:
        assert 0 <= found[name] <= (1 if not name.endswith("nll") else 10)
    assert found["mc_test_nll"] != found["test_nll"]


def test_metrics_have_a_line_an_epoch(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [(6, 1), (12, 2)]
    names = {f"{part}_{name}" for part in ("train", "validation") for name in ("loss", "accuracy")}
    assert all(set(line) == names | {"step", "epoch"} for line in lines)
    last, found = lines[-1], result(finished)
    assert last["validation_accuracy"] == found["validation_accuracy"]
    assert last["validation_loss"] == found["validation_nll"]


def test_timing_has_every_step(finished):
    lines = [json.loads(line) for line in (finished / "timing.jsonl").read_text().splitlines()]
    assert sum(line.get("steps", 0) for line in lines) == STEPS
    assert [line for line in lines if "first_step_after_seconds" in line] == [lines[1]]


@pytest.mark.parametrize(
    ("before", "saving", "resumed_from"),
    [
        (3, True, 3),  # within an epoch
        (6, True, 6),  # between two
        (10, False, 0),  # an epoch's line was written, but no checkpoint after it
    ],
)
def test_a_resumed_run_is_the_undisturbed_one(finished, tmp_path, before, saving, resumed_from):
    interrupt(tmp_path, before=before, saving=saving)
    assert not (tmp_path / "result.json").exists()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == before // 6
    assert max(checkpoints(tmp_path)) == resumed_from
    assert start(tmp_path, resume=True) == 0
    assert result(tmp_path)["resumed_from_step"] == resumed_from
    assert_same_run(tmp_path, finished)


def test_a_damaged_checkpoint_is_passed_over_and_half_a_line_dropped(finished, broken, capsys):
    os.truncate(broken / "checkpoints" / "0000000008" / "state.safetensors", 100)
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "epo')
    assert start(broken, resume=True) == 0
    assert capsys.readouterr().out.count("WARNING: checkpoint 0000000008 is damaged") == 1
    assert result(broken)["resumed_from_step"] == 7
    assert_same_run(broken, finished)


def test_without_a_good_checkpoint_nothing_is_resumed_and_without_any_it_starts_anew(
    finished, broken, capsys
):
    for path in (broken / "checkpoints").iterdir():
        os.truncate(path / "state.safetensors", 100)
    with pytest.raises(CheckpointError, match="none of the 2"):
        start(broken, resume=True)
    shutil.rmtree(broken / "checkpoints")
    assert start(broken, resume=True) == 0
    assert "starting anew" in capsys.readouterr().out
    assert result(broken)["resumed_from_step"] == 0
    assert_same_run(broken, finished)


def test_metrics_that_were_changed_are_not_continued(broken_off, finished, tmp_path):
    for run_ in (broken_off, finished):
        path = Path(shutil.copytree(run_, tmp_path / run_.parent.name))
        text = (path / "metrics.jsonl").read_text()
        (path / "metrics.jsonl").write_text(text.replace("1", "2", 1))
        with pytest.raises(LogError, match=r"metrics\.jsonl was changed"):
            start(path, resume=True)


def test_a_finished_run_can_be_resumed_and_another_environment_is_said_aloud(
    finished, copied, capsys
):
    (copied / "result.json").unlink()
    here = folder.recorded(copied)["environment"]
    there = here | {"python": "2.7"}
    before = {"environment": there, "sessions": [{"from_step": 0, "environment": there}]}
    rewrite(copied / "config.json", lambda config: config.update(before))
    assert start(copied, resume=True) == 0
    found = result(copied)
    assert (found["resumed_from_step"], found["examples_per_second"]) == (STEPS, None)
    assert_same_run(copied, finished)
    after = folder.recorded(copied)
    assert after.pop("sessions") == [
        *before["sessions"],
        {"from_step": STEPS, "environment": here},
    ]
    assert after["environment"] == there
    lines = capsys.readouterr().out.splitlines()
    at = [line.startswith("ENVIRONMENT CHANGED") for line in lines].index(True)
    assert lines[at + 1].startswith("  environment.python: was '2.7'")


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def number(request) -> Iterator[signal.Signals]:
    """A signal; not caught by the run, it fails the test instead of ending the process."""

    def unheeded(number: int, frame: Any) -> None:
        raise AssertionError("the run did not catch the signal")

    outside = signal.signal(request.param, unheeded)
    yield request.param
    after = signal.signal(request.param, outside)
    assert after is unheeded  # the run put it back


def test_a_signal_stops_a_run_that_can_be_resumed(finished, tmp_path, capsys, number):
    with pytest.MonkeyPatch.context() as patch:
        # No time passes: the checkpoint is the signal's own.
        disturb(patch, lambda: os.kill(os.getpid(), number), before=4, saving=False)
        assert start(tmp_path) == {"SIGTERM": 143, "SIGINT": 130}[number.name]
    assert f"{number.name}: stopped at step 5 of 12" in capsys.readouterr().out
    assert checkpoints(tmp_path) == [0, 5] and not (tmp_path / "result.json").exists()
    assert (tmp_path / "lock").read_text() == ""
    assert start(tmp_path, resume=True) == 0
    assert result(tmp_path)["resumed_from_step"] == 5
    assert_same_run(tmp_path, finished)


def test_a_signal_in_the_last_chunk_stops_the_run_before_it_is_evaluated(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, lambda: os.kill(os.getpid(), signal.SIGTERM), before=STEPS // 2 - 1)
        assert start(tmp_path, QUICK) == 143
    assert not (tmp_path / "result.json").exists()
    assert start(tmp_path, QUICK, resume=True) == 0
    assert result(tmp_path)["status"] == "completed"


def test_a_completed_and_a_stopped_run_are_made_longer(longer, copied, broken_off, tmp_path):
    stopped = Path(shutil.copytree(broken_off, tmp_path / "stopped"))
    assert start(stopped, dataclasses.replace(SMALL, epochs=4), resume=True) == 0
    assert_same_run(stopped, longer)
    before = (copied / "metrics.jsonl").read_bytes()
    assert start(copied, Flags(epochs=4), resume=True, typed={"epochs"}) == 0
    assert_same_run(copied, longer)
    assert result(copied)["resumed_from_step"] == STEPS
    assert (copied / "metrics.jsonl").read_bytes().startswith(before)
    ours, theirs = folder.recorded(copied), folder.recorded(longer)
    assert [session["from_step"] for session in ours.pop("sessions")] == [0, STEPS]
    del theirs["sessions"]
    assert ours == theirs
    assert {p.name for p in copied.iterdir()} == FILES


def test_what_is_read_while_a_run_is_made_longer_is_true(finished, longer, copied, monkeypatch):
    """Each moment: before the configuration is written, in training, after the new result."""
    more = dataclasses.replace(SMALL, epochs=4)
    with monkeypatch.context() as patch, pytest.raises(Broken):
        patch.setattr(record, "write", lambda path, value: break_off())
        start(copied, more, resume=True)
    (row,) = runs.read(copied)
    assert (row["status"], row["epochs"]) == ("unfinished", 2)
    assert start(copied, resume=True, typed=()) == 0  # it may still stay as it was
    assert_same_run(copied, finished)
    assert {p.name for p in copied.iterdir()} == FILES
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Broken):
        disturb(patch, break_off, before=3)
        start(copied, more, resume=True)
    (row,) = runs.read(copied)
    assert (row["status"], row["epochs"], "test_nll" in row) == ("unfinished", 4, False)
    run_now = runs.load(copied)
    assert run_now.step > STEPS and run_now.result is None and run_now.replay().steps == 2 * STEPS
    kept = copied / folder.old_result(2)
    assert json.loads(kept.read_text())["param_hash"] == result(finished)["param_hash"]
    with monkeypatch.context() as patch, pytest.raises(Broken):
        patch.setattr(folder, "drop_old_results", lambda path: break_off())
        start(copied, resume=True, typed=())
    (row,) = runs.read(copied)
    assert (row["status"], row["epochs"]) == ("completed", 4) and kept.exists()
    assert start(copied, resume=True, typed=()) == 0
    assert not kept.exists()
    assert_same_run(copied, longer)


def test_a_run_is_made_longer_only_if_its_start_would_be_the_same(copied, monkeypatch):
    before = {p.name: p.read_bytes() for p in copied.iterdir() if p.is_file()}
    with pytest.raises(LaunchError, match="--epochs: was 2, is 1: a run can be made longer, not "):
        start(copied, Flags(epochs=1), resume=True, typed={"epochs"})
    monkeypatch.setitem(changes.OF_LENGTH, "the rate falls until the end", lambda setup: True)
    with pytest.raises(LaunchError, match=r"--epochs: .* longer: the rate falls until the end"):
        start(copied, Flags(epochs=3), resume=True, typed={"epochs"})
    assert before == {p.name: p.read_bytes() for p in copied.iterdir() if p.is_file()}
    rewrite(copied / "result.json", lambda result: result.update(status="diverged"))
    with pytest.raises(LaunchError, match=r"--epochs: the run in .* diverged"):
        start(copied, Flags(epochs=3), resume=True, typed={"epochs"})


def test_the_command_needs_no_flag_but_the_folder(copied, command, capsys):
    words = ("--resume", f"--workdir={copied}")
    with jax.numpy_dtype_promotion("standard"):
        found = [command(*words), command(*words, "--seed=1")]
    out, err = capsys.readouterr()
    assert found == [0, 2] and "nothing is left to do" in out
    assert err.startswith("mnist: --seed: was 0, is 1: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        "--dropout=bernoulli",
        "--dropout=bernoulli --rate=0.5",
        "--rate=0.5",
        "--model=mlp(widths=( 8, ))",
        "--dataset=digits --task=auto --seed=0 --validation=144 --strength=1.0",
        "--learning_rate=1e-2 --optimizer=adam() --epochs=2",
    ],
)
def test_flags_that_agree_with_the_record_may_be_given(finished, words):
    given, record = typed(*re.split(r" (?=--)", words)), folder.recorded(finished)
    agreed = resume.flags_of(*given, record)
    resume.check_agreement(EXPERIMENT, agreed, record, LOAD)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--dropout=zoneout", "--dropout: was bernoulli(rate=0.5), is zoneout("),
        (
            "--dropout=bernoulli(rate=0.2)",
            "--dropout: was bernoulli(rate=0.5), is bernoulli(rate=0.2",
        ),
        ("--rate=0.25", "--rate: was 0.5, is 0.25"),
        ("--model=mlp(widths=(9,))", "--model: was mlp("),
        ("--model=auto", "--model: was mlp("),
        ("--dataset=mnist", "--dataset: was digits, is mnist"),
        ("--validation=100", "--validation: was 144, is 100"),
        ("--train_examples=100", "--train_examples: was None, is 100"),
        ("--seed=1", "--seed: was 0, is 1"),
        ("--epochs=1", "--epochs: was 2, is 1"),
        ("--batch_size=32", "--batch_size: was 256, is 32"),
        ("--optimizer=sgd", "--optimizer: was adam, is sgd"),
        ("--learning_rate=0.1", "--learning_rate: was 0.01, is 0.1"),
        ("--strength=0.5", "--strength: was 1, is 0.5"),
        ("--clip=1", "--clip: was None, is 1"),
        ("--l1=0.1", "--l1: was 0.0, is 0.1"),
        ("--l2=0.1", "--l2: was 0.0, is 0.1"),
        ("--max_norm=2", "--max_norm: was None, is 2"),
        ("--label_smoothing=0.1", "--label_smoothing: was 0.0, is 0.1"),
        ("--augment=flip", "--augment: was none, is flip"),
        ("--mix=mixup", "--mix: was none, is mixup"),
        ("--average=ema", "--average: was none, is ema"),
        ("--patience=2", "--patience: was None, is 2"),
        ("--mc_samples=3", "--mc_samples: was 2, is 3"),
    ],
)
def test_a_flag_that_differs_from_the_record_is_refused(finished, words, line):
    record = folder.recorded(finished)
    with pytest.raises(LaunchError) as caught:
        resume.check_agreement(EXPERIMENT, resume.flags_of(*typed(words), record), record, LOAD)
    assert str(caught.value).startswith(line)


def test_every_flag_can_be_refused():
    """Those above, and what no run on the digits can have otherwise."""
    marks = test_a_flag_that_differs_from_the_record_is_refused.pytestmark[0].args[1]
    refused = {words[2:].partition("=")[0] for words, _ in marks}
    rest = {"data_dir", "task", "test", "penalty", "min_gain", "monitor"}
    assert refused | rest == {field.name for field in dataclasses.fields(Flags)}


def test_an_older_record_lacks_flags(finished):
    record = folder.recorded(finished)
    del record["flags"]["penalty"]
    assert resume.flags_of(Flags(), (), record).penalty == Flags().penalty
    record["flags"]["new"] = 1
    with pytest.raises(LaunchError, match=r"has flags that dropjax .* does not know: new; resume"):
        resume.flags_of(Flags(), (), record)


OWN_SCHEME = """
from dropjax.schemes import scheme
from own_base import Base

@scheme
class Mine(Base):
    pass
"""
OWN_BASE = """
from dropjax.schemes.bernoulli import Bernoulli

class Base(Bernoulli):
    pass
"""


def test_an_edited_file_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    files = {name: tmp_path / f"{name}.py" for name in ("own_base", "own_scheme")}
    for file, text in zip(files.values(), (OWN_BASE, OWN_SCHEME), strict=True):
        file.write_text(text)
    path, given = tmp_path / "run", dataclasses.replace(QUICK, dropout="own_scheme:Mine(rate=0.5)")
    own, plain = (resolve(EXPERIMENT, of, lambda line: None) for of in (given, QUICK))
    config = folder.describe(own)
    assert config["sources"].keys() == files.keys() and sources(plain.network) == {}
    with folder.locked(path):
        folder.claim(path, config, resume=False, overwrite=False)
    for file in files.values():
        text = file.read_text()
        file.write_text(f"{text}# edited")
        with pytest.raises(LaunchError) as caught:
            resume.check_sources(config, sources(own.network))
        assert str(caught.value).startswith(f"{file} was changed since the run was begun: ")
        if file == files["own_base"]:
            file.write_text(text)
    with pytest.raises(LaunchError, match=r"own_scheme\.py was changed since"):
        start(path, resume=True, typed=())
    rewrite(path / "config.json", lambda config: config.pop("sources"))  # as versions before
    assert start(path, resume=True, typed=()) == 0
    assert "NOTE: the run is of a version that did not record" in capsys.readouterr().out
    assert folder.recorded(path)["sources"] == sources(own.network)


def test_files_that_are_lost_in_training_are_put_back(finished, tmp_path, capsys):
    lost = ("metrics.jsonl", "config.json", "sites.txt", "timing.jsonl")
    path = tmp_path / "run"

    def lose() -> None:
        for name in lost:
            (path / name).unlink()
        shutil.rmtree(path / "checkpoints")

    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, lose, before=STEPS - 1, saving=False)
        assert start(path) == 0
    assert_same_run(path, finished)
    assert {p.name for p in path.iterdir()} >= FILES - {"curves.png"}
    assert folder.recorded(path) == folder.recorded(finished)
    assert checkpoints(path)[-1] == STEPS
    out = capsys.readouterr().out
    for name in lost:
        assert out.count(f"WARNING: {path / name} was changed or removed; it is written again") == 1


def test_a_full_disk_ends_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    path, real = tmp_path / "run", Path.open
    given, resumed = {"given": QUICK}, {"resume": True, "typed": ()}
    for name in ("sites.txt", "metrics.jsonl", "timing.jsonl", "0000000006", "result.json"):

        def opened(
            file: Path, mode: str = "r", *rest: Any, full: str = name, **options: Any
        ) -> Any:
            if mode.strip("bt") != "r" and full in str(file.relative_to(tmp_path)):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(file, mode, *rest, **options)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space") as caught:
            patch.setattr(Path, "open", opened)
            start(path, **given)
        assert str(caught.value.filename) in (str(path / name), str(path / "checkpoints" / name))
        assert (path / "lock").read_text() == "" and not (path / "result.json").exists()
        given = resumed
    assert start(path, **resumed) == 0
    assert result(path)["status"] == "completed"
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_completed_run_is_not_touched_by_a_resume_unless_its_result_is_damaged(
    finished, copied, capsys
):
    assert start(copied, resume=True) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    for path in finished.iterdir():
        if path.is_file():
            assert path.read_bytes() == (copied / path.name).read_bytes()
    text = (copied / "result.json").read_text()
    (copied / "result.json").write_text(text.replace('_accuracy": 0', '_accuracy": 5', 1))
    assert start(copied, resume=True) == 0
    assert f"{copied / 'result.json'} is damaged" in capsys.readouterr().out
    assert_same_run(copied, finished)


def test_a_run_that_diverges_keeps_a_finite_checkpoint(tmp_path, monkeypatch, capsys):
    given = dataclasses.replace(QUICK, learning_rate=1e30)
    disturb(monkeypatch, lambda: None, before=0)
    assert start(tmp_path, given) == run.DIVERGED == 3
    found = result(tmp_path)
    assert (found["status"], found["diverged_at"]) == ("diverged", 1)
    assert all(found[name] is None for name in MEASURES)
    assert "DIVERGED" in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert checkpoints(tmp_path) == [0, 1]
    for path in (tmp_path / "checkpoints").iterdir():
        arrays = safetensors.numpy.load_file(path / "state.safetensors")
        assert all(np.isfinite(array).all() for array in arrays.values())
        assert arrays["diverged_at"] == -1
    assert start(tmp_path, given, resume=True) == 3  # and is no other when resumed
    assert result(tmp_path)["resumed_from_step"] == 1


@pytest.mark.parametrize(
    ("value", "diverged_at", "found"), [(2, -1, False), (np.inf, -1, True), (2, 7, True)]
)
def test_an_update_that_broke_parameters_is_noticed_as_a_loss_is(value, diverged_at, found):
    params = {"params": {"w": jnp.array([1.0, value])}, "learned": {}}
    state: Any = types.SimpleNamespace(params=params, diverged_at=diverged_at)
    assert results.diverged(state) == found


def test_a_run_whose_last_step_broke_it_is_diverged(tmp_path, capsys):
    """Its loss was finite in every step, and so are its parameters."""
    given = {"validation": 144, "batch_size": 1293, "learning_rate": 1e38}
    for again in (False, True):
        assert start(tmp_path, dataclasses.replace(QUICK, **given), resume=again) == run.DIVERGED
        found = result(tmp_path)
        assert (found["status"], found["diverged_at"]) == ("diverged", -1)
        broken = "train, validation, test"
        assert found["error"] == f"predictions for {broken} are not finite after step 0"
        assert all(found[name] is None for name in MEASURES)
        assert f"DIVERGED: {found['error']}" in capsys.readouterr().out
    assert '"validation_loss": null' in (tmp_path / "metrics.jsonl").read_text()
    (row,) = runs.read(tmp_path)
    assert row["status"] == "diverged" and row["test_accuracy"] is None


def test_one_prediction_that_is_not_finite_makes_a_run_diverged(copied, finished, monkeypatch):
    (copied / "result.json").unlink()
    predict, sample = run._Run._predictions, Network.monte_carlo

    def broken(self: Any, state: Any, step: int, x: Any) -> Any:
        found = predict(self, state, step, x)
        return found.at[-1].set(np.nan) if len(x) == 144 else found

    def sampled(*arguments: Any, **options: Any) -> Any:
        return sample(*arguments, **options).at[0, 1].set(np.inf)

    monkeypatch.setattr(run._Run, "_predictions", broken)
    monkeypatch.setattr(Network, "monte_carlo", sampled)
    assert start(copied, resume=True) == run.DIVERGED
    error = "predictions for validation, mc_test are not finite after step 11"
    assert result(copied)["error"] == error
    assert set(result(copied)) == {*result(finished), "diverged_at", "error"}


# Pictures.

TITLE = 'a.npz, bernoulli(rate=0.2,at="input$")|bernoulli(rate=0.5,at="hidden$"), seed 0'
TITLES = [
    TITLE,
    "$\\frac{$ x_1^2 \\alpha { % \\ \n\r\t\0\x1b \udcff \u6f22\u5b57 \u00fc \U0001f600",
    "x" * 5000,
]


def test_a_picture_of_any_title_is_drawn_of_metrics_alone(finished, tmp_path):
    history = JsonLines(finished / "metrics.jsonl").read()
    title = f"digits, {MODEL}, bernoulli(rate=0.5), seed 0"
    DRAW_CURVES(history, title, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == (finished / "curves.png").read_bytes()
    history[0] |= {"validation_loss": None, "train_accuracy": None}
    for number, title in enumerate(TITLES):
        DRAW_CURVES(history, title, tmp_path / f"{number}$\u00fc$.png")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1 + len(TITLES)


def test_no_picture_ends_a_run_and_a_resume_draws_what_is_missing(copied, monkeypatch, capsys):
    for name in ("result.json", "curves.png"):
        (copied / name).unlink()

    def fail(history: Any, title: str, path: Path) -> None:
        assert result(copied)["status"] == "completed"  # it was written before
        raise ValueError("no such font")

    monkeypatch.setattr(report, "draw_curves", fail)
    assert start(copied, resume=True) == 0
    warning = f"WARNING: {copied / 'curves.png'} was not drawn: ValueError: no such font"
    assert warning in capsys.readouterr().out
    monkeypatch.setattr(report, "draw_curves", DRAW_CURVES)
    assert start(copied, resume=True) == 0
    assert (copied / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "WARNING" not in capsys.readouterr().out


def test_noise_is_applied_in_training_and_rate_0_is_none(tmp_path):
    lines, hashes = {}, {}
    for name, given in {
        "none": {},
        "rate 0": {"dropout": "bernoulli", "rate": 0.0},
        "strength 0": {"dropout": "bernoulli", "rate": 0.5, "strength": "0"},
        "rate 0.5": {"dropout": "bernoulli", "rate": 0.5},
    }.items():
        assert start(tmp_path / name, dataclasses.replace(QUICK, **given)) == 0
        lines[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text())
        found = result(tmp_path / name)
        hashes[name] = found["param_hash"]
        # Without validation and draws there are no such measures, which null says.
        for measure in MEASURES:
            assert (found[measure] is None) == measure.startswith(("validation", "mc_test"))
        assert not any(key.startswith("validation") for key in lines[name])
    assert hashes["none"] == hashes["rate 0"] == hashes["strength 0"] != hashes["rate 0.5"]
    assert lines["none"] == lines["rate 0"] == lines["strength 0"]
    assert lines["none"]["train_loss"] < lines["rate 0.5"]["train_loss"]


def test_resume_and_overwrite_need_to_make_sense(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LaunchError, match="contradict"):
        start(tmp_path / "run", resume=True, overwrite=True)
    for flag in ("resume", "overwrite"):
        with pytest.raises(LaunchError, match=f"--{flag} needs --workdir"):
            start(None, **{flag: True})
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_replaced_only_by_overwrite(tmp_path):
    assert start(tmp_path, QUICK) == 0
    first = result(tmp_path)["param_hash"]
    with pytest.raises(LaunchError, match="already holds a run"):
        start(tmp_path, QUICK)
    (tmp_path / "mine").write_text("kept")
    assert start(tmp_path, dataclasses.replace(QUICK, seed=1), overwrite=True) == 0
    assert result(tmp_path)["param_hash"] != first and (tmp_path / "mine").exists()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "changes", [{"optimizer": "sgd(momentum='a')"}, {"dropout": "nothing"}, {"batch_size": 0}]
)
def test_an_old_run_survives_flags_that_are_wrong(finished, copied, changes):
    with pytest.raises(LaunchError):
        start(copied, dataclasses.replace(SMALL, **changes), overwrite=True)
    assert_same_run(copied, finished)


def test_two_runs_cannot_share_a_folder(tmp_path):
    with folder.locked(tmp_path), pytest.raises(LaunchError, match=f"pid {os.getpid()}"):
        start(tmp_path, QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def parsed(command: str) -> Flags:
    """The flags that a command in config.json gives."""
    words = shlex.split(command)
    settings = list(itertools.takewhile(lambda word: word != "python", words))
    assert all(re.fullmatch(r"(JAX_|XLA_|NPROC)\w*=.*", setting) for setting in settings)
    python, dash_m, module, *arguments = words[len(settings) :]
    assert (python, dash_m, module) == ("python", "-m", "experiments.mnist")
    return typed(*arguments)[0]


def test_the_command_in_config_json_repeats_the_run(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "set_up", set_up)  # anew, as a process does
    config, _ = files.read_config(finished)
    assert start(tmp_path, parsed(config["command"])) == 0
    assert files.read_config(tmp_path) == (config, True)
    assert_same_run(tmp_path, finished)


RAMP = "linear_schedule(init_value=0.0,end_value=1.0,transition_steps=7)"


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": "bernoulli", "rate": 1 / 3, "strength": RAMP, "seed": 2**31 - 1},
        {"dropout": 'bernoulli|bernoulli(rate=0.2,at="^in|\'x")', "learning_rate": 1e-5 / 3},
        {"dropout": "none", "mc_samples": None, "validation": 0, "dataset": "auto"},
        {"dataset": "auto", "data_dir": "."},
        {"optimizer": "sgd(momentum=0.9,nesterov=True)", "strength": "0.25", "mc_samples": 3},
    ],
)
def test_any_command_gives_the_same_configuration(changes):
    first = resolve(EXPERIMENT, dataclasses.replace(MLP, **changes), lambda line: None)
    again = resolve(EXPERIMENT, parsed(folder.describe(first)["command"]), lambda line: None)
    assert dataclasses.asdict(again.config) == dataclasses.asdict(first.config)
