"""From the flags of an ablation to its cells. All that can be wrong with them is found here."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dropjax
from dropjax import schemes
from dropjax.core import literals, plan
from dropjax.core.scheme import Scheme
from dropjax.runs.sources import sources
from experiments import changes
from experiments import flags as training
from experiments.ablation.cells import Cell
from experiments.experiment import Experiment
from experiments.flags import DECLARED, Flags
from experiments.folder import command_of
from experiments.setup import (
    LaunchError,
    Resolved,
    is_used,
    jax_setting,
    launching,
    read_once,
    resolve,
)

MOST = 100_000
"""Cells of one ablation."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is compared.

    Args:
      experiment: which.
      schemes: entries of --dropout.
      swept: the values of each flag that is swept, by its name; "rate" is one of them.
      seeds: of each setting.
      fixed: the other flags that were given.
    """

    experiment: Experiment
    schemes: tuple[str, ...]
    swept: dict[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    fixed: dict[str, Any]


def values(text: str, flag: str) -> tuple[str, ...]:
    """The values in a list, which is split at commas outside of brackets and quotes.

    Raises:
      LaunchError: one is empty, or stands there twice.
    """
    with launching():
        listed = tuple(literals.split(text, ","))
    if "" in listed:
        where = " between its commas" if "," in text else ""
        raise LaunchError(f"--{flag}={text!r} has an empty value{where}")
    for value in listed:
        if listed.count(value) > 1:
            raise LaunchError(f"--{flag} has {value!r} twice")
    return listed


def parse_grid(rate: str | None, grid: str | None) -> dict[str, tuple[Any, ...]]:
    """The flags that are swept, and their values.

    Args:
      rate: the text of --rate, such as "0.1,0.3"; None for each scheme's default.
      grid: the text of --grid, such as "batch_size=32,128;learning_rate=1e-3,3e-3".

    Raises:
      LaunchError: a flag that there is not or that cannot be swept, or a value it does not take.
    """
    swept: dict[str, tuple[Any, ...]] = {}
    if rate is not None:
        swept["rate"] = _typed("rate", values(rate, "rate"))
    with launching():
        parts = [] if grid is None else literals.split(grid, ";")
    allowed = [name for name, declared in DECLARED.items() if declared.sweep == "--grid"]
    for part in parts:
        flag, equals, text = (word.strip() for word in part.partition("="))
        if not equals or flag not in allowed:
            raise LaunchError(f"--grid: {part!r} {_why_not(flag)}{', '.join(allowed)}")
        if flag in swept:
            raise LaunchError(f"--grid names {flag} twice")
        swept[flag] = _typed(flag, values(text, f"grid: {flag}"))
    return swept


def _why_not(flag: str) -> str:
    """What is wrong with what --grid says of a flag; what follows are those that it takes."""
    sweep = DECLARED[flag].sweep if flag in DECLARED else "--grid"
    if not sweep:
        return f"cannot be swept: schemes are compared with one {flag}; what can be: "
    if sweep != "--grid":
        return f"has a list of its own, {sweep}; what can be swept here: "
    return "is not flag=value,value with one of "


def _typed(flag: str, texts: Sequence[str]) -> tuple[Any, ...]:
    kind, parser = training.type_of(flag), DECLARED[flag].parser
    noun = {int: "integers", float: "numbers"}.get(kind, "texts") if parser is None else "values"
    name = flag if flag == "rate" else f"grid: {flag}"
    try:
        typed = tuple(map(kind if parser is None else parser.parse, texts))
    except ValueError as error:
        raise LaunchError(f"--{name} must be {noun}, got {', '.join(texts)}") from error
    if len(set(typed)) < len(typed):
        raise LaunchError(f"--{name} has a value twice: {', '.join(texts)}")
    return typed


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """A cell, and what it takes to run it."""

    cell: Cell
    resolved: Resolved


def plan_cells(grid: Grid, reader: "Reader") -> list[Planned]:
    """The cells of a grid: by scheme, then setting, then seed.

    Cells of equal configuration have one id: `none` has no rate, so that it has one cell a seed for
    all rates.

    Args:
      grid: the schemes and settings that are compared.
      reader: of data.

    Raises:
      LaunchError: a cell cannot run; the message says why and what would do.
    """
    with launching():
        parsed = {text: schemes.parse(text) for text in grid.schemes}
    _check_used(grid, parsed)
    fixed = grid.fixed | {"model": _model(grid, parsed, reader)}
    planned: dict[tuple[str, str], Planned] = {}
    different: dict[tuple[str, str], Planned] = {}
    for text, scheme in parsed.items():
        meant = {flag: vary for flag, vary in grid.swept.items() if is_used(flag, text, scheme)}
        given = {k: v for k, v in fixed.items() if v is None or is_used(k, text, scheme)}
        for point in itertools.product(*meant.values()):
            own = dict(zip(meant, point, strict=True))
            setting = {flag: own.get(flag) for flag in grid.swept}
            for seed in grid.seeds:
                arguments: dict[str, Any] = given | own | {"dropout": text, "seed": seed}
                new = reader.cell(text, setting, Flags(**arguments))
                planned.setdefault((text, new.cell.id), new)
                _check_different(different.setdefault((text, _computed(new)), new), new)
                if len(planned) > MOST:
                    raise LaunchError(f"the grid has more than {MOST:,} cells")
    return list(planned.values())


class Reader:
    """Makes cells of flags; reads each data set, and takes its fingerprint, once.

    Args:
      experiment: which.
      say: is told what was chosen for the user, each line once.
    """

    def __init__(self, experiment: Experiment, say: Callable[[str], None]) -> None:
        self.experiment = experiment
        self._say, self._said = say, set[str]()
        self._load = read_once(experiment, self.say)
        self._hashes: dict[Any, str] = {}
        self._reasons: dict[str, list[str]] = {}

    def say(self, line: str) -> None:
        """Says a line, unless it was said before."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def resolve(self, flags: Flags) -> Resolved:
        """As `setup.resolve`."""
        return resolve(self.experiment, flags, self.say, self._load)

    def cell(self, scheme: str, setting: dict[str, Any], flags: Flags) -> Planned:
        """One cell.

        Args:
          scheme: the entry of --dropout that it belongs to.
          setting: its values of the flags that are swept.
          flags: its own.

        Raises:
          LaunchError: it cannot run.
        """
        resolved = self.resolve(flags)
        config, experiment = resolved.config, self.experiment
        data_sha256 = self.sha256(resolved)
        decides = training.in_id(config, experiment.defaults_for(resolved.whole))
        if config.dataset.endswith(".npz"):  # wherever it lies
            decides["dataset"] = Path(config.dataset).name
        hashed = {
            "experiment": experiment.name,
            "flags": decides,
            "data_sha256": data_sha256,
            "mask_stream": dropjax.STREAM,
            "x64": bool(jax_setting("jax_enable_x64")),
        } | sources(resolved.network)
        digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
        whole = vars(config) | {"data_sha256": data_sha256}
        command = command_of(vars(config), experiment)
        return Planned(Cell(digest[:12], scheme, setting, config.seed, whole, command), resolved)

    def with_seed(self, planned: Planned, seed: int) -> Planned:
        """The same with another seed."""
        flags = planned.resolved.config.as_flags(seed=seed)
        return self.cell(planned.cell.scheme, planned.cell.setting, flags)

    def sha256(self, resolved: Resolved) -> str:
        """The fingerprint of the data that a cell is trained and measured on."""
        config = resolved.config
        subset = None if config.train_examples is None else (config.train_examples, config.seed)
        key = (config.dataset, config.validation, config.test, config.task, subset)
        if key not in self._hashes:
            self._hashes[key] = resolved.dataset.sha256()
        return self._hashes[key]

    def changes(self, version: str | None, cell: Cell) -> list[str]:
        """Why a cell would have other numbers than an older version gave; see `changes.reasons`.

        Args:
          version: of dropjax, which ran the cell.
          cell: as it would run now.
        """
        if not changes.is_older(version):
            return []
        # Which examples are drawn, and what is random, changes nothing here.
        key = json.dumps(cell.config | {"seed": 0, "version": version}, sort_keys=True)
        if key not in self._reasons:
            case = changes.Case.of(self.resolve(training.flags_of(cell.config)))
            self._reasons[key] = changes.reasons(version, case)
        return self._reasons[key]


def _computed(planned: Planned) -> str:
    """What a cell computes, as a text that is the same for settings that mean the same.

    A batch of more than all examples is one of all of them, and 1.0 is 1.
    """
    config, examples = planned.cell.config, len(planned.resolved.dataset.y_train)
    meant = {name: training.means(name, config[name]) for name in DECLARED}
    meant["batch_size"] = min(config["batch_size"], examples)
    return json.dumps(meant, sort_keys=True, default=repr)


def _check_different(first: Planned, second: Planned) -> None:
    """Refuses a setting that computes what another one of its scheme does."""
    a, b = first.cell.setting, second.cell.setting
    pairs = [f"{flag}={a[flag]} and {b[flag]}" for flag in a if a[flag] != b[flag]]
    if not pairs:
        return
    examples = len(first.resolved.dataset.y_train)
    why = (
        f": one full batch of {examples} examples"
        if a.get("batch_size") != b.get("batch_size")
        else ""
    )
    raise LaunchError(f"--grid: {', '.join(pairs)} are the same{why}; leave one out")


def _check_used(grid: Grid, parsed: dict[str, Scheme]) -> None:
    """Refuses a flag that means something for none of the schemes."""
    given = {k for k, v in grid.fixed.items() if v is not None and v != getattr(Flags, k)}
    if grid.fixed.get("mc_samples") == 0:  # for a scheme without noise that is nothing new
        given.discard("mc_samples")
    for flag in sorted({*grid.swept, *given}):
        if flag in grid.swept and flag in given:
            raise LaunchError(f"--{flag} is swept by --grid; leave it out")
        if not any(is_used(flag, text, scheme) for text, scheme in parsed.items()):
            raise LaunchError(f"{flag} would do nothing for any of {', '.join(parsed)}")


def _model(grid: Grid, parsed: dict[str, Scheme], reader: Reader) -> str:
    """The one model of all cells."""
    given = grid.fixed.get("model", "auto")
    if given != "auto":
        return given
    with launching():
        acting = [text for text, scheme in parsed.items() if _acts(scheme)]
        wants = {text: grid.experiment.model_for(parsed[text]) for text in acting}
    made_for = sorted(set(wants.values()))
    if len(made_for) > 1:
        data = {name: grid.fixed.get(name) for name in ("dataset", "data_dir", "task")}
        data = {name: value for name, value in data.items() if value is not None}
        shared = [
            model
            for model in grid.experiment.models
            if all(_meets(reader, Flags(dropout=text, model=model, **data)) for text in acting)
        ]
        raise LaunchError(
            "model=auto would be "
            + ", ".join(f"{model} for {text}" for text, model in wants.items())
            + ", and different networks would be compared. Set --model: they all act on "
            + (", ".join(shared) or "none of " + ", ".join(grid.experiment.models))
        )
    model = made_for[0] if made_for else grid.experiment.made_for.get("", "mlp")
    reader.say(f"model=auto: {model}, for all cells")
    return model


def _acts(scheme: Scheme) -> bool:
    return any(link.acts_on | link.can_act_on for link in scheme.links)


def _meets(reader: Reader, flags: Flags) -> bool:
    """Whether a scheme meets a site of a model, on the data of the grid."""
    try:
        resolved = reader.resolve(flags)
        _, _, sites = resolved.traced()
        plan.check(resolved.network.scheme, sites)
    except (LaunchError, ValueError, TypeError):
        return False
    return True
