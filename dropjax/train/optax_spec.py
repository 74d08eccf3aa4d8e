"""Optimisers and schedules from text: `sgd(momentum=0.9)`, `linear_schedule(...)`."""

import difflib
import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dropjax.core.literals import parse_call
from dropjax.core.strength import Strength, check_strength
from dropjax.train.average import ema, last
from dropjax.train.decay import weights_alone
from dropjax.train.schedules import SCHEDULES as OWN
from dropjax.train.schedules import Schedule

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


def parse_optimizer(
    text: str, learning_rate: float | optax.Schedule, clip: float | None = None
) -> optax.GradientTransformation:
    """The optax optimiser of {"params": ..., "learned": ...} that a text describes.

    Its weight decay, if it has one, leaves out what a scheme learns.

    Args:
      text: one of `OPTIMIZERS`, with arguments as optax names them if need be.
      learning_rate: its learning rate, at least 0; or a function of the step.
      clip: the largest norm of the gradient of all parameters, above 0: a longer one is scaled to
        it; None for no limit.

    Raises:
      ValueError: the name or an argument is unknown, or a number is out of range.
    """
    if not callable(learning_rate) and not 0 <= learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a finite number from 0 on, got {learning_rate}")
    if clip is not None and not 0 < clip < math.inf:
        raise ValueError(f"clip must be a finite number above 0, got {clip}")
    optimizer = optimizer_of(text, learning_rate, clip)
    try:
        # optax looks at most arguments only when it updates, and mixes dtypes when it does.
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), jnp.zeros(2))
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer={text!r}: {_first_line(error)}") from error
    return optimizer


def optimizer_of(text: str, learning_rate: Any, clip: Any = None) -> optax.GradientTransformation:
    """`parse_optimizer` for a text that was checked before. The numbers may be traced."""
    given = {"learning_rate": learning_rate}
    function = getattr(optax, parse_call(text)[0], None)
    if function is not None:
        takes = inspect.signature(function).parameters
        given |= {name: weights_alone for name in _MASKS if name in takes}
    optimizer = _build(text, OPTIMIZERS, "optimizer", **given)
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)


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


def parse_average(text: str, steps: int) -> Schedule | None:
    """The average of the weights that a text describes; None for "none".

    Args:
      text: "none", "ema(decay=0.999)", or "last(share=0.25)": the mean over this last
        share of the steps.
      steps: of the whole training.

    Raises:
      ValueError: it is none of them, or a number is out of range.
    """
    name, arguments = parse_call(text)
    if name == "none" and not arguments:
        return None
    if name == "ema" and arguments.keys() <= {"decay"}:
        return ema(**arguments)
    if name == "last" and arguments.keys() <= {"share"}:
        share = arguments.get("share", 0.25)
        if isinstance(share, (int, float)) and 0 < share <= 1:
            return last(min(steps - round(share * steps), steps - 1))
        raise ValueError(f"average={text!r}: share must be above 0 and at most 1")
    raise ValueError(
        f"average={text!r} must be none, ema(decay=0.999), or last(share=0.25): the mean of the "
        "weights over the last quarter of training"
    )


def parse_learning_rate(text: float | str, steps: int) -> float | optax.Schedule:
    """A learning rate, or the schedule that a text describes.

    Args:
      text: a number; one of `LEARNING_RATES`, whose lengths are shares of the training; or one of
        `SCHEDULES`, whose lengths are steps.
      steps: of the whole training.

    Raises:
      ValueError: it is none of them; an argument is wrong; the rate leaves [0, infinity).
    """
    if not isinstance(text, str):
        return text
    name, arguments = parse_call(text)
    schedule: Any
    try:
        if name in LEARNING_RATES:
            schedule = LEARNING_RATES[name](steps, **arguments)
        else:
            schedule = _build(text, sorted({*SCHEDULES, *LEARNING_RATES}), "schedule")
    except (TypeError, ValueError) as error:
        raise ValueError(f"learning_rate={text!r}: {_first_line(error)}") from error
    # Equal ones are compiled once: the number of steps is a part of what they are.
    schedule = Schedule(f"{text} of {steps} steps", schedule)
    check_strength(schedule, steps, "learning_rate", at_most=math.inf)
    return schedule


def cosine(steps: int, *, peak: float, warmup: float = 0.0, end: float = 0.0) -> optax.Schedule:
    """Rises linearly from 0 to `peak`, then falls to `end` along half a cosine.

    Args:
      steps: of the whole training.
      peak: the largest learning rate.
      warmup: the share of the steps that it rises in, in [0, 1).
      end: the learning rate after the last step.

    Source: Loshchilov, Hutter 2017, "SGDR: stochastic gradient descent with warm restarts" (arXiv
    1608.03983), section 3, without restarts; Goyal et al. 2017 (arXiv 1706.02677), section 2.2, for
    the warm-up.
    """
    rise = _rise(steps, peak, warmup, end)
    return optax.warmup_cosine_decay_schedule(0.0 if rise else peak, peak, rise, steps, end)


def linear(steps: int, *, peak: float, warmup: float = 0.0, end: float = 0.0) -> optax.Schedule:
    """Rises linearly from 0 to `peak`, then falls linearly to `end`; arguments as of `cosine`."""
    rise = _rise(steps, peak, warmup, end)
    parts = [optax.linear_schedule(0.0, peak, rise), optax.linear_schedule(peak, end, steps - rise)]
    return optax.join_schedules(parts, [rise]) if rise else parts[1]


LEARNING_RATES = {"cosine": cosine, "linear": linear}
"""Schedules of the learning rate over the whole training, by name."""


def _rise(steps: int, peak: float, warmup: float, end: float) -> int:
    for name, value in (("peak", peak), ("end", end)):
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number from 0 on, got {value!r}")
    if not isinstance(warmup, (int, float)) or not 0 <= warmup < 1:
        raise ValueError(f"warmup must be a share of the training in [0, 1), got {warmup!r}")
    return round(warmup * steps)


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
