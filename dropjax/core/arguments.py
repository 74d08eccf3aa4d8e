"""The arguments that schemes and models take in text form: types, defaults, meanings.

The meanings are those of the classes' docstrings, where they are written once: the sections "Args:"
and "Attributes:" of a class, or else of a class that it derives from.
"""

import dataclasses
import inspect
import itertools
import re
import textwrap
from typing import Any

from dropjax.core import literals
from dropjax.core.registry import Registry
from dropjax.core.text import aligned

_SECTION = re.compile(r"^(?:Args|Attributes):\n((?:(?:  .*)?\n)+)", re.M)
_ENTRY = re.compile(r"^  (\w+(?:, \w+)*): (.*\n(?:    .*\n)*)", re.M)
_WIDTHS = (24, 50)
"""Of a type and of a meaning in `text`, in letters."""


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of a class.

    Args:
      name: the argument's.
      type: what is allowed, in words.
      default: as it is written in a text; "" if the argument must be given.
      meaning: from the docstring; "" if it does not say.
    """

    name: str
    type: str
    default: str
    meaning: str


_NONE = Argument("-", "-", "-", "takes no argument")


def meanings(described: Any) -> dict[str, str]:
    """The meanings of arguments in the docstring of a function, or of a class and its bases."""
    found: dict[str, str] = {}
    for base in getattr(described, "__mro__", (described,)):
        text = inspect.cleandoc(base.__doc__ or "") + "\n"
        for section in _SECTION.finditer(text):
            for names, meaning in _ENTRY.findall(section[1]):
                for name in names.split(", "):
                    found.setdefault(name, " ".join(meaning.split()))
    return found


def arguments(registry: Registry[Any], cls: type) -> list[Argument]:
    """The arguments that a text may give to a class of a registry, in their order."""
    said = meanings(cls)
    return [
        Argument(
            name,
            literals.describe(field.type),
            "" if field.default is dataclasses.MISSING else literals.format_value(field.default),
            said.get(name, ""),
        )
        for name, field in registry.fields(cls).items()
    ]


def groups(registry: Registry[Any]) -> list[tuple[str, list[Argument]]]:
    """The arguments of all classes of a registry, by name; first those that all of them share."""
    shared = list(registry.fields(registry.base))
    listed = [(f"any {registry.noun}", arguments(registry, registry.base))] if shared else []
    for name in registry.names():
        own = arguments(registry, registry.find(name))
        listed.append((name, [argument for argument in own if argument.name not in shared]))
    return listed


def text(registry: Registry[Any]) -> str:
    """The arguments of all classes of a registry as aligned text, for a terminal."""
    rows: list[tuple[str, ...]] = [(registry.noun, "argument", "default", "type", "meaning")]
    for name, group in groups(registry):
        for argument in group or [_NONE]:
            kind, meaning = (
                textwrap.wrap(words, width)
                for words, width in ((argument.type, _WIDTHS[0]), (argument.meaning, _WIDTHS[1]))
            )
            columns = ([name], [argument.name], [argument.default], kind, meaning)
            rows += itertools.zip_longest(*columns, fillvalue="")
            name = ""
    return "\n".join(aligned(rows))


def markdown(registry: Registry[Any]) -> list[str]:
    """The lines of a table of the arguments of all classes of a registry, in Markdown."""
    lines = [f"| {registry.noun} | argument | default | type | meaning |", "|---|---|---|---|---|"]
    for name, group in groups(registry):
        name = name if " " in name else f"`{name}`"
        for argument in group or [_NONE]:
            values = (f"`{value}`" if value else "-" for value in (argument.name, argument.default))
            cells = (name, *values, argument.type, argument.meaning)
            lines.append(f"| {' | '.join(cells)} |".replace("`-`", "-"))
    return lines
