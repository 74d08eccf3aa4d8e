"""The arithmetic of the benchmark, and that its own arms run; its peers are not installed here."""

import dataclasses
import sys

import jax
import pytest

from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import set_up
from scripts import benchmark_training as benchmark
from scripts.training_peers import Work


def record(name, seconds, accuracies):
    pairs = zip(seconds, accuracies, strict=True)
    return benchmark.Record(name, [benchmark.Epoch(s, 0.5, a) for s, a in pairs])


def test_the_time_to_a_target_counts_the_first_epoch_and_seconds_per_epoch_do_not():
    ours = record("dropjax", [9.0, 2.0, 3.0], [0.5, 0.98, 0.97])
    peer = record("PyTorch 2", [1.0, 4.0], [0.5, 0.6])
    assert ours.seconds == [2.0, 3.0]
    assert ours.time_to(0.98) == "11.0 s (2)" and peer.time_to(0.98) == "not in 2 epochs"
    assert benchmark.ratios(ours, peer) == [0.5]
    assert "| `n` | 2.50 (2.00 to 3.00) | - | 0.50 (0.50 to 0.50) | - | 11.0 s (2) |" in (
        benchmark.summary({"n": [ours, peer]}, 0.98)
    )


def test_arms_go_on_until_they_reach_the_target(monkeypatch):
    monkeypatch.setattr(benchmark, "_PAUSE", 0)

    def arm(name, reaches):
        return benchmark.Arm(name, 1, lambda n: benchmark.Epoch(1.0, 1.0, float(n >= reaches)))

    arms = [arm("dropjax", 0), arm("slow", 3), arm("never", 9)]
    found = benchmark.measure(arms, epochs=1, target=1.0, most=6)
    assert [len(r.epochs) for r in found] == [2, 4, 6]
    assert [len(r.epochs) for r in benchmark.measure(arms, epochs=1)] == [2, 2, 2]


def test_nets_of_other_sizes_are_refused():
    arms = [
        benchmark.Arm("dropjax", 5, NotImplemented),
        benchmark.Arm("Keras 3", 6, NotImplemented),
    ]
    with pytest.raises(ValueError, match="Keras 3 has 6 parameters, dropjax 5"):
        benchmark.check_parameters("mlp_256", arms)


def test_dropjax_s_arms_run(tmp_path):
    benchmark.write_random(tmp_path / "random.npz", 256, seed=0)
    flags = Flags(dataset=str(tmp_path / "random.npz"), validation=0, batch_size=128)
    net = benchmark.NETS["mlp_1024_1024"]
    flags = dataclasses.replace(flags, model=net.model, dropout=net.dropout)
    setup = set_up(EXPERIMENT, flags, lambda line: None)
    for make in (benchmark.training_loop, benchmark.key_per_batch):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            found = make("dropjax", setup, test=True).epoch(0)
        assert found.seconds > 0 and 2 < found.loss < 4 and found.accuracy is not None


def test_a_peer_that_is_not_there_is_skipped(tmp_path, capsys):
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c \'print("""{{"skipped": "why"}}""")\'\n'
    )
    python.chmod(0o755)
    with benchmark.peer_arm(str(python), Work("torch", "cnn", "", False, 0, 1)) as arm:
        assert arm is None
    assert capsys.readouterr().out == "torch is skipped: why; see --torch_python\n"
