"""The benchmark's arithmetic, that it counts real programs, and its peer where there is one."""

import re
import sys

import numpy as np
import pytest

from experiments.ablation.grid import Grid, Reader, plan_cells
from experiments.mnist import EXPERIMENT
from scripts import benchmark_ablation as benchmark
from scripts.ablation_peer import Cell, Peer, Work
from scripts.benchmark_ablation import Row, Taken


def planned(*schemes, seeds=(0,)):
    fixed = {"model": "mlp(widths=(256,))", "dataset": "digits"}
    return plan_cells(
        Grid(EXPERIMENT, schemes, {"rate": (0.1, 0.3)}, seeds, fixed),
        Reader(EXPERIMENT, lambda line: None),
    )


def work(tmp_path, **changes):
    benchmark.write_data(tmp_path / "data.npz", planned("bernoulli")[0])
    numbers = {"epochs": 2, "batch_size": 32, "learning_rate": 3e-3, "samples": 3, "threads": 1}
    numbers |= {"hidden": 256, "outputs": 10}
    return Work(str(tmp_path / "data.npz"), **numbers | changes)


def test_a_sample_is_spread_over_the_cells():
    assert benchmark.spread(range(100), 4) == [12, 37, 62, 87]
    assert benchmark.spread(range(100), 1) == [50]
    for everything in (0, 3, 9):
        assert benchmark.spread("abc", everything) == ["a", "b", "c"]
    # The default sample has cells of every scheme.
    cells = ["none"] * 10 + ["bernoulli"] * 30 + ["gaussian"] * 30 + ["dropconnect"] * 30
    assert {*benchmark.spread(cells, 8)} == {*benchmark.SCHEMES}


def test_what_is_extrapolated_says_so():
    taken = [Taken(1.0, 2.0), Taken(4.0, 4.0), Taken(1.0, 3.0)]
    assert benchmark.extrapolated(taken, 10) == Taken(20.0, 30.0)
    assert benchmark.extrapolated(taken, 10, Taken(5.0, 1.0)) == Taken(25.0, 31.0)
    note = "2.00 s a cell (1.00 to 4.00); 3 of 10 cells, extrapolated"
    assert benchmark.range_note(taken, 10) == note
    assert benchmark.range_note(taken, 3).endswith("3 of 3 cells")


def test_targets_are_met_or_not():
    rows = {
        "cold": Row("ablate, empty", Taken(100.0, 70.0)),
        "warm": Row("ablate, filled", Taken(50.0, 40.0)),
        "processes": Row("a process a cell", Taken(400.0, 200.0)),
        "torch": Row("PyTorch 2", Taken(150.0, 120.0)),
    }
    found = [(one.found, one.met) for one in benchmark.targets(rows)]
    assert found == [(100.0, True), (4.0, True), (8.0, True), (1.5, False), (3.0, True)]
    text = benchmark.table(rows)
    assert re.search(r"PyTorch / ablate, empty cache +1\.50  at least 2: NOT MET", text)
    assert text.endswith("filled cache: a process a cell 5.0; PyTorch 2 3.0")
    slow = rows | {"cold": Row("ablate, empty", Taken(121.0, 70.0))}
    del slow["torch"]
    assert [one.met for one in benchmark.targets(slow)] == [False, True, True]


def test_programs_for_training_are_counted_in_the_cache(tmp_path, python):
    program = """if True:
        import jax, jax.numpy as jnp
        from dropjax.train.devices import parallel
        for length in (2, 3):
            for name in ("step", "again"):
                other = jax.jit(lambda x: x * 2)(jnp.ones(length))
                parallel(lambda device, x: x + 1, jax.local_devices()[:1])(jnp.ones(length))
    """
    always = {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = python("-c", program, JAX_COMPILATION_CACHE_DIR=str(tmp_path), **always)
    assert done.returncode == 0, done.stderr
    assert benchmark.training_programs(tmp_path) == 2
    assert len([*tmp_path.glob("*-cache")]) > 2


def test_a_process_is_measured_and_its_failure_told(tmp_path):
    work = (
        "import os, time; time.sleep(0.3); print(os.environ['WORD'] * 3); exit(len(os.listdir()))"
    )
    taken = benchmark.run_process([sys.executable, "-c", work], {"WORD": "ab"}, tmp_path)
    assert taken.seconds >= 0.3 and 0 < taken.cpu < taken.seconds
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match=r"ended with 1:\nababab"):
        benchmark.run_process([sys.executable, "-c", work], {"WORD": "ab"}, tmp_path)


def test_the_peer_has_the_same_data(tmp_path):
    work(tmp_path)
    with np.load(tmp_path / "data.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays}
        x, y = arrays["x_train"], arrays["y_train"]
    assert shapes["x_train"] == (1293, 64) and shapes["y_train"] == (1293,)
    assert shapes["x_validation"] == (144, 64) and shapes["x_test"] == (360, 64)
    dataset = planned("bernoulli")[0].resolved.dataset
    np.testing.assert_array_equal(x * 16, dataset.x_train.reshape(1293, 64))
    np.testing.assert_array_equal(y, dataset.y_train)


def test_a_cell_is_told_to_the_peer():
    cells = [benchmark._peer_cell(cell) for cell in planned("none", "bernoulli", seeds=(4,))]
    assert cells == [Cell("none", 0.0, 4), Cell("bernoulli", 0.1, 4), Cell("bernoulli", 0.3, 4)]


def test_a_peer_that_is_not_there_is_skipped(tmp_path, capsys):
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c \'print("""{{"skipped": "why"}}""")\'\n'
    )
    python.chmod(0o755)
    with benchmark.peer(str(python), work(tmp_path)) as loop:
        assert loop is None
    assert capsys.readouterr().out == "PyTorch is skipped: why; see --torch_python\n"


@pytest.mark.parametrize("scheme", benchmark.SCHEMES)
def test_the_peer_learns_and_measures(tmp_path, scheme):
    torch = pytest.importorskip("torch")
    peer = Peer(torch, work(tmp_path, epochs=4))
    cell = Cell(scheme, 0.0 if scheme == "none" else 0.3, 1)
    result = peer.run(cell)
    assert result["test_accuracy"] > 0.85 and result["seconds"] > 0
    assert ("mc_test_accuracy" in result) == (scheme != "none")
    net = peer.net(cell)
    assert torch.equal(peer.logits(net, "test"), peer.logits(net, "test"))


@pytest.mark.parametrize("scheme", benchmark.SCHEMES[1:])
@pytest.mark.parametrize("rate", benchmark.RATES)
def test_the_peer_s_noise_has_mean_1_and_the_variance_of_the_rate(tmp_path, scheme, rate):
    torch = pytest.importorskip("torch")
    net = Peer(torch, work(tmp_path)).net(Cell(scheme, rate, 0))
    torch.manual_seed(0)
    if scheme == "dropconnect":
        torch.nn.init.ones_(net[0].weight)
        factors = torch.stack([net[0](torch.eye(64)) for _ in range(10)])
    else:
        factors = net[2](torch.ones(400, 400))
    assert factors.mean().item() == pytest.approx(1, abs=0.02)
    assert factors.var().item() == pytest.approx(rate / (1 - rate), rel=0.03)
