"""What the papers' modules share: targets, a plain network, and the command line."""

import dataclasses
import inspect
import itertools
import math
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from dropjax import data
from dropjax.core.draw import Draw
from dropjax.core.site import Kind, Site
from dropjax.ops.keys import derive
from experiments import program

Array = jax.Array
Params = list[dict[str, Array]]
Activation = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Target:
    """A published result and what was found.

    Args:
      name: what is measured.
      published: the figure, or the claim, in words.
      low, high: what is accepted, both ends included.
      found: the result.
    """

    name: str
    published: str
    low: float
    high: float
    found: float

    @property
    def passed(self) -> bool:
        return self.low <= self.found <= self.high

    def __str__(self) -> str:
        if self.low == -math.inf:
            accepted = f"at most {self.high:g}"
        elif self.high == math.inf:
            accepted = f"at least {self.low:g}"
        else:
            accepted = f"{self.low:g} to {self.high:g}"
        verdict = "PASS" if self.passed else "FAIL"
        return f"{verdict}  {self.name}: {self.found:.4g} (published {self.published}; {accepted})"


def near(name: str, published: float, tolerance: float, found: float) -> Target:
    """A target that is met within a tolerance."""
    low, high = round(published - tolerance, 12), round(published + tolerance, 12)
    return Target(name, f"{published:g}", low, high, found)


def holds(name: str, published: str, found: bool) -> Target:
    """A target that is a claim, which holds (1) or does not (0)."""
    return Target(name, published, 1, math.inf, float(found))


_DEFINE: dict[Any, Callable[..., Any]] = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
    str: flags.DEFINE_string,
    tuple[int, ...]: flags.DEFINE_list,
}


def main(targets: Callable[..., Sequence[Target]]) -> None:
    """Runs a paper's targets, prints them and exits: 0 if all passed, 1 if not, 2 if it cannot run.

    Each keyword argument of `targets` is a flag, which its docstring explains.
    """
    made = {}
    hints = typing.get_type_hints(targets)
    for name, parameter in inspect.signature(targets).parameters.items():
        of = [kind for kind in typing.get_args(hints[name]) if kind in _DEFINE]
        kind = hints[name] if hints[name] in _DEFINE else of[0]
        text = re.search(rf"^ +{name}: (.*)", inspect.getdoc(targets) or "", re.M)
        default = parameter.default
        if kind == tuple[int, ...]:
            default = list(map(str, default))
        # As flags of the program, or --help would not list them.
        flag = _DEFINE[kind](name, default, text[1] if text else "", module_name=sys.argv[0])
        made[name] = kind, flag

    name = Path(sys.argv[0]).stem

    @program.guarded(name)
    def start(argv: list[str]) -> int:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.WARNING)
        try:
            given = {
                name: tuple(map(int, flag.value)) if kind == tuple[int, ...] else flag.value
                for name, (kind, flag) in made.items()
            }
            found = targets(**given)
        except (data.DataError, ValueError, FloatingPointError) as error:
            program.complain(f"{name}: {error}")
            return 2
        if status := program.deliver(name, "\n".join(map(str, found))):
            return status
        return 0 if all(target.passed for target in found) else 1

    program.launch(name, start)


def dense_params(
    key: Array, sizes: Sequence[int], init: Callable[..., Array] | None = None
) -> Params:
    """Weights and zero biases of dense layers.

    Args:
      key: PRNG key.
      sizes: of the input and of each layer.
      init: (key, shape) -> weights; Glorot's uniform by default.
    """
    init = init or jax.nn.initializers.glorot_uniform()
    return [
        {"w": init(derive(key, f"layer {i}"), shape), "b": jnp.zeros(shape[1])}
        for i, shape in enumerate(itertools.pairwise(sizes))
    ]


def layer_name(number: int) -> str:
    """The name of a layer's LINEAR site."""
    return f"layer_{number}/linear"


def layer(params: dict[str, Array], x: Array, draw: Draw, name: str) -> Array:
    """One dense layer, a LINEAR site."""
    site = Site(name, Kind.LINEAR, ("input", "output"))
    return draw.linear(x, params["w"], params["b"], site)


def network(params: Params, x: Array, draw: Draw, activation: Activation = jax.nn.relu) -> Array:
    """Dense layers, each a LINEAR site, on a flattened example; the last one is linear."""
    x = x.reshape(-1)
    for i, of in enumerate(params):
        x = layer(of, x, draw, layer_name(i))
        if i + 1 < len(params):
            x = activation(x)
    return x


def mnist(
    folder: str | None, *, scale: float = 255.0, centred: bool
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """MNIST's training and test examples.

    Args:
      folder: where its four files are; None to download them.
      scale: what pixels are divided by.
      centred: the mean image of the training examples is subtracted from all.
    """
    found = data.load(
        "mnist", None if folder is None else Path(os.path.expanduser(folder)), say=print
    )
    x_train, x_test = (x.astype(np.float32) / scale for x in (found.x_train, found.x_test))
    mean = x_train.mean(axis=0) if centred else np.float32(0)
    return (x_train - mean, found.y_train), (x_test - mean, found.y_test)


def shorten(
    part: tuple[np.ndarray, np.ndarray], examples: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first examples of a part of a data set; all of them for None."""
    return part[0][:examples], part[1][:examples]
