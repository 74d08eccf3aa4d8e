"""Shared by the papers' modules: targets, a plain network, and the command line."""

import dataclasses
import inspect
import itertools
import math
import os
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
from dropjax.core.arguments import meanings
from dropjax.core.draw import Draw
from dropjax.core.site import Kind, Site
from dropjax.ops.keys import derive
from experiments import program

Array = jax.Array
Params = list[dict[str, Array]]
Activation = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Target:
    """A published result and our own.

    Args:
      name: of the measured quantity.
      published: the figure, or the claim, in words.
      low, high: the accepted range, both ends included.
      found: our result.
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
    """A target that is met by a result within a tolerance."""
    low, high = round(published - tolerance, 12), round(published + tolerance, 12)
    return Target(name, f"{published:g}", low, high, found)


def holds(name: str, published: str, found: bool) -> Target:
    """A target that is a claim: it holds (1) or not (0)."""
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

    Each keyword argument of `targets` becomes a flag. Its docstring explains it.
    """
    made, meaning = {}, meanings(targets)
    hints = typing.get_type_hints(targets)
    for name, parameter in inspect.signature(targets).parameters.items():
        options = (hints[name], *typing.get_args(hints[name]))
        kind = next(option for option in options if option in _DEFINE)
        default = parameter.default
        if kind == tuple[int, ...]:
            default = list(map(str, default))
        # With the name of the program as their module: --help lists such flags.
        flag = _DEFINE[kind](name, default, meaning[name], module_name=sys.argv[0])
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
            results = targets(**given)
        except (data.DataError, ValueError, FloatingPointError) as error:
            program.complain(f"{name}: {error}")
            return 2
        if status := program.deliver(name, "\n".join(map(str, results))):
            return status
        return 0 if all(target.passed for target in results) else 1

    program.launch(name, start)


def dense_params(
    key: Array, sizes: Sequence[int], init: Callable[..., Array] | None = None
) -> Params:
    """Weights of dense layers, and biases, which are 0.

    Args:
      key: PRNG key.
      sizes: of the input and of each layer.
      init: (key, shape) -> weights; by default Glorot's uniform initialiser.
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
    """Dense layers, each a LINEAR site, on a flattened example; no activation after the last."""
    x = x.reshape(-1)
    for i, weights in enumerate(params):
        x = layer(weights, x, draw, layer_name(i))
        if i + 1 < len(params):
            x = activation(x)
    return x


def mnist(
    folder: str | None, *, scale: float = 255.0, centred: bool
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """MNIST's training and test examples.

    Args:
      folder: has the four files of MNIST; None to download them.
      scale: pixels are divided by it.
      centred: whether the mean training image is subtracted from all images.
    """
    path = None if folder is None else Path(os.path.expanduser(folder))
    dataset = data.load("mnist", path, say=print)
    x_train, x_test = (x.astype(np.float32) / scale for x in (dataset.x_train, dataset.x_test))
    mean = x_train.mean(axis=0) if centred else np.float32(0)
    return (x_train - mean, dataset.y_train), (x_test - mean, dataset.y_test)


def shorten(
    part: tuple[np.ndarray, np.ndarray], examples: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first examples of a part of a data set; all of them for None."""
    return part[0][:examples], part[1][:examples]
