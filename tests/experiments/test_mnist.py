import json
import os

import jax

from dropjax.train.checkpoint import CheckpointError
from experiments import run, setup
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT


def test_a_scheme_that_does_not_fit_the_model_exits_2(command, tmp_path, capsys):
    folder = f"--workdir={tmp_path / 'run'}"
    assert command("--dropout=zoneout", "--model=mlp(widths=(8,))", "--dataset=digits", folder) == 2
    error = capsys.readouterr().err
    assert "STATE" in error and "HIDDEN" in error and not (tmp_path / "run").exists()


def test_help_lists_flags_and_exit_statuses(python):
    done = python("-m", "experiments.mnist", "--help")
    text = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in text
    for words in ("--dropout", "--workdir", "--[no]resume", "Exit status: 0 completed", "143"):
        assert words in text


def test_a_run_from_the_command_line_learns_something(python, tmp_path):
    path = tmp_path / "run"
    done = python(
        *("-m", "experiments.mnist", "--dropout=bernoulli", "--rate=0.2", "--dataset=digits"),
        *("--model=mlp(widths=(32,))", "--epochs=8", "--learning_rate=0.01", "--mc_samples=2"),
        "--workdir=~/run",  # which no shell expands
        HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for words in ("bernoulli(rate=0.2)", "epoch 8/8", "test, 2 draws", str(path)):
        assert words in done.stdout
    result = json.loads((path / "result.json").read_text())
    assert result["status"] == "completed" and result["test_accuracy"] > 0.8
    assert result["mc_test_accuracy"] > 0.8 and f"{result['test_nll']:.4f}" in done.stdout


def test_a_run_in_x64_mode(compile_once, no_picture, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    given = Flags(epochs=1, model='rnn(cell="elman",width=4)', mc_samples=1, validation=0)
    # optax's Adam mixes dtypes.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        assert run.run(EXPERIMENT, given, tmp_path / "run", resume=False, overwrite=False) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["prng"]["x64"] and "JAX_ENABLE_X64=1 " in config["command"]


def test_without_a_home_nothing_is_made_where_one_stands(monkeypatch, tmp_path):
    """`~` of a user that has no home stays `~`: no folder of that name may be made."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "jax_setting", lambda name: None)
    setup.use_compilation_cache()
    assert os.listdir(".") == []


def test_without_a_good_checkpoint_it_is_said_what_helps(command, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise CheckpointError("none of the 2 checkpoints in DIR is good")

    monkeypatch.setattr(run, "run", fail)
    assert command() == 2
    assert capsys.readouterr().err == (
        "mnist: none of the 2 checkpoints in DIR is good; put back a copy of one, or begin the run "
        "anew (--overwrite, without --resume)\n"
    )
