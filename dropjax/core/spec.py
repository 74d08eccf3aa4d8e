"""From text to scheme: `bernoulli(rate=0.3)`, `variational|dropconnect(rate=0.2)`."""

import dataclasses
from typing import Any, TypeVar

import jax

from dropjax.core import literals
from dropjax.core.registry import Registry
from dropjax.core.scheme import SCHEMES, Chain, Scheme, rate_fields

T = TypeVar("T")


def build(registry: Registry[T], text: str, **given: Any) -> T:
    """The object that one call in text form describes.

    Args:
      registry: where its name is looked up.
      text: `name` or `name(field=literal, ...)`.
      **given: fields that the caller sets, and the text may not.

    Raises:
      ValueError, TypeError: unknown name or field, or a value that does not fit; the message names
        what is allowed.
    """
    name, arguments = literals.parse_call(text)
    cls: Any = registry.find(name)
    allowed = registry.fields(cls)
    for field, value in arguments.items():
        if field not in allowed:
            more = f"; {registry.flag}=help says what they are" if registry.flag and allowed else ""
            raise ValueError(
                f"{name} has no argument {field!r}; it takes {', '.join(allowed) or 'none'}{more}"
            )
        literals.check_type(value, allowed[field].type, f"{name}: {field}")
    return cls(**arguments, **given)


def parse(text: str, *, rate: float | None = None) -> Scheme:
    """The scheme that a text describes; links of a chain are joined by `|`.

    Args:
      text: for example `bernoulli(rate=0.5)|bernoulli(rate=0.2,at="input")`.
      rate: the rate of every link that has one and names none.

    Raises:
      ValueError, TypeError: the text or a value in it is wrong, or `rate` would set nothing.
    """
    links = []
    for part in literals.split(text, "|"):
        link = build(SCHEMES, part)
        if jax.tree_util.all_leaves([link]):
            raise ValueError(f"{part}: decorate the class with dropjax.schemes.scheme")
        if rate is not None and _lacks_rate(link, part):
            link = dataclasses.replace(link, rate=rate)
        links.append(link)
    if rate is not None and not lacks_rate(text):
        raise ValueError(f"rate={rate} would set nothing: no link of {text!r} lacks its `rate`")
    return links[0] if len(links) == 1 else Chain(tuple(links))


def lacks_rate(text: str) -> bool:
    """Whether there is a link that has a rate and does not name it: whether `rate` sets anything.

    Raises:
      ValueError, TypeError: the text or a value in it is wrong.
    """
    parts = literals.split(text, "|")
    return any(_lacks_rate(build(SCHEMES, part), part) for part in parts)


def _lacks_rate(link: Scheme, text: str) -> bool:
    return "rate" in rate_fields(type(link)) and "rate" not in literals.parse_call(text)[1]
