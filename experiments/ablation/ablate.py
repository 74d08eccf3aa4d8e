"""One ablation from its flags to its report."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import dropjax
from experiments import folder
from experiments.ablation.grid import Grid, Planned, plan_cells
from experiments.ablation.output import write
from experiments.ablation.run import make_plan, outcomes, run_plan
from experiments.ablation.store import Store
from experiments.ablation.tables import answers_text
from experiments.console import say
from experiments.setup import LaunchError


@dataclasses.dataclass(frozen=True)
class Options:
    """How an ablation is run; nothing here changes what it finds but for rounding.

    Args:
      baseline: the scheme that the others are compared with.
      exact: run each cell as the experiment does, one by one and to the same bits.
      lanes: at most so many are trained side by side; None for what fits.
      shard: (i, n): every n-th cell from the i-th on; None for all.
      only: "plan" to print the grid and its cost, "tables" to run nothing more; None for neither.
    """

    baseline: str
    exact: bool = False
    lanes: int | None = None
    shard: tuple[int, int] | None = None
    only: str | None = None


def ablate(grid: Grid, path: Path, options: Options) -> int:
    """Runs what is missing of an ablation, and writes what it says.

    Args:
      grid: what is compared.
      path: its folder.
      options: how it is run.

    Returns:
      The exit status: 0, or 1 if there are cells without a result.

    Raises:
      LaunchError: it cannot start.
    """
    _check(grid, options)
    planned = plan_cells(grid, say)
    _check_choice(grid, planned)
    lanes = 1 if options.exact else options.lanes
    plan = make_plan(planned, lanes=lanes, shard=options.shard or (0, 1))
    say(f"\n{plan.text()}\n")
    if options.only == "plan":
        return 0
    shard = options.shard
    with folder.locked(path / "shards" / f"{shard[0]}-of-{shard[1]}" if shard else path):
        store = Store(path)
        about = _about(grid, planned, options)
        store.begin(about | {"exact": options.exact})
        if options.only != "tables":
            run_plan(plan, store, grid.experiment, exact=options.exact)
        found = outcomes(planned, store)
        absent = sum(outcome.status == "missing" for outcome in found)
        if absent and shard:
            say(f"{absent} cells of other shards are missing; the last shard writes the tables")
            return 0
        analysis = write(
            path,
            found,
            about,
            baseline=options.baseline,
            task=planned[0].resolved.dataset.task,
        )
        for number, table in enumerate(plan.site_tables):
            (path / f"sites_{number}.txt").write_text(table)
        say(f"{answers_text(analysis)}\nfolder {path}: report.html, table.md, cells.csv, figures/")
    return 1 if analysis.lost else 0


def _check(grid: Grid, options: Options) -> None:
    if options.baseline not in grid.schemes:
        raise LaunchError(
            f"baseline={options.baseline!r} is not compared: it must be one of --dropout, "
            f"{', '.join(grid.schemes)}"
        )
    if options.exact and options.lanes is not None:
        raise LaunchError("--lanes would do nothing: --exact trains one cell after another")


def _check_choice(grid: Grid, planned: list[Planned]) -> None:
    """Refuses a choice among settings without a validation split to make it on."""
    for text in grid.schemes:
        of = [one for one in planned if one.cell.scheme == text]
        settings = {tuple(one.cell.setting.items()) for one in of}
        if len(settings) > 1 and not len(of[0].resolved.dataset.y_validation):
            raise LaunchError(
                f"{text} has {len(settings)} settings, and there is no validation split to choose "
                "one on; give --validation examples, or sweep nothing"
            )


def _about(grid: Grid, planned: list[Planned], options: Options) -> dict[str, Any]:
    configs = [dataclasses.asdict(one.resolved.config) for one in planned]
    first = configs[0]
    varied = {"dropout", "rate", "seed", "data_dir", *grid.swept}
    hashes = sorted({one.cell.config["data_sha256"] for one in planned})
    where = folder.environment()
    return {
        "experiment": grid.experiment,
        "command": _command(grid, options),
        "shared": {
            name: value
            for name, value in first.items()
            if name not in varied and all(config[name] == value for config in configs)
        },
        "swept": list(grid.swept),
        "environment": {
            "dropjax": where["dropjax"],
            "git_commit": where["git_commit"],
            "python": where["python"],
            **where["versions"],
            "backend": where["backend"],
            "device": where["device_kind"],
            "devices": where["devices"],
        },
        "data_sha256": hashes[0] if len(hashes) == 1 else f"{len(hashes)} subsets; see cells.csv",
        "mask_stream": dropjax.STREAM,
    }


def _command(grid: Grid, options: Options) -> str:
    """What makes the ablation, but for where it lies and on how many machines."""
    words = {"experiment": grid.experiment, "dropout": ",".join(grid.schemes)}
    if "rate" in grid.swept:
        words["rate"] = ",".join(map(str, grid.swept["rate"]))
    others = [
        f"{flag}={','.join(map(str, values))}"
        for flag, values in grid.swept.items()
        if flag != "rate"
    ]
    words |= {"grid": ";".join(others)} if others else {}
    words |= {"seeds": str(len(grid.seeds)), "baseline": options.baseline}
    words |= {k: str(v) for k, v in grid.fixed.items() if v is not None and k != "data_dir"}
    return " ".join(
        ["python -m scripts.ablate", *(f"--{k}={shlex.quote(v)}" for k, v in words.items())]
        + (["--exact"] if options.exact else [])
    )
