import os
import pickle
import sys
from types import SimpleNamespace

import jax
import pytest

from experiments.ablation import ray_engine, runner
from experiments.ablation.ablate import Options, ablate
from experiments.ablation.grid import Grid, Reader, plan_cells
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError

GRID = Grid(EXPERIMENT, ("none",), {}, (0,), {"dataset": "digits", "model": "mlp(widths=(8,))"})


def cluster(*machines: dict[str, float]) -> SimpleNamespace:
    """What the engine asks of Ray about machines."""
    return SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": of} for of in machines])


def test_without_ray_it_does_not_start_and_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LaunchError, match=r"pip install '\.\[ray\]'"):
        ablate(GRID, tmp_path / "ablation", Options("none", engine="ray"))
    assert not (tmp_path / "ablation").exists()


def test_exact_runs_are_refused(tmp_path):
    with pytest.raises(LaunchError, match=r"--exact.*--engine=local.*--shard"):
        ablate(GRID, tmp_path / "ablation", Options("none", engine="ray", exact=True))


def test_a_task_takes_a_gpu_where_there_are_some(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    ray = cluster({"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0})
    assert ray_engine._needs(ray) == {"num_gpus": 1, "num_cpus": 1}
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("NPROC", "3")
    assert ray_engine._needs(ray) == {"num_cpus": 3}


@pytest.mark.parametrize(("threads", "cpus"), [("1", 1), ("6", 6), ("16", 8)])
def test_a_task_takes_the_cpus_of_its_threads_at_most_those_of_a_machine(
    monkeypatch, threads, cpus
):
    monkeypatch.setenv("NPROC", threads)
    assert ray_engine._needs(cluster({"CPU": 8.0}, {"CPU": 2.0})) == {"num_cpus": cpus}
    assert ray_engine._variables()["NPROC"] == threads
    # A cluster without machines is asked for one that has them all.
    assert ray_engine._needs(cluster({"memory": 1e9})) == {"num_cpus": int(threads)}


def test_workers_are_given_what_decides_the_results(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("TFDS_DATA_DIR", "/data")
    monkeypatch.setenv("SECRET", "not theirs")
    monkeypatch.delenv("NPROC")
    given = ray_engine._variables()
    assert given["JAX_ENABLE_X64"] == "1" and given["TFDS_DATA_DIR"] == "/data"
    assert given["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"
    assert given["NPROC"] == str(len(os.sched_getaffinity(0)))
    assert "SECRET" not in given


def test_the_driver_takes_no_more_of_a_gpu_than_it_needs(monkeypatch):
    name, seen = "XLA_PYTHON_CLIENT_PREALLOCATE", []
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax, "devices", lambda: seen.append(os.environ[name]))
    ray_engine.leave_memory()
    assert seen == ["false"] and name not in os.environ
    monkeypatch.setenv(name, "true")
    ray_engine.leave_memory()
    assert seen == ["false"] and os.environ[name] == "true"


class EchoTrainer:
    """Says with which batch size its program was made, and what it was to train."""

    def __init__(self, cells):
        self.batch_size, self.steps = cells[0].config.batch_size, 1

    def run(self, cells, advance):
        advance(1)
        return [{"batch_size": self.batch_size, "config": cell.config} for cell in cells]


@pytest.fixture
def tasks(monkeypatch):
    """The arguments of three tasks; what runs them has not run any, and trains nothing."""
    monkeypatch.setattr(runner, "Trainer", EchoTrainer)
    ray_engine._kept.cache_clear()
    fixed = GRID.fixed | {"train_examples": 500, "mc_samples": 3, "optimizer": "sgd"}
    swept = {"batch_size": (50, 100, 25), "learning_rate": (0.1, 0.2), "rate": (0.3,)}
    planned = plan_cells(
        Grid(EXPERIMENT, ("bernoulli",), swept, (0, 1), fixed),
        Reader(EXPERIMENT, lambda line: None),
    )
    yield [runner.Group(tuple(planned[i : i + 4]), 0, 6) for i in (0, 4, 8)]
    ray_engine._kept.cache_clear()


def test_a_worker_resolves_what_the_driver_planned_under_its_own_program(tasks):
    for work in tasks:
        made, environment = ray_engine._train(*ray_engine._arguments(work))
        assert environment["backend"] == "cpu"
        # What fills up the 6 lanes of the program is dropped.
        assert [of["config"] for of in made] == [one.resolved.config for one in work.cells]
        assert {of["batch_size"] for of in made} == {work.cells[0].resolved.config.batch_size}


def test_a_worker_refuses_data_that_the_driver_does_not_have(tasks):
    experiment, configs, hashes, lanes = ray_engine._arguments(tasks[0])
    with pytest.raises(LaunchError, match=r"digits: this worker's data .* the driver's other"):
        ray_engine._train(experiment, configs, [*hashes[:-1], "other"], lanes)


def test_what_a_task_is_given_holds_no_data(tasks):
    assert len(pickle.dumps(ray_engine._arguments(tasks[0]))) < 4000
