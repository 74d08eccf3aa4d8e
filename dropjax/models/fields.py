"""Arguments that models were given after runs with them were recorded."""

import dataclasses
from typing import Any


def added(default: Any) -> Any:
    """A dataclass field that came after 0.5.2.

    A model's text leaves it out at its default, so that it stays the text that older runs have.
    """
    return dataclasses.field(default=default, metadata={"added": True})


def is_as_before(field: "dataclasses.Field[Any]", value: Any) -> bool:
    """Whether a field was added, and has the value that stands for how it was before."""
    return bool(field.metadata.get("added")) and value == field.default
