"""Stochastic depth that leaves out the computation of the branches that it drops.

Source: Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep Networks with Stochastic Depth"
(arXiv 1603.09382), section 3: one decision for a mini-batch.

Differs: what is kept is scaled in training by default; the paper's is `scaling="test"`.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import Mask, drop
from dropjax.ops.checks import as_rate, check_choice, check_floating, check_rate_value
from dropjax.ops.keys import check_key
from dropjax.schemes.stochastic_depth import SCALINGS

Array = jax.Array


def stochastic_depth(
    key: Array,
    f: Callable[[Array], Array],
    x: ArrayLike,
    rate: ArrayLike,
    *,
    scaling: Literal["train", "test", "none"] = "train",
) -> Array:
    """`x + f(x)`, or with probability `rate` x alone, and then f is not computed.

    Args:
      key: PRNG key, typed or raw; one decision is made for all of x.
      f: the residual branch, a function of x alone; what else it needs, such as parameters, it
        closes over, and gradients reach that. It returns an array of the shape and dtype of x.
      x: floats of any shape, a whole batch.
      rate: probability of dropping, in [0, 1], one number; may be traced. See `depth_rates`.
      scaling: "train" divides what is kept by 1 - rate: evaluate with `x + f(x)`, but at rate 1,
        where f was never there, with x. "test" does not: evaluate with
        `x + dropjax.expected.drop_path(f(x), rate, scaling="test")`. "none" does not either, and
        evaluates with `x + f(x)`.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no floats, key is no PRNG key, or f is no function.
      ValueError: rate outside [0, 1] or not one number; a wrong scaling; f returns another shape
        or dtype than it was given.

    Cost: 32 random bits; that of f with probability 1 - rate, forward and backward. For the
      backward pass the decision is kept, and what f keeps. Not under `jax.vmap` over keys, where
      examples have decisions of their own: then f is computed for all, and `dropjax.drop_path` does
      the same for less.

    Source: Huang et al. 2016, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x = jnp.ones(2)
      >>> [dropjax.blocks.stochastic_depth(jax.random.key(i), jnp.negative, x, 0.5) for i in (0, 1)]
      [Array([1., 1.], dtype=float32), Array([-1., -1.], dtype=float32)]
    """
    key, x = check_key(key), check_floating(x)
    check_choice(scaling, SCALINGS, "scaling")
    if not callable(f):
        raise TypeError(f"f must be a function of x, got {f!r}")
    rate = as_rate(rate, ())

    def branch(x: Array) -> Array:
        y = f(x)
        if (jnp.shape(y), jnp.result_type(y)) != (x.shape, x.dtype):
            raise ValueError(
                f"f must return what it is given, {x.dtype}{list(x.shape)}; it returned "
                f"{jnp.result_type(y)}{list(jnp.shape(y))}"
            )
        return x + drop(jnp.ones((), bool), y, rate, "train" if scaling == "train" else "test")

    return jax.lax.cond(Mask.of(key, rate, ()).keep(), branch, lambda x: x, x)


def depth_rates(
    rate: ArrayLike, depth: int, *, rule: Literal["linear", "from_zero", "constant"] = "linear"
) -> list[ArrayLike]:
    """The rate of each of `depth` residual branches.

    Args:
      rate: that of the last one, in [0, 1]; may be traced.
      depth: how many there are.
      rule: "linear" for l / depth of `rate` at the l-th, counted from 1, as in the paper: the
        first may be dropped too. "from_zero" for (l - 1) / (depth - 1) of it, as vision models of
        other libraries have it: the first is always kept, also if it is the only one. "constant"
        for the same rate at all.

    Returns:
      A list of numbers, the first for the first branch.

    Raises:
      TypeError: rate is no number, or depth no integer.
      ValueError: rate outside [0, 1]; depth below 1; a wrong rule.

    Cost: no random bits; a product a branch. Nothing but its factor is kept for the backward pass.

    Example:
      >>> import dropjax
      >>> dropjax.blocks.depth_rates(0.5, 4)
      [0.125, 0.25, 0.375, 0.5]
    """
    check_rate_value(rate)
    check_choice(rule, ("linear", "from_zero", "constant"), "rule")
    if not isinstance(depth, (int, np.integer)) or isinstance(depth, bool):
        raise TypeError(f"depth must be a number of branches, got {depth!r}")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    if rule == "constant":
        return [rate] * int(depth)
    if rule == "from_zero":
        return [rate * (number / max(depth - 1, 1)) for number in range(depth)]
    return [rate * (number / depth) for number in range(1, depth + 1)]
