"""Writes dropjax/REFERENCE.md, the tables of schemes, models and functions, from the code.

python -m scripts.reference
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("reference")

import importlib
import inspect
import pkgutil
import re
import textwrap
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

PAGE = Path(__file__).resolve().parent.parent / "dropjax" / "REFERENCE.md"
_SIZE = 12

# The sections of the page, and what is said before each table.
_SECTIONS = {
    "Schemes": "A scheme acts on the [kinds of sites](#kinds-of-sites) in the second column; with "
    "`at=REGEX` also on those in the third. Each element of each example has noise of its own, "
    "unless the fourth column names axes along which one number is shared; options such as `mode` "
    "change that. `--strength` multiplies the fields in the fifth. `--model=auto` takes the model "
    "that the scheme was made for.",
    "Arguments of schemes": "As in `--dropout='dropblock(rate=0.1,block_size=5)'`. "
    "`--dropout=help` prints them too.",
    "Kinds of sites": "A model says of each of its sites, by a `dropjax.Kind`, what stands there. "
    "`Drop` acts where a scheme needs the value alone.",
    "Models": "A model is a Flax module that takes one example and a draw, and names its sites.",
    "Arguments of models": "As in `--model='mlp(widths=(800,800))'`. `--model=help` prints them "
    "too.",
    "Sites of models": "The names by which a scheme's `at` finds them.",
    "Functions without a flag": "They change sizes, take parts of a network, or are losses or "
    "inference.",
    "Sources": "",
}


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


def text() -> str:
    """The text of the page."""
    schemes = {name: SCHEMES.find(name) for name in SCHEMES.names()}
    models = {n: importlib.import_module(MODELS.find(n).__module__) for n in MODELS.names()}
    functions = _functions_without_a_flag()
    lines = [
        "# Reference",
        "",
        "`python -m scripts.reference` writes this page from the code; a test compares the two.",
        "",
        *("- [" + title + "](#" + title.lower().replace(" ", "-") + ")" for title in _SECTIONS),
        "",
    ]
    parts = (
        _schemes(schemes),
        arguments.markdown(SCHEMES),
        _kinds_table(),
        [
            "| `--model=` | what it is |",
            "|---|---|",
            *(f"| `{name}` | {_summary(module)} |" for name, module in models.items()),
        ],
        arguments.markdown(MODELS),
        [f"- **{name}.** {text}" for name, text in _sites(models).items()],
        [
            "| function | what it is |",
            "|---|---|",
            *(f"| {', '.join(names)} | {_summary(m)} |" for m, names in functions),
        ],
        [
            *(
                f"- **{n}.** {_notes(importlib.import_module(c.__module__))}"
                for n, c in schemes.items()
            ),
            *(f"- {', '.join(names)}. {_notes(m)}" for m, names in functions if _notes(m)),
        ],
    )
    for (title, about), part in zip(_SECTIONS.items(), parts, strict=True):
        lines += [
            f"## {title}",
            "",
            *([*textwrap.wrap(about, 100), ""] if about else []),
            *part,
            "",
        ]
    return "\n".join(lines[:-1]) + "\n"


def _schemes(schemes: Mapping[str, type[Scheme]]) -> list[str]:
    lines = [
        "| `--dropout=` | acts on | by name also on | noise shared along | scheduled | learns "
        "| function | made for | what it is |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cls in schemes.values():
        module = importlib.import_module(cls.__module__)
        names = _functions(module, dropjax, "dropjax")
        names += _functions(module, dropjax.blocks, "dropjax.blocks")
        lines.append(
            f"| `{cls()}` | {_kinds(cls.acts_on)} | {_kinds(cls.can_act_on)} | {_shares(cls())} "
            f"| {_scheduled(cls)} | {_learns(cls)} | {', '.join(names) or '-'} | {_made_for(cls)} "
            f"| {_summary(module)} |"
        )
    return lines


def _functions_without_a_flag() -> list[tuple[ModuleType, list[str]]]:
    rows = [(m, _functions(m, dropjax, "dropjax")) for m in _modules(dropjax.functions)]
    rows += [(m, _functions(m, dropjax.blocks, "dropjax.blocks")) for m in _modules(dropjax.blocks)]
    for name in ("train.losses", "train.schedules", "evaluate.moments"):
        module = importlib.import_module(f"dropjax.{name}")
        rows.append((module, _functions(module, module, f"dropjax.{name}")))
    # As a name this is the function, not its module.
    module = importlib.import_module("dropjax.evaluate.weight_scaling")
    rows.append((module, _functions(module, dropjax.evaluate, "dropjax.evaluate")))
    return [(module, names) for module, names in rows if names]


def _kinds_table() -> list[str]:
    lines = [
        "| kind | what stands there | its axes, for example | a scheme needs |",
        "|---|---|---|---|",
    ]
    for kind, facts in KINDS.items():
        needs = facts.needs.partition(";")[0] or "the value"
        lines.append(f"| {kind.name} | {facts.what} | {', '.join(facts.axes)} | {needs} |")
    return lines


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


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    PAGE.write_text(text())
    print(f"wrote {PAGE.relative_to(PAGE.parent.parent)}")


if __name__ == "__main__":
    program.launch("reference", main)
