"""Schedules of the strength that the papers on scheduled dropout use; optax has many others.

Each is a function of the step, from 0 on, with values in [0, 1]: what the scheme's own rates are
multiplied by. Its `str` is the text that `--strength` takes back to an equal one.

Source: Morerio, Cavazza, Volpi, Vidal, Murino 2017, "Curriculum Dropout" (arXiv 1703.06229),
section 3; Rennie, Goel, Thomas 2014, "Annealed Dropout Training of Deep Networks" (IEEE SLT),
section 3; Liu, Xu, Jin, Shen, Darrell 2023, "Dropout Reduces Underfitting" (arXiv 2303.01500),
section 4; Zoph, Vasudevan, Shlens, Le 2018, "Learning Transferable Architectures for Scalable Image
Recognition" (arXiv 1707.07012), appendix A.7.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.core.literals import format_call
from dropjax.ops.checks import check_choice

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A function of the step; equal to another if their texts are.

    Args:
      text: what made it, such as "early(steps=1000)".
      of_step: float32 steps -> float32 values.
    """

    text: str
    of_step: Callable[[Array], Array] = dataclasses.field(compare=False, repr=False)

    def __call__(self, step: ArrayLike) -> Array:
        return self.of_step(jnp.asarray(step).astype(jnp.float32))

    def __str__(self) -> str:
        return self.text


def curriculum(gamma: float | None = None, steps: int | None = None) -> Schedule:
    """1 - exp(-gamma step): from 0 towards 1.

    In the paper's terms the probability of keeping is (1 - k) exp(-gamma step) + k; k is 1 less the
    scheme's rate.

    Args:
      gamma: how fast, above 0; or
      steps: of the whole training, which makes gamma 10 / steps, as the paper suggests.

    Raises:
      ValueError: not exactly one of them is given, or it is not above 0.

    Source: Morerio et al. 2017, section 3.
    """
    if (gamma is None) == (steps is None):
        raise ValueError(f"curriculum needs gamma or steps, got gamma={gamma!r}, steps={steps!r}")
    if steps is not None:
        fast, given = 10 / _checked(steps), {"steps": int(steps)}
    elif isinstance(gamma, (int, float)) and math.isfinite(gamma) and gamma > 0:
        fast, given = float(gamma), {"gamma": float(gamma)}
    else:
        raise ValueError(f"gamma must be a finite number above 0, got {gamma!r}")
    # Not 1 - exp: that loses the first steps of a slow one to rounding.
    return Schedule(format_call("curriculum", given), lambda step: -jnp.expm1(-fast * step))


def annealed(steps: int) -> Schedule:
    """max(0, 1 - step / steps): from 1 to 0.

    Args:
      steps: after which there is no dropout.

    Raises:
      ValueError: steps is less than 1.

    Source: Rennie et al. 2014, section 3.
    """
    steps = _checked(steps)
    return _schedule("annealed", steps, lambda step: jnp.maximum(1 - step / steps, 0))


def early(steps: int, mode: Literal["linear", "constant"] = "linear") -> Schedule:
    """Dropout in the first steps alone: early dropout.

    Args:
      steps: that have dropout. The paper's are those of 50 of 300 epochs.
      mode: "linear" goes from 1 in the first of them to 0 in the last; "constant" is 1 in all.

    Raises:
      ValueError: steps is less than 1; a wrong mode.

    Source: Liu et al. 2023, section 4.
    """
    steps = _checked(steps)
    check_choice(mode, ("linear", "constant"), "mode")
    if mode == "constant":
        text = format_call("early", {"steps": steps, "mode": mode})
        return Schedule(text, lambda step: (step < steps).astype(jnp.float32))
    last = max(steps - 1, 1)
    return _schedule(
        "early", steps, lambda step: jnp.where(step < steps, jnp.maximum(1 - step / last, 0), 0)
    )


def late(steps: int) -> Schedule:
    """No dropout in the first steps, then all of it: late dropout.

    Args:
      steps: that have none. The paper's are those of 50 of 300 epochs.

    Raises:
      ValueError: steps is less than 1.

    Source: Liu et al. 2023, section 4.
    """
    steps = _checked(steps)
    return _schedule("late", steps, lambda step: (step >= steps).astype(jnp.float32))


def scheduled_drop_path(steps: int) -> Schedule:
    """min(1, step / steps): from 0 to 1, as NASNet raises the rate of its paths.

    Args:
      steps: of the whole training.

    Raises:
      ValueError: steps is less than 1.

    Source: Zoph et al. 2018, appendix A.7.
    """
    steps = _checked(steps)
    return _schedule("scheduled_drop_path", steps, lambda step: jnp.minimum(step / steps, 1))


SCHEDULES = {
    function.__name__: function
    for function in (annealed, curriculum, early, late, scheduled_drop_path)
}
"""By name."""


def _schedule(name: str, steps: int, of_step: Callable[[Array], Array]) -> Schedule:
    return Schedule(format_call(name, {"steps": steps}), of_step)


def _checked(steps: int) -> int:
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a whole number, at least 1; got {steps!r}")
    return int(steps)
