"""Optimisers and schedules from text: `sgd(momentum=0.9)`, `linear_schedule(...)`."""

import difflib
import functools
import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dropjax.core.literals import parse_call
from dropjax.core.strength import Strength
from dropjax.train.decay import weights_alone
from dropjax.train.schedules import SCHEDULES as OWN

# By hand: optimisers that take a learning rate and the gradient alone.
OPTIMIZERS = (
    *("adabelief", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "amsgrad"),
    *("lamb", "lars", "lion", "novograd", "radam", "rmsprop", "rprop", "sgd", "signum", "sm3"),
    "yogi",
)
_MASKS = ("mask", "weight_decay_mask")
"""What optax's optimisers call the mask of their weight decay."""
SCHEDULES = (
    *("cosine_decay_schedule", "cosine_onecycle_schedule", "exponential_decay"),
    *("linear_onecycle_schedule", "linear_schedule", "piecewise_constant_schedule"),
    *("piecewise_interpolate_schedule", "polynomial_schedule", "warmup_constant_schedule"),
    *("warmup_cosine_decay_schedule", "warmup_exponential_decay_schedule"),
)


def parse_optimizer(text: str, learning_rate: float) -> optax.GradientTransformation:
    """The optax optimiser of {"params": ..., "learned": ...} that a text describes.

    Its weight decay, if it has one, leaves out what a scheme learns.

    Args:
      text: one of `OPTIMIZERS`, with arguments as optax names them if need be.
      learning_rate: its learning rate, at least 0.

    Raises:
      ValueError: the name or an argument is unknown, or the learning rate is out of range.
    """
    if not 0 <= learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be a finite number from 0 on, got {learning_rate}")
    optimizer = optimizer_of(text, learning_rate)
    try:
        # optax looks at most arguments only when it updates, and mixes dtypes when it does.
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), jnp.zeros(2))
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer={text!r}: {_first_line(error)}") from error
    return optimizer


def optimizer_of(text: str, learning_rate: Any) -> optax.GradientTransformation:
    """`parse_optimizer` for a text that was checked before. The learning rate may be traced."""
    given = {"learning_rate": learning_rate}
    function = getattr(optax, parse_call(text)[0], None)
    if function is not None:
        takes = inspect.signature(function).parameters
        given |= {name: weights_alone for name in _MASKS if name in takes}
    return _build(text, OPTIMIZERS, "optimizer", **given)


@functools.lru_cache(maxsize=256)
def parse_strength(text: str, flag: str = "strength") -> Strength:
    """A number, or the schedule that a text describes: of equal texts one, which is compiled once.

    Args:
      text: a number, or one of `SCHEDULES` with arguments as optax names them, or one of
        `train.schedules`.
      flag: what an error message calls it.

    Raises:
      ValueError: it is neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return _build(text, sorted({*SCHEDULES, *OWN}), "schedule")
    except ValueError as error:
        raise ValueError(f"{flag}={text!r} is no number, and as a schedule: {error}") from error


def _build(text: str, names: Sequence[str], what: str, **given: Any) -> Any:
    name, arguments = parse_call(text)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"no {what} {name!r}{hint} There are: {', '.join(names)}")
    function = OWN[name] if name in OWN else getattr(optax, name)
    allowed = [p for p in inspect.signature(function).parameters if p not in given]
    for argument in arguments:
        if argument not in allowed:
            raise ValueError(f"{name} has no argument {argument!r}; it takes {', '.join(allowed)}")
    try:
        return function(**given, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"{what}={text!r}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
