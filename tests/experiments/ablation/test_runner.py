"""Cells in lanes, against the runs that their commands make."""

import dataclasses
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from dropjax import runs
from dropjax.runs import record
from dropjax.train.checkpoint import CheckpointError, tree_hash
from dropjax.train.log import LogError
from experiments.ablation import runner
from experiments.ablation.cells import Outcome
from experiments.ablation.grid import Grid, Planned, Reader, plan_cells
from experiments.ablation.runner import Plan, local, make_plan, outcomes, run_plan
from experiments.ablation.store import NOT_RUN, Store
from experiments.ablation.trainer import Trainer, alike
from experiments.folder import environment
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError
from tests.experiments.conftest import LEARNS, PART, strict_json, table

# The flags of `small_run`.
SMALL = {"dataset": "digits", "model": "mlp(widths=(32,))", "epochs": 2, "batch_size": 256}
SMALL |= {"optimizer": "sgd(momentum=0.9)", "learning_rate": 0.2, "mc_samples": 3}
TINY = SMALL | {"model": "mlp(widths=(4,))", "mc_samples": 0}
FAILS = "tests.throwaway:FailsInTraining(rate=0.0)"


pytestmark = pytest.mark.usefixtures("no_picture")


def plan(*schemes: str, swept=None, seeds=1, **fixed) -> list[Planned]:
    swept = swept or {}
    given = {k: v for k, v in (TINY | fixed).items() if k not in swept}
    return plan_cells(
        Grid(EXPERIMENT, schemes, swept, tuple(range(seeds)), given),
        Reader(EXPERIMENT, lambda line: None),
    )


def go(path: Path, planned: list[Planned], *, exact=False, **options) -> Store:
    path.mkdir(exist_ok=True)
    store = Store(path)
    store.begin({"experiment": "mnist", "exact": exact})
    run_plan(make_plan(planned, **{"lanes": None} | options), store, exact=exact, engine=local)
    return store


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    result, _ = record.read(path / "result.json")
    result.pop("files", None)  # their hashes
    return result, [strict_json(line) for line in lines]


def assert_same_numbers(cell: Path, single: Path) -> None:
    found, history = read(cell)
    wanted, wanted_history = read(single)
    own = set(wanted) - set(found)
    assert own == {
        *("dataset", "model", "dropout", "strength", "penalty", "seed", "mc_samples"),
        *("resumed_from_step", "seconds", "examples_per_second"),
    }
    assert set(found) <= set(wanted) and found["status"] == wanted["status"] == "completed"
    for name in set(found) - {"param_hash", "learned", "status", "task"}:
        close = wanted[name] and pytest.approx(wanted[name], rel=1e-4, abs=1e-6)
        assert found[name] == close, name
    for site, numbers in wanted["learned"].items():
        assert found["learned"][site] == pytest.approx(numbers, rel=1e-4)
    assert set(found["learned"]) == set(wanted["learned"])
    assert len(history) == len(wanted_history) > 0
    for ours, theirs in zip(history, wanted_history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def stamps(store: Store, planned: list[Planned]) -> list[int]:
    return [(store.folder(one.cell) / "result.json").stat().st_mtime_ns for one in planned]


@pytest.fixture
def nothing_is_run(monkeypatch) -> None:
    def refuse(*arguments, **options):
        raise AssertionError("a cell was run")

    monkeypatch.setattr(runner, "train_group", refuse)
    monkeypatch.setattr(runner, "_run_alone", refuse)


def test_cells_of_other_numbers_and_subsets_of_their_seeds_are_the_single_runs(part_run, tmp_path):
    swept = {"learning_rate": (0.2, 0.1), "strength": ("0.5", "1"), "penalty": ("1", "30")}
    planned = plan(LEARNS, swept=swept, seeds=2, **SMALL | {"train_examples": 300})
    (group,) = make_plan(planned, lanes=None).groups
    assert len(group.cells) == 16, "they differ in numbers alone"
    store = go(tmp_path, planned)
    (one,) = [one for one in planned if one.cell.config.items() >= (PART | {"seed": 1}).items()]
    assert_same_numbers(store.folder(one.cell), part_run)
    (config, _), (theirs, _) = (
        record.read(path / "config.json") for path in (store.folder(one.cell), part_run)
    )
    assert config == theirs | {"environment": config["environment"]}
    timing = json.loads((store.folder(one.cell) / "timing.json").read_text())
    assert timing["lanes"] == 16 and timing["seconds"] > 0
    results = [read(store.folder(one.cell))[0] for one in planned]
    assert len({result["param_hash"] for result in results}) == 16
    assert len({json.dumps(result["learned"]) for result in results}) == 16


def test_regularised_cells_stop_where_the_single_runs_stop(small_run, tmp_path):
    given = {"epochs": 12, "patience": 1, "monitor": "accuracy", "average": "ema(decay=0.8)"}
    given |= {"label_smoothing": 0.1, "max_norm": 2.0, "clip": 0.5}
    given |= {"learning_rate": "cosine(peak=0.5,warmup=0.2)", "strength": "early(steps=12)"}
    swept = {"l2": (1e-3, 1e-2)}
    planned = plan("alpha(rate=0.4)", swept=swept, seeds=3, **SMALL | given)
    assert len(make_plan(planned, lanes=None).groups) == 1, "they differ in numbers alone"
    store = go(tmp_path, planned)
    stops = [read(store.folder(one.cell))[0]["stopped_at"] for one in planned]
    assert len({*stops}) > 1
    which = stops.index(min(stops, key=lambda step: step or 99))
    cell = planned[which].cell
    single = small_run(
        dropout="alpha(rate=0.4)", **given | {"l2": cell.setting["l2"], "seed": cell.seed}
    )
    assert_same_numbers(store.folder(cell), single)
    run = runs.load(single)
    result = run.result
    assert result["best_step"] < result["stopped_at"] == run.step
    assert (
        tree_hash({name: run.values[name] for name in ("params", "learned")})
        == result["param_hash"]
    )


@pytest.mark.parametrize("part", [None, 40])
def test_a_cell_of_a_regression_is_the_single_run(small_run, npz, tmp_path, part):
    given = {"epochs": 5, "batch_size": None, "learning_rate": 0.03, "train_examples": part}
    given["dataset"] = npz(**table("regression"))
    store = go(tmp_path, planned := plan("none", **SMALL | given | {"mc_samples": 0}))
    single = small_run(dropout="none", **given | {"mc_samples": 0})
    assert_same_numbers(store.folder(planned[0].cell), single)


# What a cell has made, as if it had been trained.
MADE: dict[str, Any] = {
    "result": {"status": "completed"},
    "history": [],
    "lanes": 2,
    "seconds": 1.0,
}


def kept(path: Path, planned: list[Planned]) -> Store:
    """The folder of an ablation as if its cells had been trained."""
    store = Store(path)
    store.begin({"experiment": "mnist", "exact": False})
    made = [
        MADE
        | {
            "result": MADE["result"] | {"test_accuracy": 0.1 * (1 + one.cell.seed)},
            "history": [{"step": 1}],
        }
        for one in planned
    ]
    runner.keep(store, planned, made, environment())
    return store


def test_a_cell_of_lanes_has_results_and_no_parameters_and_says_what_makes_them(tmp_path):
    store = kept(tmp_path, planned := plan("none"))
    found = outcomes(planned, store)[0]
    with pytest.raises(runs.RunError) as caught:
        runs.load(store.folder(planned[0].cell))
    message = str(caught.value)
    assert "in lanes keeps results, not parameters" in message and "stopped" not in message
    assert found.cell.command in message


def test_what_differs_in_more_than_numbers_is_no_one_program():
    swept = {"learning_rate": (0.1, 0.2), "optimizer": ("sgd", "adam"), "strength": ("1", "0.5")}
    planned = plan("bernoulli", "gaussian", swept=swept, seeds=2)
    programs = {alike(one.resolved) for one in planned}
    assert len(planned) == 32 and len(programs) == 4
    schedule = "linear_schedule(init_value=0.0,end_value=1.0,transition_steps=9)"
    planned = plan("bernoulli", swept={"strength": ("1", "0.5", schedule)})
    assert len({alike(one.resolved) for one in planned}) == 2


def test_shards_are_disjoint_and_together_the_whole():
    planned = plan("none", "bernoulli", swept={"rate": (0.1, 0.2)}, seeds=3)

    def ids(shard: tuple[int, int]) -> list[str]:
        made = make_plan(planned, lanes=2, shard=shard)
        assert all(len(group.cells) <= 2 for group in made.groups)
        assert made.steps == 12 * sum(len(group.cells) for group in made.groups)
        return [one.cell.id for group in made.groups for one in group.cells]

    whole = ids((0, 1))
    assert sorted(whole) == sorted(one.cell.id for one in planned)
    parts = [ids((i, 4)) for i in range(4)]
    assert sorted(id for part in parts for id in part) == sorted(whole)
    assert sorted(map(len, parts)) == [2, 2, 2, 3]
    assert make_plan(planned[:1], lanes=None, shard=(1, 2)).groups == []


def test_a_cell_that_fails_is_listed_and_retried_and_the_others_are_not(tmp_path, monkeypatch):
    planned = plan("none", FAILS, seeds=2)
    store = go(tmp_path, planned)
    found = outcomes(planned, store)
    assert [outcome.status for outcome in found] == ["completed"] * 2 + ["failed"] * 2
    assert found[2].error == "RuntimeError: no penalty" and not found[2].history
    before = stamps(store, planned)
    go(tmp_path, planned)
    again = outcomes(planned, store)
    assert [outcome.error for outcome in again] == ["", "", *[found[2].error] * 2]
    monkeypatch.setattr(Trainer, "run", lambda self, cells, advance: [MADE] * len(cells))
    go(tmp_path, planned)
    assert [outcome.status for outcome in outcomes(planned, store)] == ["completed"] * 4
    after = stamps(store, planned)
    assert after[:2] == before[:2] and after[2] > before[2] and after[3] > before[3]


OF_MEMORY = RuntimeError("RESOURCE_EXHAUSTED: no 8 GiB\nmore"), MemoryError("Out of memory")


@pytest.mark.parametrize(
    ("lanes", "error", "hint"),
    [
        (4, OF_MEMORY[0], " (there were 4 at a time; try --lanes=2)"),
        (3, OF_MEMORY[1], " (there were 3 at a time; try --lanes=1)"),
        (1, OF_MEMORY[1], ""),
        (4, RuntimeError("no penalty"), ""),
    ],
)
def test_who_runs_out_of_memory_hears_of_lanes(lanes, error, hint):
    made = runner.failed(error, 2, lanes)
    line = str(error).partition("\n")[0]
    assert [of["result"]["error"] for of in made] == [f"{type(error).__name__}: {line}{hint}"] * 2


@pytest.mark.parametrize(
    ("error", "said"),
    [(LaunchError("no room"), "no room"), (RuntimeError("no\nroom"), "RuntimeError: no")],
)
def test_exact_cells_are_the_single_runs_to_the_bit_and_one_that_fails_is_retried(
    part_run, tmp_path, monkeypatch, error, said
):
    planned = plan(LEARNS, swept={"penalty": ("30",)}, seeds=2, **SMALL | PART)
    real = runner.single.run

    def refuse(experiment, flags, path, **options):
        if flags.seed == 0:
            raise error
        return real(experiment, flags, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runner.single, "run", refuse)
        for _ in range(2):
            store = go(tmp_path, planned, exact=True)
    bad, good = outcomes(planned, store)
    assert (good.status, bad.status, bad.error) == ("completed", "failed", said)
    before = stamps(store, planned)
    go(tmp_path, planned, exact=True)
    assert [outcome.status for outcome in outcomes(planned, store)] == ["completed"] * 2
    after = stamps(store, planned)
    assert after[0] > before[0] and after[1] == before[1]
    found, history = read(store.folder(planned[1].cell))
    wanted, wanted_history = read(part_run)
    assert found["param_hash"] == wanted["param_hash"] and history == wanted_history
    timed = dict.fromkeys(("seconds", "examples_per_second"))
    assert found | timed == wanted | timed
    assert "epoch 2/2" in (store.folder(planned[1].cell) / "log.txt").read_text()


def test_a_scheme_that_meets_no_site_is_refused_before_anything_is_run():
    with pytest.raises(LaunchError, match=r"zoneout.* acts on STATE sites; mlp"):
        make_plan(plan("none", "zoneout"), lanes=None)
    with pytest.raises(LaunchError, match=r"WrongShape.*cannot be run"):
        make_plan(plan("tests.throwaway:WrongShape"), lanes=None)


def test_a_cell_that_diverges_is_listed_and_not_retried(tmp_path, request):
    swept = {"learning_rate": (0.1, 1e30)}
    planned = plan("none", swept=swept)
    store = go(tmp_path, planned)
    good, bad = outcomes(planned, store)
    assert (good.status, bad.status) == ("completed", "diverged")
    assert bad.error.startswith("the loss is not finite at step ")
    assert bad.result["test_accuracy"] is None and good.result["test_accuracy"] > 0
    request.getfixturevalue("nothing_is_run")
    go(tmp_path, planned)


def test_weights_that_the_last_step_made_infinite_are_no_result(tmp_path):
    """No loss was seen that is not finite, and nothing that is not JSON is written."""
    given = {"epochs": 1, "batch_size": 1293, "optimizer": "rmsprop(decay=0.99)"}
    planned = plan("none", swept={"learning_rate": (0.1, 3e38)}, **given)
    store = go(tmp_path, planned)
    found, history = read(store.folder(planned[1].cell))
    assert (found["status"], found["diverged_at"], history) == ("diverged", -1, [])
    assert len(read(store.folder(planned[0].cell))[1]) == 1


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json"])
def test_a_damaged_cell_runs_again_and_says_so(tmp_path, capsys, name):
    planned = plan("none", seeds=2)
    store = kept(tmp_path, planned)
    whole = [read(store.folder(one.cell)) for one in planned]
    path = store.folder(planned[1].cell) / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    trained = []

    def train(works, advance):
        for work in works:
            trained.extend(work.cells)
            result, history = whole[1]
            yield work.cells, [MADE | {"result": result, "history": history}], environment()

    groups = [runner.Group(tuple(planned), 0, 2)]
    run_plan(runner.Plan(planned, groups, 2, [2], []), store, engine=train)
    assert trained == [planned[1]]
    said = capsys.readouterr().out
    assert f"cell {planned[1].cell.id} runs again: " in said and f"{name} " in said
    assert [read(store.folder(one.cell)) for one in planned] == whole


def test_damage_is_said_of_a_few_cells_and_counted_of_many(capsys):
    (one,) = plan("none")
    missing = Outcome(one.cell, "missing", {}, [], "it is damaged")
    runner._say_damaged([missing] * 7 + [dataclasses.replace(missing, error=NOT_RUN)])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6 and said[-1].startswith("2 more cells run again")


GOES_ON, ANEW = (True, False, False), (False, True, False)


@pytest.mark.parametrize(
    ("name", "error", "calls"),
    [
        ("result.json", None, [ANEW]),
        ("config.json", None, [ANEW]),
        ("metrics.jsonl", None, [ANEW]),
        ("", None, [GOES_ON]),
        ("", CheckpointError("no good one"), [GOES_ON, ANEW]),
        ("", LogError("was changed"), [GOES_ON, ANEW]),
        ("", LaunchError("other numbers now"), [GOES_ON, ANEW]),
    ],
)
def test_an_exact_cell_that_was_cut_off_goes_on_and_starts_anew_where_it_cannot(
    tmp_path, monkeypatch, name, error, calls
):
    """Each call has whether it resumes, whether it overwrites, and whether a result is there."""
    planned = plan("none")
    seen, folder = [], tmp_path / "cells" / planned[0].cell.id
    folder.mkdir(parents=True)
    config = {"flags": {}, "network": {}, "mask_stream": 2}
    record.write(folder / "config.json", config)
    (folder / "metrics.jsonl").write_text("")
    if name:
        files = {"config.json": record.digest(config), "metrics.jsonl": "no hash"}
        record.write(folder / "result.json", {"status": "completed", "files": files})
        if name != "metrics.jsonl":
            (folder / name).write_text("{")

    def single(experiment, flags, path, *, resume, overwrite):
        seen.append((resume, overwrite, (path / "result.json").exists()))
        if resume and error:
            raise error
        return 0

    monkeypatch.setattr(runner.single, "run", single)
    go(tmp_path, planned, exact=True)
    assert seen == calls
    assert error is None or f"{error}: starting anew" in (folder / "log.txt").read_text()


def test_an_exact_cell_does_not_write_through_a_link(tmp_path):
    planned = plan("none")
    folder = tmp_path / "cells" / planned[0].cell.id
    folder.mkdir(parents=True)
    (tmp_path / "mine").write_text("")
    (folder / "log.txt").symlink_to(tmp_path / "mine")
    with pytest.raises(LaunchError, match=r"log.txt is a symbolic link"):
        go(tmp_path, planned, exact=True)
    assert (tmp_path / "mine").read_text() == ""


def test_outcomes_have_the_flags_and_the_command_that_cells_were_run_by(tmp_path):
    """Not those of the call that reports: where data lies and what is set may be otherwise."""
    (one,) = plan("none")
    flags = one.cell.config | {"data_dir": "/there"}
    kept = {"flags": flags, "command": "XLA_FLAGS=-x python", "environment": {}}
    found = runner._as_recorded(Outcome(one.cell, "completed", {}, [], record=kept), one.cell)
    assert found.cell.command == "XLA_FLAGS=-x python"
    assert found.cell.config == flags and found.cell.scheme == one.cell.scheme
    assert runner._as_recorded(Outcome(one.cell, "missing", {}, []), one.cell).cell == one.cell


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_stops_an_exact_cell_stops_the_ablation(tmp_path, monkeypatch, number):
    class Stopped(BaseException):
        pass

    def handler(number: int, frame: Any) -> None:
        raise Stopped(number)

    monkeypatch.setattr(runner.single, "run", lambda *arguments, **options: 128 + number)
    before = signal.signal(number, handler)
    try:
        with pytest.raises(Stopped):
            go(tmp_path, plan("none", seeds=2), exact=True)
    finally:
        signal.signal(number, before)
    assert len(list((tmp_path / "cells").iterdir())) == 1


def test_a_plan_says_what_will_be_run_and_what_is_the_same():
    text = make_plan(
        plan("none", "bernoulli", "bernoulli()", swept={"rate": (0.1, 0.2)}, seeds=2), lanes=3
    ).text()
    assert "rate=0.2" in text and "4 of these are the same run as another" in text
    assert "6 cells of mlp(widths=(4,)): 72 steps of training" in text
    assert "Programs to compile: 2, which train 2, 2 cells at a time" in text


@pytest.mark.parametrize(
    ("schemes", "seeds", "words"),
    [
        (["none"], 2, None),
        (["none", "bernoulli"], 5, "No difference can be found with 5 seeds alone, .*: 1 compar"),
        (["none", "bernoulli"], 6, "6 seeds can show a difference: 1 comparison .* takes 6 for"),
        (["none", "bernoulli", "gaussian"], 6, r"with 6 seeds alone, .* 2 comp.*\(--seeds=7\)"),
    ],
)
def test_a_plan_says_whether_its_seeds_can_show_a_difference(schemes, seeds, words):
    text = Plan(planned_like(schemes, seeds), [], 0, [1], []).text()
    assert "difference" not in text if words is None else re.search(words, text)


def planned_like(schemes, seeds):
    """Cells that are never trained."""
    (one,) = plan("none")
    cells = [dataclasses.replace(one.cell, scheme=s, seed=n) for s in schemes for n in range(seeds)]
    return [dataclasses.replace(one, cell=cell) for cell in cells]
