"""What a real Ray cluster makes. Skipped where Ray is not installed."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.ablation import ray_engine
from experiments.ablation.grid import Grid, Reader, plan_cells
from experiments.ablation.runner import local, make_plan, run_plan
from experiments.ablation.store import Store
from experiments.mnist import EXPERIMENT

ray = pytest.importorskip("ray")

FIXED = {"dataset": "digits", "model": "mlp(widths=(8,))", "epochs": 2}
FIXED |= {"optimizer": "sgd", "mc_samples": 0}
GRID = Grid(EXPERIMENT, ("bernoulli",), {"rate": (0.2, 0.5)}, (0, 1, 2), FIXED)
LANES = 2


def dying_once(folder: Path) -> Callable:
    """The engine's task, in which the first worker that has trained a chunk kills itself."""

    def _train(*arguments):
        from experiments.ablation import ray_engine, trainer

        original = trainer.Trainer.run

        def run(self, cells, advance):
            def after_chunk(steps):
                if not any(folder.iterdir()):
                    (folder / str(os.getpid())).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                advance(steps)

            return original(self, cells, after_chunk)

        trainer.Trainer.run = run
        try:
            return ray_engine._train(*arguments)
        finally:
            trainer.Trainer.run = original

    return _train


@pytest.fixture(scope="module")
def runs(tmp_path_factory, compile_once) -> dict[str, Path]:
    """The folders of one ablation by both engines, and "killed", which names the dead worker.

    Of Ray's, the last group was planned with other data than workers find.
    """
    base = tmp_path_factory.mktemp("ray")
    paths = {name: base / name for name in ("local", "ray", "killed")}
    for path in paths.values():
        path.mkdir()
    plan = make_plan(plan_cells(GRID, Reader(EXPERIMENT, lambda line: None)), lanes=LANES)
    assert [len(group.cells) for group in plan.groups] == [2, 2, 2]
    run_plan(plan, begun(paths["local"]), engine=local)
    last = plan.groups[-1]
    other = [
        dataclasses.replace(
            one,
            cell=dataclasses.replace(one.cell, config=one.cell.config | {"data_sha256": "other"}),
        )
        for one in last.cells
    ]
    groups = [*plan.groups[:-1], dataclasses.replace(last, cells=tuple(other))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "_train", dying_once(paths["killed"]))
        patch.setenv("RAY_ADDRESS", "local")
        # What was compiled for the local engine is not compiled again.
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token to the home folder
        plan = dataclasses.replace(plan, groups=groups)
        with ray_engine.connected() as engine:
            run_plan(plan, begun(paths["ray"]), engine=engine)
    assert not ray.is_initialized()
    return paths


def begun(path: Path) -> Store:
    store = Store(path)
    store.begin({"experiment": "mnist", "exact": False})
    return store


def outcomes(path: Path):
    cells = [one.cell for one in plan_cells(GRID, Reader(EXPERIMENT, lambda line: None))]
    return [Store(path).outcome(cell) for cell in cells]


def test_results_are_those_of_the_local_engine_to_the_bit(runs):
    expected, found = outcomes(runs["local"]), outcomes(runs["ray"])
    assert {outcome.status for outcome in expected} == {"completed"}
    assert len({outcome.result["param_hash"] for outcome in expected}) == len(expected)
    for ours, theirs in zip(expected[:-2], found[:-2], strict=True):
        assert theirs.result == ours.result
        assert theirs.history == ours.history and len(theirs.history) == FIXED["epochs"]


def test_a_group_whose_worker_was_killed_is_trained_again(runs):
    (killed,) = runs["killed"].iterdir()
    assert int(killed.name) != os.getpid() and not Path("/proc", killed.name).exists()
    assert [outcome.status for outcome in outcomes(runs["ray"])[:-2]] == ["completed"] * 4


def test_cells_whose_task_raises_have_failed_and_say_why(runs):
    for outcome in outcomes(runs["ray"])[-2:]:
        assert outcome.status == "failed"
        assert outcome.error.startswith("digits: this worker's data has sha256 ")
