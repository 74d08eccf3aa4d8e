"""Flax modules that declare sites. They take one example and a draw; `jax.vmap` makes the batch.

The file's name is the model's name and the flag's value; `layers` has what they are made of.
"""

import flax.linen as nn

from dropjax.core.registry import Registry
from dropjax.core.spec import build

MODELS: Registry[nn.Module] = Registry(
    "dropjax.models",
    nn.Module,
    "model",
    parts=("layers",),
    flag="--model",
    given=("outputs", "parent", "name"),
)

names = MODELS.names
"""The names of all models."""


register = MODELS.add
"""`register(name, cls)` makes a model of yours known by a name of its own."""


def parse(text: str, outputs: int) -> nn.Module:
    """The model that a text such as `mlp(widths=(800,800))` describes, with that many outputs.

    Raises:
      ValueError, TypeError: unknown name or field, or a value that does not fit.
    """
    return build(MODELS, text, outputs=outputs)


__all__ = ["MODELS", "names", "parse", "register"]
