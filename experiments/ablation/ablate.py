"""One ablation from its flags to its report."""

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dropjax
from dropjax.core.text import counted
from experiments import folder, program
from experiments.ablation import ray_engine
from experiments.ablation.cells import Outcome
from experiments.ablation.grid import Grid, Planned, Reader, plan_cells
from experiments.ablation.report import (
    Analysis,
    Verdict,
    add_seeds,
    analyse,
    answers_text,
    check_most,
    origin,
    warnings,
    write,
)
from experiments.ablation.runner import Engine, local, make_plan, outcomes, run_plan
from experiments.ablation.store import ABLATION, Store
from experiments.console import say
from experiments.flags import Flags, may_be
from experiments.setup import LaunchError, launching


@dataclasses.dataclass(frozen=True)
class Options:
    """How an ablation is run and compared.

    Args:
      baseline: the scheme that the others are compared with.
      exact: run each cell as the experiment does, one by one and to the same bits.
      lanes: at most so many are trained side by side; None for what fits.
      shard: (i, n): every n-th cell from the i-th on; None for all.
      engine: "local" to train on this machine, "ray" as tasks of a Ray cluster.
      stop: "decided" to add seeds, after the others, until each comparison is decided.
      max_seeds: that are added at most.
      only: "plan" to print the grid and its cost, "tables" to run nothing more; None for neither.
    """

    baseline: str
    exact: bool = False
    lanes: int | None = None
    shard: tuple[int, int] | None = None
    engine: str = "local"
    stop: str | None = None
    max_seeds: int = 50
    only: str | None = None


def ablate(grid: Grid, path: Path, options: Options) -> int:
    """Runs the cells of an ablation that are missing, and writes its report.

    Args:
      grid: the schemes and settings that are compared.
      path: its folder.
      options: how it is run.

    Returns:
      The exit status: 0, or 1 if there are cells without a result.

    Raises:
      LaunchError: it cannot start.
    """
    _check(grid, options)
    reader = Reader(grid.experiment, say)
    planned = plan_cells(grid, reader)
    _check_choice(grid, planned)
    store = Store(path, reader.changes)
    _check_folder(store, planned, options)
    lanes = 1 if options.exact else options.lanes
    plan = make_plan(planned, lanes=lanes, shard=options.shard or (0, 1))
    say(f"\n{plan.text()}\n")
    if options.only == "plan":
        return 0
    shard = options.shard
    own = path / "shards" / f"{shard[0]}-of-{shard[1]}" if shard else path
    with folder.locked(own), _engine(options) as engine:
        if options.only == "tables":
            options = _as_before(grid, store, options)
        about = _about(grid, planned, options)
        before = store.begin(about | {"exact": options.exact, "dropjax": dropjax.__version__})
        if before is not None and before != about["command"]:
            say(f"tables in {path} will be of this grid; before they were of: {before}")
        if options.only != "tables":
            run_plan(plan, store, exact=options.exact, engine=engine)
        cells = outcomes(planned, store)
        absent = sum(outcome.status == "missing" for outcome in cells)
        if absent and shard:
            say(f"{absent} cells of other shards are missing; the last shard writes the tables")
            return int(any(outcome.status in ("failed", "diverged") for outcome in cells))
        task = planned[0].resolved.dataset.task
        analysis = analyse(cells, baseline=options.baseline, task=task)
        verdicts, added = [], []
        if options.stop == "decided":
            decide = _Decide(reader, planned, analysis, store, options, engine)
            verdicts, added = decide.verdicts(), decide.added()
        program.say_if_stopped(f"the cells are kept in {path}; --only=tables writes the tables")
        whole = [*cells, *added]
        about |= {"environment": origin(whole), "warnings": warnings(whole)}
        analysis = write(
            path,
            cells,
            about,
            baseline=options.baseline,
            task=task,
            test_examples=len(planned[0].resolved.dataset.y_test),
            verdicts=verdicts,
            added=added,
        )
        for old in path.glob("sites_*.txt"):
            old.unlink()
        for number, table in enumerate(plan.site_tables):
            (path / f"sites_{number}.txt").write_text(table)
        files = ["report.html", "table.md", "cells.csv", *["cells_added.csv"] * bool(added)]
        said = "\n".join([answers_text(analysis), *about["warnings"]])
        say(f"{said}\nfolder {path}: {', '.join(files)}, figures/")
    return 1 if analysis.lost else 0


def _as_before(grid: Grid, store: Store, options: Options) -> Options:
    """The options with --stop=decided if the ablation of this grid that is there was made with it.

    Its verdicts are then told again, of the seeds that were added.
    """
    before = store.before().get("command")
    stopped = re.search(r" --stop=decided --max_seeds=(\d+)$", before or "")
    if options.stop or not stopped:
        return options
    same = dataclasses.replace(options, stop="decided", max_seeds=int(stopped[1]))
    return same if _command(grid, same) == before else options


def _engine(options: Options) -> contextlib.AbstractContextManager[Engine]:
    return ray_engine.connected() if options.engine == "ray" else contextlib.nullcontext(local)


class _Decide:
    """Adds seeds to the schemes of an ablation, each at the setting that was chosen for it."""

    def __init__(
        self,
        reader: Reader,
        planned: list[Planned],
        analysis: Analysis,
        store: Store,
        options: Options,
        engine: Engine,
    ) -> None:
        self.reader, self.analysis, self.store = reader, analysis, store
        self.options, self.engine = options, engine
        self.metric = f"test_{analysis.metric.name}"
        self._planned: list[Planned] = []
        self._chosen = {
            row.scheme: next(
                each
                for each in planned
                if each.cell.scheme == row.scheme and each.cell.setting == row.chosen.setting
            )
            for row in analysis.schemes
            if row.chosen is not None
        }

    def verdicts(self) -> list[Verdict]:
        """Runs what it takes; see `add_seeds`."""
        baseline = self.options.baseline
        schemes = [scheme for scheme in self._chosen if scheme != baseline]
        if baseline not in self._chosen or not schemes:
            say("no seeds are added: there is no setting to compare, as the table says")
            return []
        first, most = max(self.analysis.seeds) + 1, self.options.max_seeds
        if self.options.only == "tables":
            most = self._stored(first, most)
            try:
                check_most(len(schemes), most, level=self.analysis.level)
            except ValueError:
                say(f"no verdicts: {counted(most, 'seed')} added for the baseline cannot give one")
                return []
        else:
            say("adding seeds until it is decided")
        with launching():
            return add_seeds(
                schemes,
                baseline,
                self._run,
                first=first,
                most=most,
                level=self.analysis.level,
            )

    def _stored(self, first: int, most: int) -> int:
        """How many of the seeds that may be added the baseline was run with, one after another."""
        chosen = self._chosen[self.options.baseline]
        for number in range(most):
            cell = self.reader.with_seed(chosen, first + number).cell
            if self.store.outcome(cell).status == "missing":
                return number
        return most

    def added(self) -> list[Outcome]:
        """What became of the runs that were added."""
        return outcomes(self._planned, self.store)

    def _run(self, schemes: Sequence[str], seeds: Sequence[int]) -> dict[str, list[float | None]]:
        new = {
            scheme: [self.reader.with_seed(self._chosen[scheme], seed) for seed in seeds]
            for scheme in schemes
        }
        every = [planned for added in new.values() for planned in added]
        self._planned += every
        if self.options.only != "tables":
            run_plan(
                make_plan(every, lanes=self.options.lanes),
                self.store,
                exact=self.options.exact,
                engine=self.engine,
            )
        return {
            scheme: [outcome.result.get(self.metric) for outcome in outcomes(added, self.store)]
            for scheme, added in new.items()
        }


def _check(grid: Grid, options: Options) -> None:
    if options.baseline not in grid.schemes:
        raise LaunchError(
            f"baseline={options.baseline!r} is not compared: it must be one of --dropout, "
            f"{', '.join(grid.schemes)}"
        )
    if options.stop:
        if options.shard:
            raise LaunchError("--stop=decided looks at all results: leave out --shard")
        if options.only == "plan":
            raise LaunchError("--stop=decided would do nothing with --only=plan")
        if len(grid.schemes) == 1:
            raise LaunchError("--stop=decided has nothing to decide: there is one scheme")
        with launching():
            check_most(len(grid.schemes) - 1, options.max_seeds)
    if options.exact and options.lanes is not None:
        raise LaunchError("--lanes would do nothing: --exact trains one cell after another")
    if options.engine == "ray":
        if options.exact:
            raise LaunchError(
                "--exact keeps checkpoints in the ablation's folder, which Ray's workers need not "
                "share; use --engine=local, on several machines with --shard"
            )
        ray_engine.load_ray()


def _check_folder(store: Store, planned: list[Planned], options: Options) -> None:
    """Refuses a folder of something else, before anything is written."""
    path = store.path
    if path.exists() and not path.is_dir():
        raise LaunchError(f"--workdir={path} is no folder; name another")
    if not path.name:
        raise LaunchError(f"--workdir must name a folder for this ablation alone, got {path}")
    if not store.holds() and (path / "config.json").exists():
        raise LaunchError(f"--workdir={path} holds a run of an experiment; name another")
    store.check_links()
    if options.only == "tables":
        if not store.holds():
            raise LaunchError(f"--only=tables: --workdir={path} holds no ablation")
        if not any(store.has(each.cell) for each in planned):
            command = store.before().get("command", f"what {ABLATION} says, which is damaged")
            raise LaunchError(
                f"--only=tables: --workdir={path} has no cell of this grid; its tables were made "
                f"by: {command}"
            )


def _check_choice(grid: Grid, planned: list[Planned]) -> None:
    """Refuses a choice among settings without a validation split to make it on."""
    for text in grid.schemes:
        own = [each for each in planned if each.cell.scheme == text]
        settings = {tuple(each.cell.setting.items()) for each in own}
        if len(settings) > 1 and not len(own[0].resolved.dataset.y_validation):
            raise LaunchError(
                f"{text} has {len(settings)} settings, and there is no validation split to choose "
                "one on; give --validation examples, or sweep nothing"
            )


def _about(grid: Grid, planned: list[Planned], options: Options) -> dict[str, Any]:
    configs = [vars(each.resolved.config) for each in planned]
    first = configs[0]
    varied = {"dropout", "rate", "seed", *may_be("place"), *grid.swept}
    hashes = sorted({each.cell.config["data_sha256"] for each in planned})
    return {
        "experiment": grid.experiment.name,
        "command": _command(grid, options),
        "shared": {
            name: value
            for name, value in first.items()
            if name not in varied and all(config[name] == value for config in configs)
        },
        "swept": list(grid.swept),
        "data_sha256": hashes[0] if len(hashes) == 1 else f"{len(hashes)} subsets; see cells.csv",
        "mask_stream": dropjax.STREAM,
    }


def _command(grid: Grid, options: Options) -> str:
    """What makes the ablation, but for where it lies and on how many machines."""
    words = {"experiment": grid.experiment.name, "dropout": ",".join(grid.schemes)}
    if "rate" in grid.swept:
        words["rate"] = ",".join(map(str, grid.swept["rate"]))
    others = [
        f"{flag}={','.join(map(str, values))}"
        for flag, values in grid.swept.items()
        if flag != "rate"
    ]
    words |= {"grid": ";".join(others)} if others else {}
    words |= {"seeds": str(len(grid.seeds)), "baseline": options.baseline}
    words |= {
        flag: str(value)
        for flag, value in grid.fixed.items()
        if value not in (None, getattr(Flags, flag)) and flag not in may_be("place")
    }
    return " ".join(
        ["python -m scripts.ablate", *(f"--{k}={shlex.quote(v)}" for k, v in words.items())]
        + (["--exact"] if options.exact else [])
        + ([f"--stop=decided --max_seeds={options.max_seeds}"] if options.stop else [])
    )
