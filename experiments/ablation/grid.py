"""From the flags of an ablation to its cells. All that can be wrong with them is found here."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import dropjax
from dropjax import data, models, schemes
from dropjax.core import literals, plan
from dropjax.core.scheme import Scheme, rate_fields
from dropjax.core.spec import lacks_rate
from experiments import changes
from experiments.ablation.cells import Cell
from experiments.folder import command_of
from experiments.setup import (
    Flags,
    LaunchError,
    Resolved,
    jax_setting,
    launching,
    model_for,
    resolve,
    sources,
)

MOST = 100_000
"""Cells of one ablation."""

# What is compared must be compared on one data set, one split and one network.
_NOT_SWEPT = (
    *("dropout", "rate", "seed", "model"),
    *("dataset", "data_dir", "task", "validation", "test"),
)

# What the id of a cell is made of. Its values go into it whatever they are; a flag that was added
# later is left out while it has its default, so that the cells of an older version keep their ids.
_FIRST_FLAGS = (
    *("dropout", "rate", "model", "dataset", "data_dir", "task", "validation", "train_examples"),
    *("seed", "epochs", "batch_size", "optimizer", "learning_rate", "strength", "penalty"),
    "mc_samples",
)


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is compared.

    Args:
      experiment: its name, for the commands.
      schemes: entries of --dropout.
      swept: the values of each flag that is swept, by its name; "rate" is one of them.
      seeds: of each setting.
      fixed: the other flags that were given.
    """

    experiment: str
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
        found = tuple(literals.split(text, ","))
    if "" in found:
        where = " between its commas" if "," in text else ""
        raise LaunchError(f"--{flag}={text!r} has an empty value{where}")
    for value in found:
        if found.count(value) > 1:
            raise LaunchError(f"--{flag} has {value!r} twice")
    return found


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
    allowed = [field for field in Flags.__dataclass_fields__ if field not in _NOT_SWEPT]
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
    own = {"dropout": "--dropout", "rate": "--rate", "seed": "--seeds"}
    if flag in own:
        return f"has a list of its own, {own[flag]}; what can be swept here: "
    if flag in _NOT_SWEPT:
        return f"cannot be swept: schemes are compared with one {flag}; what can be: "
    return "is not flag=value,value with one of "


def _typed(flag: str, texts: Sequence[str]) -> tuple[Any, ...]:
    hint = typing.get_type_hints(Flags)[flag]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not types.NoneType)
    noun = {int: "integers", float: "numbers"}.get(kind, "texts")
    name = flag if flag == "rate" else f"grid: {flag}"
    try:
        found = tuple(kind(text) for text in texts)
    except ValueError as error:
        raise LaunchError(f"--{name} must be {noun}, got {', '.join(texts)}") from error
    if len(set(found)) < len(found):
        raise LaunchError(f"--{name} has a value twice: {', '.join(texts)}")
    return found


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
      grid: what is compared.
      reader: of data.

    Raises:
      LaunchError: a cell cannot run; the message says why and what would do.
    """
    with launching():
        parsed = {text: schemes.parse(text) for text in grid.schemes}
    _check_used(grid, parsed)
    fixed = grid.fixed | {"model": _model(grid, parsed, reader.say)}
    planner = Planner(grid.experiment, reader)
    planned: dict[tuple[str, str], Planned] = {}
    different: dict[tuple[str, str], Planned] = {}
    for text, scheme in parsed.items():
        meant = {flag: of for flag, of in grid.swept.items() if _means(flag, text, scheme)}
        given = {k: v for k, v in fixed.items() if v is None or _means(k, text, scheme)}
        for point in itertools.product(*meant.values()):
            own = dict(zip(meant, point, strict=True))
            setting = {flag: own.get(flag) for flag in grid.swept}
            for seed in grid.seeds:
                arguments: dict[str, Any] = given | own | {"dropout": text, "seed": seed}
                one = planner.cell(text, setting, Flags(**arguments))
                planned.setdefault((text, one.cell.id), one)
                _check_different(different.setdefault((text, _computed(one)), one), one)
                if len(planned) > MOST:
                    raise LaunchError(f"the grid has more than {MOST:,} cells")
    return list(planned.values())


class Reader:
    """Resolves flags; reads each data set, and takes its fingerprint, once.

    Args:
      say: is told what was chosen for the user, each line once.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, set[str]()
        self._load = functools.cache(functools.partial(data.load, say=self.say))
        self._hashes: dict[Any, str] = {}
        self._reasons: dict[str, list[str]] = {}

    def say(self, line: str) -> None:
        """Says a line, unless it was said before."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def resolve(self, flags: Flags) -> Resolved:
        """As `setup.resolve`."""
        return resolve(flags, self.say, self._read)

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
        config = cell.config | {"rate": None}  # the scheme's text has it
        fields: dict[str, Any] = {name: config[name] for name in Flags.__dataclass_fields__}
        # Which examples are drawn, and what is random, changes nothing here.
        key = json.dumps(fields | {"seed": 0, "version": version}, sort_keys=True)
        if key not in self._reasons:
            case = changes.Case.of(self.resolve(Flags(**fields)))
            self._reasons[key] = changes.reasons(version, case)
        return self._reasons[key]

    def _read(self, name: str, folder: Path | None, *, say: Any, task: str) -> data.Dataset:
        del say
        return self._load(name, folder, task=task)


class Planner:
    """Makes cells of flags.

    Args:
      experiment: its name.
      reader: of data.
    """

    def __init__(self, experiment: str, reader: Reader) -> None:
        self.experiment, self.reader = experiment, reader

    def cell(self, scheme: str, setting: dict[str, Any], flags: Flags) -> Planned:
        """One cell.

        Args:
          scheme: the entry of --dropout that it belongs to.
          setting: its values of the flags that are swept.
          flags: its own.

        Raises:
          LaunchError: it cannot run.
        """
        resolved = self.reader.resolve(flags)
        config = dataclasses.asdict(resolved.config)
        decides = {
            "experiment": self.experiment,
            "flags": _deciding(resolved),
            "data_sha256": self.reader.sha256(resolved),
            "mask_stream": dropjax.STREAM,
            "x64": bool(jax_setting("jax_enable_x64")),
        } | sources(resolved.network)
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        command = command_of(config, self.experiment)
        config["data_sha256"] = decides["data_sha256"]
        cell = Cell(digest[:12], scheme, setting, resolved.config.seed, config, command)
        return Planned(cell, resolved)

    def with_seed(self, planned: Planned, seed: int) -> Planned:
        """The same with another seed."""
        # The scheme's text has its rate.
        config = dataclasses.asdict(planned.resolved.config) | {"rate": None, "seed": seed}
        arguments: dict[str, Any] = config
        return self.cell(planned.cell.scheme, planned.cell.setting, Flags(**arguments))


def _deciding(resolved: Resolved) -> dict[str, Any]:
    """The flags as they go into an id. Where the data lies does not matter; what they are does."""
    config, defaults = dataclasses.asdict(resolved.config), dataclasses.asdict(Flags())
    found = {
        name: value
        for name, value in config.items()
        if name in _FIRST_FLAGS or value != defaults.get(name)
    }
    del found["data_dir"]
    if config["dataset"].endswith(".npz"):
        found["dataset"] = Path(config["dataset"]).name
    return found


def _computed(one: Planned) -> str:
    """What a cell computes: a text that is the same for settings that are the same by another name.

    A batch of more than all examples is one of all of them, and 1.0 is 1.
    """
    config, examples = dict(one.cell.config), len(one.resolved.dataset.y_train)
    config["batch_size"] = min(config["batch_size"], examples)
    name, arguments = literals.parse_call(config["optimizer"])
    config["optimizer"] = [name, arguments]
    for flag in ("strength", "penalty"):
        with contextlib.suppress(ValueError):
            config[flag] = float(config[flag])
    return json.dumps(config, sort_keys=True, default=repr)


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


def _means(flag: str, text: str, scheme: Scheme) -> bool:
    """Whether a flag does something for a scheme; if not, `resolve` would refuse it."""
    if flag == "rate":
        return lacks_rate(text)
    if flag == "strength":
        return any(rate_fields(type(link)) for link in scheme.links)
    if flag == "penalty":
        return scheme.penalises
    return flag != "mc_samples" or scheme.is_random_in_evaluation()


def _check_used(grid: Grid, parsed: dict[str, Scheme]) -> None:
    """Refuses a flag that means something for none of the schemes."""
    defaults = Flags()
    given = {k for k, v in grid.fixed.items() if v is not None and v != getattr(defaults, k)}
    if grid.fixed.get("mc_samples") == 0:  # for a scheme without noise that is nothing new
        given.discard("mc_samples")
    for flag in sorted({*grid.swept, *given}):
        if flag in grid.swept and flag in given:
            raise LaunchError(f"--{flag} is swept by --grid; leave it out")
        if not any(_means(flag, text, scheme) for text, scheme in parsed.items()):
            raise LaunchError(f"{flag} would do nothing for any of {', '.join(parsed)}")


def _model(grid: Grid, parsed: dict[str, Scheme], say: Callable[[str], None]) -> str:
    """The one model of all cells."""
    given = grid.fixed.get("model", "auto")
    if given != "auto":
        return given
    with launching():
        acting = {text: scheme for text, scheme in parsed.items() if _acts(scheme)}
        wants = {text: model_for(scheme) for text, scheme in acting.items()}
    made_for = sorted(set(wants.values()))
    if len(made_for) > 1:
        shared = [name for name in models.names() if _all_act(name, acting.values())]
        raise LaunchError(
            "model=auto would be "
            + ", ".join(f"{model} for {text}" for text, model in wants.items())
            + ", and different networks would be compared. Set --model: they all act on "
            + (", ".join(shared) or "none of " + ", ".join(models.names()))
        )
    model = made_for[0] if made_for else "mlp"
    say(f"model=auto: {model}, for all cells")
    return model


def _acts(scheme: Scheme) -> bool:
    return any(link.acts_on | link.can_act_on for link in scheme.links)


def _all_act(name: str, all_schemes: Any) -> bool:
    """Whether each of some schemes has a site on a model of images, with its defaults."""
    from dropjax.core.draw import CLEAN

    model = models.parse(name, outputs=10)
    x = jnp.zeros((28, 28, 1))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, CLEAN))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
    sites = plan.record(lambda draw: model.apply(variables, x, draw))
    for scheme in all_schemes:
        try:
            plan.check(scheme, sites)
        except ValueError:
            return False
    return True
