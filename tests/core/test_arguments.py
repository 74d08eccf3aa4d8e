"""The lists of arguments: complete, and from the docstrings."""

import dataclasses
from typing import ClassVar, Literal

import pytest

from dropjax import Kind, schemes
from dropjax.core import arguments
from dropjax.core.scheme import SCHEMES
from dropjax.core.spec import build
from dropjax.models import MODELS

NAMED = [
    pytest.param(registry, name, id=name)
    for registry in (SCHEMES, MODELS)
    for name in registry.names()
]


@pytest.mark.parametrize("registry, name", NAMED)
def test_every_argument_has_a_meaning_and_its_default_gives_the_same(registry, name):
    cls = registry.find(name)
    listed = arguments.arguments(registry, cls)
    without = [argument.name for argument in listed if not argument.meaning]
    assert not without, f"{name}: the docstring of {cls.__name__} says nothing of {without}"
    given = {"outputs": 3} if registry is MODELS else {}
    text = ",".join(f"{argument.name}={argument.default}" for argument in listed)
    assert build(registry, f"{name}({text})", **given) == build(registry, name, **given)


class Base:
    """What others derive from.

    Args:
      rate: of the base.
      size, depth: in metres,
        both of them.

    More text.

    Returns:
      rate: no argument.
    """


@dataclasses.dataclass
class Derived(Base):
    """Derives.

    Attributes:
      rate: of its own: 1 or 2
    """

    rate: int = 1


class Silent(Derived):
    pass


def test_meanings_are_those_of_the_nearest_docstring():
    both = "in metres, both of them."
    assert arguments.meanings(Base) == {"rate": "of the base.", "size": both, "depth": both}
    assert arguments.meanings(Silent) == {"rate": "of its own: 1 or 2", "size": both, "depth": both}


@pytest.fixture
def own(monkeypatch):
    """A scheme of one's own, with an argument that has no default and one that is not explained."""
    monkeypatch.setattr(SCHEMES, "_added", {})

    @schemes.scheme
    class Own(schemes.Scheme):
        rate: schemes.Rate
        how: Literal["up", "down"] = "up"

        acts_on: ClassVar = frozenset({Kind.HIDDEN})

    schemes.register("own", Own)


def test_a_scheme_of_ones_own_is_listed_too(own):
    assert dict(arguments.groups(SCHEMES))["own"] == [
        arguments.Argument("rate", "a number", "", arguments.meanings(schemes.Scheme)["rate"]),
        arguments.Argument("how", "one of 'up', 'down'", '"up"', ""),
    ]
    assert "| `own` | `how` | `\"up\"` | one of 'up', 'down' |  |" in arguments.markdown(SCHEMES)


def test_the_text_has_a_line_for_each_argument_and_wraps_long_meanings():
    lines = arguments.text(MODELS).splitlines()
    assert lines[0].split() == ["model", "argument", "default", "type", "meaning"]
    assert max(map(len, lines)) < 130
    (row,) = [line for line in lines if line.startswith("mlp ")]
    assert row.split()[1:3] == ["widths", "(512,256)"]
    assert "none" in arguments.text(SCHEMES) and "takes no argument" in arguments.text(SCHEMES)
    assert arguments.text(SCHEMES).count("  at  ") == 1  # of all schemes


def test_a_wrong_argument_is_told_where_the_list_is():
    with pytest.raises(ValueError, match=r"it takes channels, .*; --model=help says what they are"):
        build(MODELS, "cnn(foo=1)", outputs=3)
    with pytest.raises(ValueError, match=r"it takes none$"):
        build(SCHEMES, "none(rate=0.5)")
