import copy
import json
import math
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

import dropjax
from dropjax.runs import record
from experiments import folder
from experiments.flags import Flags
from experiments.folder import claim, describe, locked
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError, resolve
from tests.conftest import ROOT
from tests.experiments.conftest import contents

HOLDER = """
import pathlib, sys
from experiments.folder import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
OURS = ("config.json", "sites.txt", "metrics.jsonl", "timing.jsonl", "result.json", "curves.png")


@pytest.fixture
def config() -> dict[str, Any]:
    flags = Flags(dropout="none", dataset="digits", model="mlp(widths=(4,))")
    return describe(resolve(EXPERIMENT, flags, lambda line: None), data_sha256="ab" * 32)


def changed(config: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *path, last = name.split(".")
    part = config
    for key in path:
        part = part[key]
    assert part[last] != value
    part[last] = value
    return config


def test_a_lock_makes_the_folder_and_names_its_holder(tmp_path):
    path = tmp_path / "a" / "b"
    for _ in range(2):
        with locked(path):
            assert (path / "lock").read_text() == f"{socket.gethostname()} pid {os.getpid()}\n"
        assert (path / "lock").read_text() == ""
    # Text that stays when a run fails would be taken for a live run by any other host.
    with pytest.raises(RuntimeError), locked(path):
        raise RuntimeError
    assert (path / "lock").read_text() == ""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        text = (tmp_path / "lock").read_text()
        with pytest.raises(LaunchError) as caught, locked(tmp_path):
            pass
        assert f"{socket.gethostname()} pid {holder.pid}" in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert (tmp_path / "lock").read_text() == text != ""
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / "lock").read_text() == text  # it could not tidy up
    with locked(tmp_path):
        assert f"pid {os.getpid()}\n" in (tmp_path / "lock").read_text()


def test_a_lock_from_another_host_is_refused(tmp_path):
    text = f"{socket.gethostname()}x pid 7\n"
    (tmp_path / "lock").write_text(text)
    with pytest.raises(LaunchError) as caught, locked(tmp_path):
        pass
    assert text.strip() in str(caught.value) and str(tmp_path / "lock") in str(caught.value)
    assert (tmp_path / "lock").read_text() == text
    (tmp_path / "lock").unlink()  # as the message says
    with locked(tmp_path):
        pass


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    ours = ["result.json.tmp-1", "metrics.jsonl.tmp-2", "sites.txt.tmp-3", "curves.png.tmp-4"]
    for name in [*ours, "mine.txt.tmp-1"]:
        (tmp_path / name).write_text("torn")
    with locked(tmp_path):
        assert {p.name for p in tmp_path.iterdir()} == {"lock", "mine.txt.tmp-1"}


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run"
    with pytest.raises(LaunchError, match="cannot be written to: Not a directory"), locked(path):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_folder_gets_its_config(tmp_path, config, overwrite):
    assert claim(tmp_path, config, resume=False, overwrite=overwrite) == []
    assert record.read(tmp_path / "config.json") == (config, True)
    assert list(contents(tmp_path)) == ["config.json"]


def test_a_run_is_not_replaced_without_being_told(tmp_path, config):
    claim(tmp_path, config, resume=False, overwrite=False)
    (tmp_path / "metrics.jsonl").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(LaunchError) as caught:
        claim(tmp_path, config, resume=False, overwrite=False)
    for words in (str(tmp_path), "--resume", "--overwrite"):
        assert words in str(caught.value)
    assert contents(tmp_path) == before


def test_resuming_the_same_changes_nothing_and_its_data_may_lie_elsewhere(tmp_path, config):
    with pytest.raises(LaunchError, match=r"no run in .* to resume"):
        claim(tmp_path, config, resume=True, overwrite=False)
    assert contents(tmp_path) == {}
    claim(tmp_path, config, resume=False, overwrite=False)
    (tmp_path / "metrics.jsonl").write_text("precious")
    before = contents(tmp_path)
    other = changed(config, "flags.data_dir", "/elsewhere") | {"command": "another"}
    for given in (config, other):
        assert claim(tmp_path, given, resume=True, overwrite=False) == []
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("flags.seed", 1, "flags.seed: was 0, is 1"),
        ("flags.dropout", "bernoulli(rate=0.5)", "flags.dropout: was 'none', is 'bernoulli"),
        ("flags.rate", 0.5, "flags.rate: was None, is 0.5"),
        ("data_sha256", "cd" * 32, f"data_sha256: was '{'ab' * 32}', is '{'cd' * 32}'"),
        ("experiment", "other", "experiment: was 'mnist', is 'other'"),
        ("mask_stream", -1, "is -1"),
        ("prng.implementation", "rbg", "prng.implementation: was 'threefry2x32', is 'rbg'"),
        ("prng.x64", True, "prng.x64: was False, is True"),
    ],
)
def test_resuming_another_configuration_is_refused_with_what_differs(
    tmp_path, config, name, value, line
):
    claim(tmp_path, config, resume=False, overwrite=False)
    before = contents(tmp_path)
    other = changed(changed(config, name, value), "environment.python", "2.7")
    with pytest.raises(LaunchError) as caught:
        claim(tmp_path, other, resume=True, overwrite=False)
    first, *differences = str(caught.value).splitlines()
    assert "another configuration" in first and len(differences) == 1
    assert line in differences[0]
    assert contents(tmp_path) == before


def test_every_field_that_differs_is_printed(tmp_path, config):
    claim(tmp_path, config, resume=False, overwrite=False)
    other = changed(changed(config, "flags.seed", 3), "flags.dropout", "zoneout")
    del other["flags"]["rate"]
    other["flags"]["new"] = 1
    with pytest.raises(LaunchError) as caught:
        claim(tmp_path, other, resume=True, overwrite=False)
    lines = [line.strip().partition(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert lines == ["flags.dropout", "flags.new", "flags.seed"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environment.python", "2.7"),
        ("environment.git_commit", "0" * 40),
        ("environment.versions.jax", "0.0"),
        ("environment.settings", {"XLA_FLAGS": "--none"}),
    ],
)
def test_another_environment_is_told_and_not_refused(tmp_path, config, name, value):
    claim(tmp_path, config, resume=False, overwrite=False)
    before = contents(tmp_path)
    told = claim(tmp_path, changed(config, name, value), resume=True, overwrite=False)
    assert told and all(line.strip().startswith(name) for line in told)
    if not isinstance(value, dict):
        assert len(told) == 1 and told[0].endswith(f"is {value!r}")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_a_config_that_cannot_be_read_is_refused(tmp_path, config, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(LaunchError, match=r"damaged.*cannot be resumed"):
        claim(tmp_path, config, resume=True, overwrite=False)


def test_a_config_that_was_changed_cannot_be_resumed(tmp_path, config):
    """Though its flags are those that are asked for."""
    claim(tmp_path, config, resume=False, overwrite=False)
    text = (tmp_path / "config.json").read_text()
    seal = record.digest(config)
    for damaged in (text.replace("classification", "regression"), text.replace(seal, "0" * 64)):
        assert damaged != text
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(LaunchError, match=r"config\.json is damaged.*--overwrite"):
            claim(tmp_path, config, resume=True, overwrite=False)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LaunchError, match="it has no sha256"):
        claim(tmp_path, config, resume=True, overwrite=False)
    claim(tmp_path, config, resume=False, overwrite=True)
    assert claim(tmp_path, config, resume=True, overwrite=False) == []


def test_a_run_of_a_version_without_hashes_is_resumed_with_a_note(tmp_path, config):
    old = changed(config, "environment.dropjax", "0.5.2")
    (tmp_path / "config.json").write_text(json.dumps(old))
    (version,) = claim(tmp_path, config, resume=True, overwrite=False)
    assert version == f"  environment.dropjax: was '0.5.2', is {dropjax.__version__!r}"
    assert "config.json has no sha256" in folder.note_of_seal(tmp_path)
    record.write(tmp_path / "config.json", config)
    assert folder.note_of_seal(tmp_path) == ""


def test_numbers_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(tmp_path / "a.json", {"a": [math.inf]})
    assert list(tmp_path.iterdir()) == []


def test_overwriting_removes_our_files_only(tmp_path, config):
    claim(tmp_path, config, resume=False, overwrite=False)
    for name in OURS[1:]:
        (tmp_path / name).write_text("old")
    (tmp_path / "checkpoints" / "0000000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "0000000001" / "state.safetensors").write_text("old")
    theirs = dict.fromkeys(("notes.txt", "metrics.jsonl.bak", "sub/result.json"), b"mine")
    theirs["lock"] = b""
    for name, data in theirs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    other = changed(config, "flags.seed", 1)
    assert claim(tmp_path, other, resume=False, overwrite=True) == []
    left = contents(tmp_path)
    assert record.decode(left.pop("config.json")) == (other, True)
    assert left == theirs
    assert not (tmp_path / "checkpoints").exists()


def test_default_folders_are_new_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder.time, "strftime", lambda form: "20300102-030405")
    paths = []
    for _ in range(3):
        paths.append(folder.default_folder("mnist"))
        paths[-1].mkdir(parents=True)
    stem = "runs/mnist-20300102-030405"
    assert [str(path) for path in paths] == [stem, f"{stem}-2", f"{stem}-3"]


def test_outside_of_git_there_is_no_commit(monkeypatch):
    def missing(*arguments: Any, **options: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(folder.subprocess, "run", missing)
    assert folder.environment()["git_commit"] is None


def test_what_is_named_like_ours_but_is_no_run_is_left_alone(tmp_path, config):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine").write_text("mine")
    with pytest.raises(LaunchError, match="holds no run, but has checkpoints"):
        claim(tmp_path, config, resume=False, overwrite=False)
    assert (tmp_path / "checkpoints" / "mine").read_text() == "mine"
