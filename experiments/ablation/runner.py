"""Runs the cells of an ablation that are missing: in lanes on this machine, or one by one."""

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Sequence
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
from experiments.ablation.store import NOT_RUN, TIMING, Store, write_failed
from experiments.ablation.trainer import Made, Trainer, alike
from experiments.console import bar, say
from experiments.setup import LaunchError, Resolved

_LINE_EVERY = 30.0  # seconds
_DAMAGED_SAID = 5  # lines


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Cells that are trained side by side: all of them, or those that are left.

    Args:
      cells: at least one.
      trainer: the number of their trainer, whose compiled program other groups use too.
      lanes: how many are trained. Where they are more than the cells, the group is filled up, so
        that one program serves groups of several sizes.
    """

    cells: tuple[Planned, ...]
    trainer: int
    lanes: int


Advance = Callable[[float], Any]
"""Is told how much was trained since it was called last: 1 for all steps of one cell."""
Finished = tuple[Sequence[Planned], Sequence[Made], dict[str, Any]]
"""Cells that were trained, what they have made, and the environment they were trained in."""
Engine = Callable[[Sequence[Group], Advance], Generator[Finished, None, None]]
"""Trains the cells of each group, and yields them when they are finished. As training goes on, it
calls the second argument with the share of a cell's steps that was done, for all cells together."""


class Trainers:
    """The trainers of an ablation, made when they are needed. The last one is kept."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Trainer] = {}

    def get(self, name: Hashable, cells: Sequence[Resolved]) -> Trainer:
        """The trainer of that name; `cells` are some that it trains."""
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
      lanes: how many cells are trained at a time, by trainer.
      site_tables: where the scheme acts, by trainer.
    """

    planned: list[Planned]
    groups: list[Group]
    steps: int
    lanes: list[int]
    site_tables: list[str]

    def text(self) -> str:
        """The grid and its cost, as printed before it starts."""
        cells = sum(len(group.cells) for group in self.groups)
        shared = len(self.planned) - len({planned.cell.id for planned in self.planned})
        rows: dict[tuple[str, str], int] = {}
        for planned in self.planned:
            cell = planned.cell
            setting = ", ".join(f"{k}={v}" for k, v in cell.setting.items() if v is not None)
            rows[cell.scheme, setting] = rows.get((cell.scheme, setting), 0) + 1
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
    comparisons = len({each.cell.scheme for each in planned}) - 1
    if not comparisons:
        return ""
    seeds, least = len({each.cell.seed for each in planned}), fewest(0.95, comparisons=comparisons)
    verb = "takes" if comparisons == 1 else "take"
    all_take = f"{counted(comparisons, 'comparison')} with the baseline {verb}"
    if seeds < least:
        return (
            f"No difference can be found with {counted(seeds, 'seed')} alone, whatever the results"
            f": {all_take} {least} seeds or more (--seeds={least}) for a p of at most 0.05"
        )
    return f"{seeds} seeds can show a difference: {all_take} {least} for a p of at most 0.05"


def make_plan(
    planned: list[Planned], *, lanes: int | None, shard: tuple[int, int] = (0, 1)
) -> Plan:
    """Groups cells, and finds out whether they can run.

    How they are grouped depends on the grid, the shard and the machine alone, and not on the cells
    that are done: so cells that run again run beside the same others.

    Args:
      planned: the cells.
      lanes: at most so many are trained side by side; None for what fits.
      shard: (i, n) takes every n-th cell from the i-th on.

    Raises:
      LaunchError: a cell cannot be run.
    """
    different = list({each.cell.id: each for each in planned}.values())[shard[0] :: shard[1]]
    together: dict[str, list[Planned]] = {}
    for each in different:
        together.setdefault(alike(each.resolved), []).append(each)
    groups, at_a_time, tables, steps = [], [], [], 0
    for number, cells in enumerate(together.values()):
        trainer = Trainer([cells[0].resolved])
        most = trainer.lanes.at_a_time() if lanes is None else lanes
        size = math.ceil(len(cells) / math.ceil(len(cells) / most))
        at_a_time.append(size)
        tables.append(trainer.site_table)
        steps += trainer.steps * len(cells)
        parts = [tuple(cells[i : i + size]) for i in range(0, len(cells), size)]
        groups += [Group(part, number, size) for part in parts]
    return Plan(planned, groups, steps, at_a_time, tables)


def run_plan(
    plan: Plan,
    store: Store,
    *,
    exact: bool = False,
    engine: Engine,
) -> None:
    """Runs the cells of a plan that are missing.

    Args:
      plan: from `make_plan`.
      store: where finished cells are, and where they go.
      exact: one by one, each as the experiment runs it, to the same bits.
      engine: trains the cells, if they are not run exactly.
    """
    left = {
        planned.cell.id: outcome
        for group in plan.groups
        for planned, outcome in missing(group, store)
    }
    _say_damaged(list(left.values()))
    groups = [group for group in (_part(group, left) for group in plan.groups) if group.cells]
    total = sum(len(group.cells) for group in groups)
    everything = len({planned.cell.id for group in plan.groups for planned in group.cells})
    if total < everything:
        say(f"{everything - total} cells are there already; {total} are left")
    if not groups:
        return
    _say_if_stopped(store, everything - total, everything)
    done = everything - total
    with _progress(total) as advance:
        if exact:
            for group in groups:
                for planned in group.cells:
                    _run_alone(planned, store, anew=_was_damaged(left[planned.cell.id]))
                    advance(1)
                    done += store.has(planned.cell)
                    _say_if_stopped(store, done, everything)
            return
        with contextlib.closing(engine(groups, advance)) as finished:
            for cells, made, environment in finished:
                keep(store, cells, made, environment)
                done += sum(store.has(planned.cell) for planned in cells)
                _say_if_stopped(store, done, everything)


def _say_if_stopped(store: Store, done: int, total: int) -> None:
    """Sets the message that is printed if the ablation is stopped."""
    program.say_if_stopped(
        f"{done} of {counted(total, 'cell')} {'is' if done == 1 else 'are'} done and kept in "
        f"{store.path}; the same command continues, and begins anew those that were in training"
    )


def missing(group: Group, store: Store) -> list[tuple[Planned, Outcome]]:
    """The cells of a group that were not run to their end, and what became of them."""
    ended = ("completed", "diverged")
    outcomes = [(planned, store.outcome(planned.cell)) for planned in group.cells]
    return [(planned, outcome) for planned, outcome in outcomes if outcome.status not in ended]


def _was_damaged(outcome: Outcome) -> bool:
    """Whether there is a result that does not count."""
    return outcome.status == "missing" and outcome.error != NOT_RUN


def _say_damaged(left: Sequence[Outcome]) -> None:
    damaged = [outcome for outcome in left if _was_damaged(outcome)]
    for outcome in damaged[:_DAMAGED_SAID]:
        say(f"cell {outcome.cell.id} runs again: {outcome.error}")
    if len(damaged) > _DAMAGED_SAID:
        say(f"{len(damaged) - _DAMAGED_SAID} more cells run again, for reasons such as these")


def _part(group: Group, left: Collection[str]) -> Group:
    """The cells of a group whose ids are `left`. A part of a group is not filled up."""
    cells = tuple(planned for planned in group.cells if planned.cell.id in left)
    lanes = group.lanes if len(cells) == len(group.cells) else len(cells)
    return Group(cells, group.trainer, lanes)


def local(groups: Sequence[Group], advance: Advance) -> Generator[Finished, None, None]:
    """Trains on this machine, one after another; see `Engine`."""
    trainers, environment = Trainers(), folder.environment()
    for group in groups:
        resolved = [planned.resolved for planned in group.cells]
        made = train_group(trainers, group.trainer, resolved, group.lanes, advance)
        yield group.cells, made, environment


def train_group(
    trainers: Trainers,
    name: Hashable,
    cells: Sequence[Resolved],
    lanes: int,
    advance: Advance,
) -> list[Made]:
    """Trains cells of a group. If that fails, their results say why.

    Args:
      trainers: made so far.
      name: that of the trainer of these cells.
      cells: all of the group, or some.
      lanes: how many are trained; see `Group`.
      advance: see `Advance`.
    """
    filled = [*cells, *[cells[0]] * (lanes - len(cells))]
    try:
        trainer = trainers.get(name, cells)
        made = trainer.run(filled, lambda n: advance(n * len(cells) / trainer.steps))
    except Exception as error:  # one group's memory, say; the others go on
        return failed(error, len(cells), lanes)
    return made[: len(cells)]


def failed(error: BaseException, cells: int, lanes: int) -> list[Made]:
    """The results of cells whose training, in so many lanes, an error ended."""
    result = _failed(error)
    if lanes > 1 and re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.I):
        result["error"] += f" (there were {lanes} at a time; try --lanes={lanes // 2})"
    made = {"result": result, "history": [], "lanes": cells, "seconds": 0.0}
    return [made for _ in range(cells)]


def keep(
    store: Store,
    cells: Sequence[Planned],
    made: Sequence[Made],
    environment: dict[str, Any],
) -> None:
    """Writes what cells have made."""
    written = [
        {
            files.CONFIG: folder.describe(
                planned.resolved,
                data_sha256=planned.cell.config["data_sha256"],
                where=environment,
            ),
            files.METRICS: own["history"],
            TIMING: {name: own[name] for name in ("lanes", "seconds")},
            files.RESULT: own["result"],
        }
        for planned, own in zip(cells, made, strict=True)
    ]
    store.put([planned.cell for planned in cells], written)


def outcomes(planned: Sequence[Planned], store: Store) -> list[Outcome]:
    """What became of cells, in their order."""
    read = functools.cache(lambda id: store.outcome(cells[id]))
    cells: dict[str, Cell] = {each.cell.id: each.cell for each in planned}
    return [_as_recorded(read(each.cell.id), each.cell) for each in planned]


def _as_recorded(outcome: Outcome, cell: Cell) -> Outcome:
    """The outcome of a cell with the flags and the command that it was run by.

    Where the data lies and which variables are set may be otherwise now; that changed nothing.
    """
    if outcome.record:
        config = cell.config | outcome.record["flags"]
        command = str(outcome.record.get("command", cell.command))
        cell = dataclasses.replace(cell, config=config, command=command)
    return dataclasses.replace(outcome, cell=cell)


def _run_alone(planned: Planned, store: Store, *, anew: bool) -> None:
    """Runs a cell as the experiment does, in its folder, and writes what it prints to a file.

    Args:
      planned: the cell.
      store: where its folder is.
      anew: from the start, as what is there is damaged. Else it continues what was interrupted.
    """
    path, resolved = store.folder(planned.cell), planned.resolved
    path.mkdir(parents=True, exist_ok=True)
    store.check_links_of(planned.cell)
    (path / files.RESULT).unlink(missing_ok=True)  # of a cell that failed
    flags = resolved.config.as_flags()
    alone = functools.partial(single.run, resolved.experiment, flags, path)
    resume, status = not anew and _can_resume(path), 0
    log_file = (path / "log.txt").open("a", encoding="utf-8", errors="backslashreplace")
    with log_file as log, contextlib.redirect_stdout(log), program.same_message():
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
