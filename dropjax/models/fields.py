"""Arguments of models that came after version 0.5.2, whose runs do not have them."""

import dataclasses
from typing import Any


def added(default: Any) -> Any:
    """A dataclass field that came after 0.5.2.

    A model's text leaves it out at its default, so that it stays the text that older runs have.
    """
    return dataclasses.field(default=default, metadata={"added": True})


def is_as_before(field: "dataclasses.Field[Any]", value: Any) -> bool:
    """Whether a field came after 0.5.2 and has its default, with which nothing changes."""
    return bool(field.metadata.get("added")) and value == field.default
