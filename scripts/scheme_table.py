"""Writes dropjax/schemes/README.md and dropjax/models/README.md, the lists of both, from the code.

python -m scripts.scheme_table
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("scheme_table")

import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from absl import app

import dropjax
from dropjax.core import arguments
from dropjax.core.keys import Keys
from dropjax.core.plan import no_weights
from dropjax.core.scheme import SCHEMES, Learned, Scheme, rate_fields
from dropjax.core.site import KINDS, Kind, Site
from dropjax.models import MODELS, layers
from dropjax.ops.lazy import Lazy, is_lazy

_DROPJAX = Path(__file__).resolve().parent.parent / "dropjax"
_SIZE = 12


def _axes(kind: Kind) -> tuple[str, ...]:
    """The axes of a value of that kind, in a sequence if they do not say more."""
    axes = KINDS[kind].axes
    return axes if len(axes) > 1 else ("time", *axes)


def _kinds(kinds: frozenset) -> str:
    return ", ".join(sorted(kind.name for kind in kinds)) or "-"


def _functions(module: ModuleType, package: ModuleType, name: str) -> list[str]:
    """The functions that a module defines and a package of that name makes public."""
    public = getattr(package, "__all__", [f for f in vars(package) if not f.startswith("_")])
    return [
        f"`{name}.{f}`"
        for f in public
        if inspect.isfunction(value := getattr(package, f)) and inspect.getmodule(value) is module
    ]


def _made_for(cls: type[Scheme]) -> str:
    models = {KINDS[kind].models for kind in cls.acts_on}
    found_in = ", ".join(sorted(models)) if all(models) else ""
    return cls.made_for or found_in or "any"


def _shares(scheme: Scheme) -> str:
    """Along which axes the noise of a bare name is shared, found by drawing it."""
    if not scheme.acts_on:
        return "-"
    if type(scheme).sample is Scheme.sample:
        return "nothing: what a dense layer returns is drawn"
    kinds = scheme.acts_on
    if scheme.made_for == "rnn":  # as there, where images are sequences of rows
        kinds = kinds - {Kind.INPUT, Kind.FEATURE_MAP}
    # The more axes there are, the more of them noise can be shared along.
    kind = max((kind for kind in KINDS if kind in kinds), key=lambda kind: len(_axes(kind)))
    site = Site("site", kind, _axes(kind), depth=1.0)
    shape = (_SIZE,) * len(site.axes)
    sites = {"site": (site, shape)}
    if isinstance(scheme, Learned):
        learned = scheme.init_learned(jax.random.key(0), sites, no_weights(sites))
        scheme = scheme.bind(learned)

    def noise(example: int) -> list[np.ndarray]:
        drawn = scheme.sample(Keys.of(jax.random.key(0), example), site, shape)
        leaves = jax.tree.leaves(drawn, is_leaf=is_lazy)
        return [np.asarray(n.drawn() if isinstance(n, Lazy) else n) for n in leaves]

    first, others = noise(0), [noise(i) for i in range(1, 9)]
    sizes = scheme.noise_shape(site, shape)
    axes = [] if scheme.resizes else list(zip(site.axes, sizes, strict=True))
    shared = [axis for axis, size in axes if size == 1]
    if all(np.array_equal(a, b) for o in others for a, b in zip(first, o, strict=True)):
        shared.append("the batch")
    return ", ".join(shared) or "nothing"


def _learns(cls: type[Scheme]) -> str:
    if not issubclass(cls, Learned):
        return "-"
    return "yes" if cls.penalty_at is not Learned.penalty_at else "keeps the first weights"


def _scheduled(cls: type[Scheme]) -> str:
    return ", ".join(rate_fields(cls)) or "-"


def _summary(module: ModuleType) -> str:
    return (module.__doc__ or "").split("\n\n")[0].rstrip(".")


def _notes(module: ModuleType) -> str:
    parts = (module.__doc__ or "").split("\n\n")
    starts = ("Source: ", "Differs: ")
    return " ".join(re.sub(r"\s+", " ", p).strip() for p in parts if p.startswith(starts))


def _modules(package: ModuleType) -> list[ModuleType]:
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def table() -> str:
    """The page's text."""
    lines = [
        "# Schemes",
        "",
        "`python -m scripts.scheme_table` writes this page from the code, and a test compares the",
        "two. A scheme acts on the [kinds of sites](#kinds-of-sites) in the second column; with",
        "`at=REGEX` also on those in the third. Each element of each example has noise of its own,",
        "unless the fourth column names axes along which one number is shared; options such as",
        "`mode` change that. `--strength` multiplies the fields in the fifth. `--model=auto` takes",
        "the model that the scheme was made for.",
        "",
        "| `--dropout=` | acts on | by name also on | noise shared along | scheduled | learns "
        "| function | made for | what it is |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    schemes = {name: SCHEMES.find(name) for name in SCHEMES.names()}
    for cls in schemes.values():
        module = importlib.import_module(cls.__module__)
        names = _functions(module, dropjax, "dropjax")
        names += _functions(module, dropjax.blocks, "dropjax.blocks")
        functions = ", ".join(names) or "-"
        lines.append(
            f"| `{cls()}` | {_kinds(cls.acts_on)} | {_kinds(cls.can_act_on)} | {_shares(cls())} "
            f"| {_scheduled(cls)} | {_learns(cls)} | {functions} | {_made_for(cls)} "
            f"| {_summary(module)} |"
        )
    lines += [
        "",
        "## Arguments",
        "",
        "As in `--dropout='dropblock(rate=0.1,block_size=5)'`. `--dropout=help` prints them too.",
        "",
        *arguments.markdown(SCHEMES),
        "",
        "## What is no scheme",
        "",
        "Functions that no flag stands for: they change sizes, take parts of a network, or are",
        "losses or inference.",
        "",
        "| function | what it is |",
        "|---|---|",
    ]
    rows = [(m, _functions(m, dropjax, "dropjax")) for m in _modules(dropjax.functions)]
    rows += [(m, _functions(m, dropjax.blocks, "dropjax.blocks")) for m in _modules(dropjax.blocks)]
    for name in ("train.losses", "train.schedules", "evaluate.moments"):
        module = importlib.import_module(f"dropjax.{name}")
        rows.append((module, _functions(module, module, f"dropjax.{name}")))
    # As a name this is the function, not its module.
    module = importlib.import_module("dropjax.evaluate.weight_scaling")
    rows.append((module, _functions(module, dropjax.evaluate, "dropjax.evaluate")))
    lines += [f"| {', '.join(functions)} | {_summary(m)} |" for m, functions in rows if functions]
    lines += [
        "",
        "## Kinds of sites",
        "",
        "A model says of each of its sites, by a `dropjax.Kind`, what stands there. `Drop` acts",
        "where a scheme needs the value alone.",
        "",
        "| kind | what stands there | its axes, for example | a scheme needs |",
        "|---|---|---|---|",
    ]
    for kind, facts in KINDS.items():
        needs = facts.needs.partition(";")[0] or "the value"
        lines.append(f"| {kind.name} | {facts.what} | {', '.join(facts.axes)} | {needs} |")
    lines += ["", "## Sources", ""]
    lines += [
        f"- **{n}.** {_notes(importlib.import_module(c.__module__))}" for n, c in schemes.items()
    ]
    lines += [
        f"- {', '.join(functions)}. {_notes(m)}" for m, functions in rows if functions and _notes(m)
    ]
    return "\n".join(lines) + "\n"


def models_page() -> str:
    """The text of the page on models."""
    modules = {
        name: importlib.import_module(MODELS.find(name).__module__) for name in MODELS.names()
    }
    lines = [
        "# Models",
        "",
        "Made by `python -m scripts.scheme_table`; a test holds it to the code. A model is a Flax",
        "module that takes one example and a draw, and names its sites.",
        "",
        "| `--model=` | what it is |",
        "|---|---|",
        *(f"| `{name}` | {_summary(module)} |" for name, module in modules.items()),
        "",
        "## Arguments",
        "",
        "As in `--model='mlp(widths=(800,800))'`. `--model=help` prints them too.",
        "",
        *arguments.markdown(MODELS),
        "",
        "## Sites",
        "",
        "The names by which a scheme's `at` finds them.",
        "",
        *(f"- **{name}.** {text}" for name, text in _sites(modules).items()),
    ]
    return "\n".join(lines) + "\n"


def _sites(modules: Mapping[str, ModuleType]) -> dict[str, str]:
    """What the docstrings of models, and of the layers that they share, say of their sites."""
    owners = dict(modules) | {f"layers.{n}": c for n, c in vars(layers).items() if _is_layer(c)}
    texts = {}
    for name, owner in owners.items():
        for part in inspect.cleandoc(owner.__doc__ or "").split("\n\n"):
            if part.startswith("Sites: "):
                text = " ".join(part.removeprefix("Sites: ").split())
                texts[name] = re.sub(r'(?<!=)"(\S+)"', r"`\1`", text)
    return texts


def _is_layer(value: Any) -> bool:
    return inspect.isclass(value) and value.__module__ == layers.__name__


PAGES = {_DROPJAX / "schemes" / "README.md": table, _DROPJAX / "models" / "README.md": models_page}
"""The files, and what makes their text."""


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    for path, text in PAGES.items():
        path.write_text(text())
        print(f"wrote {path.relative_to(_DROPJAX.parent)}")


if __name__ == "__main__":
    program.launch("scheme_table", main)
