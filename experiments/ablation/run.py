"""Runs the cells of an ablation that are missing: in lanes on this machine, or one by one."""

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dropjax.compare import fewest
from dropjax.core.text import aligned, counted
from dropjax.runs import files
from dropjax.train.checkpoint import CheckpointError
from dropjax.train.log import LogError
from experiments import folder, program
from experiments import run as single
from experiments.ablation.cells import Cell, Outcome
from experiments.ablation.grid import Planned
from experiments.ablation.store import NOT_RUN, Store, write_failed
from experiments.ablation.train import Made, Trainer, alike
from experiments.console import bar, say
from experiments.setup import Flags, LaunchError, Resolved, sources

_LINE_EVERY = 30.0  # seconds
_DAMAGED_SAID = 5  # lines


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Cells that are trained side by side.

    Args:
      cells: those that belong together, whether or not they were run before.
      program: the number of the program that they share with other groups.
    """

    cells: tuple[Planned, ...]
    program: int


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """What is left to do of a group.

    Args:
      cells: its missing ones, at least one.
      program: the number of theirs.
      lanes: of the program. If they are more than the cells, which are then a whole group smaller
        than others, it is filled up, so that one program serves all.
    """

    cells: tuple[Planned, ...]
    program: int
    lanes: int


Advance = Callable[[float], Any]
Finished = tuple[Sequence[Planned], Sequence[Made], dict[str, Any]]
"""Cells that were trained, what they have made, and the environment they were trained in."""
Engine = Callable[[Sequence[Work], Advance], Generator[Finished, None, None]]
"""Trains what there is to do, and yields it as it is finished. It is given what is told how many
cells' worth of training was done."""


class Programs:
    """The compiled programs of an ablation, made when they are needed."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Trainer] = {}

    def of(self, name: Hashable, cells: Sequence[Resolved]) -> Trainer:
        """The program of that name, of some cells that it trains. The last one is kept."""
        if name not in self._made:
            self._made = {name: Trainer(cells)}
        return self._made[name]


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
        lines = aligned([(*row, counted(n, "seed")) for row, n in rows.items()])
        if shared:
            lines.append(f"{shared} of these are the same run as another")
        model, most = self.planned[0].resolved.config.model, ", ".join(map(str, self.lanes))
        lines += [
            "",
            f"{cells} cells of {model}: {self.steps:,} steps of training. Programs to compile: "
            f"{len(self.lanes)}, which train {most} cells at a time",
        ]
        if text := _power(self.planned):
            lines.append(text)
        return "\n".join(lines)


def _power(planned: list[Planned]) -> str:
    """Whether the seeds can show a difference between schemes; "" if there is one scheme."""
    comparisons = len({one.cell.scheme for one in planned}) - 1
    if not comparisons:
        return ""
    seeds = len({one.cell.seed for one in planned})
    least = fewest(0.95, comparisons=comparisons)
    verb = "takes" if comparisons == 1 else "take"
    of = f"{counted(comparisons, 'comparison')} with the baseline {verb}"
    if seeds < least:
        return (
            f"No difference can be found with {counted(seeds, 'seed')} alone, whatever the results"
            f": {of} {least} seeds or more (--seeds={least}) for a p of at most 0.05"
        )
    return f"{seeds} seeds can show a difference: {of} {least} for a p of at most 0.05"


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


def run_plan(
    plan: Plan,
    store: Store,
    experiment: str,
    *,
    exact: bool = False,
    engine: Engine,
) -> None:
    """Runs what is missing of a plan.

    Args:
      plan: from `make_plan`.
      store: where finished cells are, and where they go.
      experiment: its name.
      exact: one by one, each as `experiments.<experiment>` runs it, to the same bits.
      engine: trains what is not run exactly.
    """
    left = {one.cell.id: of for group in plan.groups for one, of in missing(group, store)}
    _say_damaged(list(left.values()))
    works = [
        _work(plan, group, [one for one in group.cells if one.cell.id in left])
        for group in plan.groups
    ]
    works = [work for work in works if work.cells]
    total = sum(len(work.cells) for work in works)
    everything = len({one.cell.id for group in plan.groups for one in group.cells})
    if total < everything:
        say(f"{everything - total} cells are there already; {total} are left")
    if not works:
        return
    _say_if_stopped(store, everything - total, everything)
    done = everything - total
    with _progress(total) as advance:
        if exact:
            for work in works:
                for one in work.cells:
                    _run_alone(one, store, experiment, anew=_was_damaged(left[one.cell.id]))
                    advance(1)
                    done += store.has(one.cell)
                    _say_if_stopped(store, done, everything)
            return
        with contextlib.closing(engine(works, advance)) as finished:
            for cells, made, environment in finished:
                keep(store, experiment, cells, made, environment)
                done += sum(store.has(one.cell) for one in cells)
                _say_if_stopped(store, done, everything)


def _say_if_stopped(store: Store, done: int, total: int) -> None:
    """Keeps ready what is said if the ablation is stopped."""
    program.means(
        f"{done} of {counted(total, 'cell')} {'is' if done == 1 else 'are'} done and kept in "
        f"{store.path}; the same command continues, and begins anew those that were in training"
    )


def missing(group: Group, store: Store) -> list[tuple[Planned, Outcome]]:
    """The cells of a group that were not run to their end, and what became of them."""
    found = [(one, store.outcome(one.cell)) for one in group.cells]
    return [(one, of) for one, of in found if of.status not in ("completed", "diverged")]


def _was_damaged(outcome: Outcome) -> bool:
    """Whether there is a result that does not count."""
    return outcome.status == "missing" and outcome.error != NOT_RUN


def _say_damaged(left: Sequence[Outcome]) -> None:
    damaged = [outcome for outcome in left if _was_damaged(outcome)]
    for outcome in damaged[:_DAMAGED_SAID]:
        say(f"cell {outcome.cell.id} runs again: {outcome.error}")
    if len(damaged) > _DAMAGED_SAID:
        say(f"{len(damaged) - _DAMAGED_SAID} more cells run again, for reasons such as these")


def _work(plan: Plan, group: Group, cells: Sequence[Planned]) -> Work:
    whole = len(cells) == len(group.cells)
    return Work(tuple(cells), group.program, plan.lanes[group.program] if whole else len(cells))


def local(works: Sequence[Work], advance: Advance) -> Generator[Finished, None, None]:
    """Trains on this machine, one after another; see `Engine`."""
    programs, environment = Programs(), folder.environment()
    for work in works:
        resolved = [one.resolved for one in work.cells]
        made = train_group(programs, work.program, resolved, work.lanes, advance)
        yield work.cells, made, environment


def train_group(
    programs: Programs,
    program: Hashable,
    cells: Sequence[Resolved],
    lanes: int,
    advance: Advance,
) -> list[Made]:
    """What cells of a group make; those that fail say why.

    Args:
      programs: compiled so far.
      program: the name of theirs.
      cells: all of the group, or some.
      lanes: of the program; see `Work`.
      advance: is told how many cells' worth of training was done.
    """
    filled = [*cells, *[cells[0]] * (lanes - len(cells))]
    try:
        trainer = programs.of(program, cells)
        made = trainer.run(filled, lambda n: advance(n * len(cells) / trainer.steps))
    except Exception as error:  # one group's memory, say; the others go on
        return failed(error, len(cells), lanes)
    return made[: len(cells)]


def failed(error: BaseException, cells: int, lanes: int) -> list[Made]:
    """What cells of a group make that an error ended, side by side in so many lanes."""
    result = _failed(error)
    if lanes > 1 and re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.I):
        result["error"] += f" (there were {lanes} at a time; try --lanes={lanes // 2})"
    made = {"result": result, "history": [], "lanes": cells, "seconds": 0.0}
    return [made for _ in range(cells)]


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
            sources(resolved.network),
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
    return [_as_recorded(read(one.cell.id), one.cell) for one in planned]


def _as_recorded(outcome: Outcome, cell: Cell) -> Outcome:
    """The outcome of a cell with the flags and the command that it was run by.

    Where the data lies and which variables are set may be otherwise now; that changed nothing.
    """
    if outcome.record:
        config = cell.config | outcome.record["flags"]
        command = str(outcome.record.get("command", cell.command))
        cell = dataclasses.replace(cell, config=config, command=command)
    return dataclasses.replace(outcome, cell=cell)


def _run_alone(one: Planned, store: Store, experiment: str, *, anew: bool) -> None:
    """Runs a cell as the experiment does, in its folder, what it prints in a file.

    Args:
      one: the cell.
      store: where its folder is.
      experiment: its name.
      anew: from the start, as what is there is damaged. Else it continues what was interrupted.
    """
    path = store.folder(one.cell)
    path.mkdir(parents=True, exist_ok=True)
    store.check_links_of(one.cell)
    config: dict[str, Any] = dataclasses.asdict(one.resolved.config) | {"rate": None}
    flags = Flags(**config)  # the scheme's text has the rate
    (path / "result.json").unlink(missing_ok=True)  # of a cell that failed
    alone = functools.partial(single.run, experiment, flags, path)
    resume, status = not anew and _can_resume(path), 0
    log_file = (path / "log.txt").open("a", encoding="utf-8", errors="backslashreplace")
    with log_file as log, contextlib.redirect_stdout(log), program.settled():
        try:
            try:
                status = alone(resume=resume, overwrite=not resume)
            except (CheckpointError, LogError, LaunchError) as error:
                if not resume:
                    raise
                say(f"{error}: starting anew")  # it can go on no more
                status = alone(resume=False, overwrite=True)
        except Exception as error:  # the others go on
            write_failed(path, _failed(error))
    if status >= 128:  # the run took a signal that was meant for all of them
        program.stop(status - 128)


def _can_resume(path: Path) -> bool:
    """Whether there is a run to continue, whose configuration is as it was written."""
    try:
        files.read_config(path)
    except files.RecordError:
        return False
    return True


def _failed(error: BaseException) -> Made:
    """What is kept of a cell that failed: why, in a line."""
    text, ours = str(error), isinstance(error, LaunchError)
    line = " ".join(text.split()) if ours else text.partition("\n")[0]
    name = "" if ours else f"{type(error).__name__}: "
    return {"status": "failed", "error": f"{name}{line}"}


@contextlib.contextmanager
def _progress(cells: int) -> Iterator[Advance]:
    """Shows how many cells are done: by a bar on a terminal, else by a line now and then."""
    terminal = program.is_terminal()
    shown = bar(
        total=cells,
        unit="cell",
        bar_format="{l_bar}{bar}| {n:.1f}/{total_fmt} cells [{elapsed}<{remaining}]",
    )
    began = said = time.monotonic()
    done = 0.0

    def advance(more: float) -> None:
        nonlocal done, said
        done += more
        shown.update(more)
        now = time.monotonic()
        if not terminal and now - said > _LINE_EVERY:
            said = now
            left = (now - began) * (cells - done) / done / 60
            # The first steps wait for compilation, and say nothing of those that follow.
            hint = f", some {left:.0f} min left" if done > cells / 20 else ""
            say(f"{done:.1f} of {cells} cells{hint}")

    with shown:
        yield advance
