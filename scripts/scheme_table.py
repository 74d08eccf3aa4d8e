"""Writes dropjax/schemes/README.md, the table of all schemes, from the code.

python -m scripts.scheme_table
"""

import importlib
import inspect
import re
from pathlib import Path

from absl import app

import dropjax
from dropjax.core.scheme import SCHEMES, Scheme
from dropjax.core.site import Kind

PATH = Path(__file__).resolve().parent.parent / "dropjax" / "schemes" / "README.md"


def _kinds(kinds: frozenset) -> str:
    return ", ".join(sorted(kind.name for kind in kinds)) or "-"


def _op(module: object) -> str:
    names = [
        name
        for name in dropjax.__all__
        if inspect.isfunction(op := getattr(dropjax, name)) and inspect.getmodule(op) is module
    ]
    return ", ".join(f"`dropjax.{name}`" for name in names) or "-"


def _made_for(cls: type[Scheme]) -> str:
    if cls.acts_on and cls.acts_on <= {Kind.TABLE, Kind.EMBED}:
        return "models of tokens (`dropjax.linen.Embed`)"
    return cls.made_for or "any"


def table() -> str:
    """The page's text."""
    lines = [
        "# Schemes",
        "",
        "Made by `python -m scripts.scheme_table`; a test holds it to the code. A bare name",
        "acts on the kinds in the second column; with `at=REGEX` also on those in the third. Model",
        "`auto` picks the one that the scheme was made for.",
        "",
        "| `--dropout=` | acts on | by name also on | function | made for | what it is |",
        "|---|---|---|---|---|---|",
    ]
    for name in SCHEMES.names():
        cls = SCHEMES.find(name)
        module = importlib.import_module(cls.__module__)
        summary = (module.__doc__ or "").split("\n\n")[0].rstrip(".")
        lines.append(
            f"| `{cls()}` | {_kinds(cls.acts_on)} | {_kinds(cls.can_act_on)} | {_op(module)} "
            f"| {_made_for(cls)} | {summary} |"
        )
    lines += ["", "## Sources", ""]
    for name in SCHEMES.names():
        module = importlib.import_module(SCHEMES.find(name).__module__)
        parts = (module.__doc__ or "").split("\n\n")
        notes = [re.sub(r"\s+", " ", p) for p in parts if p.startswith(("Source: ", "Differs: "))]
        lines.append(f"- **{name}.** {' '.join(notes)}")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    PATH.write_text(table())
    print(f"wrote {PATH.name}")


if __name__ == "__main__":
    app.run(main)
