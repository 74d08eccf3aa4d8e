"""Runs the cells of an ablation that are missing: in lanes on this machine, or one by one."""

import contextlib
import dataclasses
import functools
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm

from experiments import folder
from experiments import run as single
from experiments.ablation.cells import Cell, Outcome
from experiments.ablation.grid import Planned
from experiments.ablation.store import Store
from experiments.ablation.train import Made, Trainer, alike
from experiments.console import say
from experiments.setup import Flags, LaunchError


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Cells that are trained side by side.

    Args:
      cells: those that belong together, whether or not they were run before.
      program: the number of the program that they share with other groups.
    """

    cells: tuple[Planned, ...]
    program: int


class Programs:
    """The compiled programs of an ablation, made when they are needed."""

    def __init__(self) -> None:
        self._made: dict[int, Trainer] = {}

    def of(self, number: int, cells: Sequence[Planned]) -> Trainer:
        """The program of that number, of some cells that it trains."""
        if number not in self._made:
            self._made = {number: Trainer([one.resolved for one in cells])}
        return self._made[number]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What will be run.

    Args:
      planned: every cell of the grid; those of equal configuration share an id.
      groups: the different cells among them, or those of a shard.
      steps: of training, over all cells of the groups.
      lanes: at a time, by program.
      site_tables: where the scheme acts, by program.
    """

    planned: list[Planned]
    groups: list[Group]
    steps: int
    lanes: list[int]
    site_tables: list[str]

    def text(self) -> str:
        """The grid and its cost, as printed before it starts."""
        cells = sum(len(group.cells) for group in self.groups)
        shared = len(self.planned) - len({one.cell.id for one in self.planned})
        rows: dict[tuple[str, str], int] = {}
        for one in self.planned:
            setting = ", ".join(f"{k}={v}" for k, v in one.cell.setting.items() if v is not None)
            rows[one.cell.scheme, setting] = rows.get((one.cell.scheme, setting), 0) + 1
        width = max(len(scheme) for scheme, _ in rows)
        lines = [f"{scheme:{width}}  {of:<40} {n} seeds" for (scheme, of), n in rows.items()]
        if shared:
            lines.append(f"{shared} of these are the same run as another")
        model, most = self.planned[0].resolved.config.model, ", ".join(map(str, self.lanes))
        lines += [
            "",
            f"{cells} cells of {model}: {self.steps:,} steps of training. Programs to compile: "
            f"{len(self.lanes)}, which train {most} cells at a time",
        ]
        return "\n".join(lines)


def make_plan(
    planned: list[Planned], *, lanes: int | None, shard: tuple[int, int] = (0, 1)
) -> Plan:
    """Groups cells, and finds out whether they can run.

    How they are grouped depends on the grid, the shard and the machine alone, not on what was run
    before: what is run again has the same company.

    Args:
      planned: the cells.
      lanes: at most so many are trained side by side; None for what fits.
      shard: (i, n) takes every n-th cell from the i-th on.

    Raises:
      LaunchError: a cell cannot be run.
    """
    different = list({one.cell.id: one for one in planned}.values())[shard[0] :: shard[1]]
    programs: dict[str, list[Planned]] = {}
    for one in different:
        programs.setdefault(alike(one.resolved), []).append(one)
    groups, at_a_time, tables, steps = [], [], [], 0
    for number, cells in enumerate(programs.values()):
        trainer = Trainer([cells[0].resolved])
        most = trainer.lanes.at_a_time() if lanes is None else lanes
        size = math.ceil(len(cells) / math.ceil(len(cells) / most))
        at_a_time.append(size)
        tables.append(trainer.site_table)
        steps += trainer.steps * len(cells)
        groups += [Group(tuple(cells[i : i + size]), number) for i in range(0, len(cells), size)]
    return Plan(planned, groups, steps, at_a_time, tables)


def run_plan(plan: Plan, store: Store, experiment: str, *, exact: bool = False) -> None:
    """Runs what is missing of a plan.

    Args:
      plan: from `make_plan`.
      store: where finished cells are, and where they go.
      experiment: its name.
      exact: one by one, each as `experiments.<experiment>` runs it, to the same bits.
    """
    todo = [(group, missing(group, store)) for group in plan.groups]
    todo = [(group, cells) for group, cells in todo if cells]
    total = sum(len(cells) for _, cells in todo)
    everything = len({one.cell.id for group in plan.groups for one in group.cells})
    if total < everything:
        say(f"{everything - total} cells are there already; {total} are left")
    programs, environment = Programs(), folder.environment()
    with _bar(total) as bar:
        for group, cells in todo:
            if exact:
                for one in cells:
                    _run_alone(one, store, experiment)
                    bar.update(1)
                continue
            made = train_group(programs, group, cells, plan.lanes[group.program], bar.update)
            keep(store, experiment, cells, made, environment)


def missing(group: Group, store: Store) -> list[Planned]:
    """The cells of a group that were not run to their end."""
    return [one for one in group.cells if not store.has(one.cell)]


def train_group(
    programs: Programs,
    group: Group,
    cells: Sequence[Planned],
    size: int,
    advance: Callable[[float], Any],
) -> list[Made]:
    """What cells of a group make; those that fail say why.

    Args:
      programs: compiled so far.
      group: to which they belong.
      cells: all of the group, or some.
      size: of the program's groups: a smaller one is filled up, so that one program serves all.
      advance: is told how many cells' worth of training was done.
    """
    resolved = [one.resolved for one in cells]
    if len(cells) == len(group.cells):
        resolved += resolved[:1] * (size - len(cells))
    try:
        trainer = programs.of(group.program, cells)
        made = trainer.run(resolved, lambda n: advance(n * len(cells) / trainer.steps))
    except Exception as error:  # one group's memory, say; the others go on
        failed = {"result": _failed(error), "history": []}
        return [failed | {"lanes": len(cells), "seconds": 0.0} for _ in cells]
    return made[: len(cells)]


def keep(
    store: Store,
    experiment: str,
    cells: Sequence[Planned],
    made: Sequence[Made],
    environment: dict[str, Any],
) -> None:
    """Writes what cells have made."""
    files = []
    for one, of in zip(cells, made, strict=True):
        resolved = one.resolved
        config = folder.describe(
            dataclasses.asdict(resolved.config),
            one.cell.config["data_sha256"],
            experiment,
            resolved.network.describe(resolved.dataset.x_train[0]),
            len(resolved.dataset.x_train),
            environment,
        )
        files.append(
            {
                "config.json": config,
                "metrics.jsonl": of["history"],
                "timing.json": {name: of[name] for name in ("lanes", "seconds")},
                "result.json": of["result"],
            }
        )
    store.put([one.cell for one in cells], files)


def outcomes(planned: Sequence[Planned], store: Store) -> list[Outcome]:
    """What became of cells, in their order."""
    read = functools.cache(lambda id: store.outcome(cells[id]))
    cells: dict[str, Cell] = {one.cell.id: one.cell for one in planned}
    return [dataclasses.replace(read(one.cell.id), cell=one.cell) for one in planned]


def _run_alone(one: Planned, store: Store, experiment: str) -> None:
    """Runs a cell as the experiment does, in its folder, what it prints in a file."""
    path = store.folder(one.cell)
    path.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = dataclasses.asdict(one.resolved.config) | {"rate": None}
    flags = Flags(**config)  # the scheme's text has the rate
    (path / "result.json").unlink(missing_ok=True)  # of a cell that failed
    resume, status = (path / "config.json").exists(), 0
    with (path / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
        try:
            status = single.run(experiment, flags, path, resume=resume, overwrite=False)
        except Exception as error:  # the others go on
            folder.write_json(path / "result.json", _failed(error))
    if status >= 128:  # the run took a signal that was meant for all of them
        signal.raise_signal(status - 128)


def _failed(error: Exception) -> Made:
    """What is kept of a cell that failed: the first line says why."""
    line = str(error).partition("\n")[0]
    name = "" if isinstance(error, LaunchError) else f"{type(error).__name__}: "
    return {"status": "failed", "error": f"{name}{line}"}


@contextlib.contextmanager
def _bar(cells: int) -> Iterator[Any]:
    with tqdm.tqdm(
        total=cells,
        unit="cell",
        dynamic_ncols=True,
        disable=not sys.stderr.isatty() or not cells,
        bar_format="{l_bar}{bar}| {n:.1f}/{total_fmt} cells [{elapsed}<{remaining}]",
    ) as bar:
        yield bar
