"""Stochastic depth, or drop path: drops whole residual branches.

Source: Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep Networks with Stochastic Depth"
(arXiv 1603.09382), section 3: the l-th of L branches is dropped at rate l / L of the last one's.

Differs: each example has a decision of its own, and what is kept is scaled in training, as vision
transformers have it; the paper drops a branch for the whole batch, which is `mode="batch"`, and
scales at test time, which is `scaling="test"`. `dropjax.blocks.stochastic_depth` makes one decision
for a mini-batch, as the paper, and leaves out the computation of a dropped branch too.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop
from dropjax.ops.checks import (
    as_rate,
    check_choice,
    check_floating,
    check_rate_value,
    normalize_axes,
)
from dropjax.ops.keys import check_key
from dropjax.schemes.bernoulli import dropout
from dropjax.schemes.bernoulli import expected as expected_dropout

Array = jax.Array

SCALINGS = ("train", "test", "none")


def drop_path(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    batch_axes: int | Sequence[int],
    scaling: Literal["train", "test", "none"] = "train",
) -> Array:
    """Drops the residual branch x of each example with probability `rate`.

    Args:
      key: PRNG key, typed or raw.
      x: the branch before it is added, floats of any shape.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask, which has size 1 along all but the batch axes. Typical: 0.5 for the last of many
        branches, growing linearly from 0.
      batch_axes: the axes that hold examples, 0 for an ordinary batch; () for a single example,
        under `jax.vmap` over keys. It has no default, as a wrong guess would not be noticed.
      scaling: "train" divides what is kept by 1 - rate; "test" does not, and
        `dropjax.expected.drop_path` multiplies by 1 - rate instead; "none" does neither, as in
        normaliser-free networks (Brock et al. 2021, arXiv 2102.06171), so that branches are
        larger in evaluation than on average in training.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong axis or scaling.

    Cost: 32 random bits an example; about the time of reading x and writing the result: the branch
      has been computed. 8 bytes a key are kept for the backward pass, which draws the mask again.

    Source: Huang et al. 2016, section 3; one decision an example: Larsson et al. 2017 (arXiv
      1605.07648).

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.drop_path(jax.random.key(0), jnp.ones((3, 2)), 0.5, batch_axes=0)
      Array([[0., 0.],
             [0., 0.],
             [2., 2.]], dtype=float32)
    """
    x = check_floating(x)
    check_choice(scaling, SCALINGS, "scaling")
    own = normalize_axes(batch_axes, x.ndim, "batch_axes")
    shared = [axis for axis in range(x.ndim) if axis not in own]
    in_training = "train" if scaling == "train" else "test"
    return dropout(key, x, rate, shared_axes=shared, scaling=in_training)


def block(
    key: Array,
    f: Callable[[Array], Array],
    x: ArrayLike,
    rate: ArrayLike,
    *,
    scaling: Literal["train", "test", "none"] = "train",
) -> Array:
    """`x + f(x)`, or with probability `rate` x alone, and then f is not computed.

    Users call it `dropjax.blocks.stochastic_depth`. The scheme cannot save the computation: a model
    computes a branch before the scheme acts on it.

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


def expected(
    x: ArrayLike, rate: ArrayLike, *, scaling: Literal["train", "test", "none"] = "train"
) -> Array:
    """What stands for `drop_path` in evaluation: x, or (1 - rate) * x if scaling is "test".

    It is the exact expectation, 0 at rate 1, except if scaling is "none": then it is x.

    Args:
      x: floats of any shape.
      rate: probability of dropping, in [0, 1].
      scaling: as `drop_path` was called.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no floats.
      ValueError: rate outside [0, 1]; a wrong scaling.

    Cost: no random bits; at most a product an element. Nothing but the rate is kept for the
      backward pass.
    """
    check_choice(scaling, SCALINGS, "scaling")
    if scaling == "none":
        x = check_floating(x)
        as_rate(rate, x.shape)
        return x
    return expected_dropout(x, rate, scaling=scaling)


@scheme
class StochasticDepth(Scheme):
    """Drops residual branches, deeper ones more often.

    Args:
      rate: the probability of dropping a branch, in [0, 1]; with `rule="linear"` that of the last
        branch.
      rule: "linear", the rate grows with depth from near 0 to `rate`; "constant", all branches have
        `rate`.
      mode: "example", one decision for each example; "batch", one for the whole batch of a step.
      scaling: "train" divides what is kept by 1 - rate, in training; "test" multiplies by 1 - rate
        in evaluation instead; "none" does neither.
    """

    rate: Rate = 0.5
    rule: Literal["linear", "constant"] = "linear"
    mode: Literal["example", "batch"] = "example"
    scaling: Literal["train", "test", "none"] = "train"

    acts_on: ClassVar = frozenset({Kind.BRANCH})
    made_for: ClassVar = "cnn(residual=True)"

    def rates_at(self, site: Site) -> dict[str, Any]:
        return {"rate": self._rate(site)}

    @property
    def expected_is_mean(self) -> bool:  # type: ignore[reportIncompatibleVariableOverride]
        return self.scaling != "none"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        key = keys.step if self.mode == "batch" else keys.example
        return Mask.of(key, self._rate(site), [1] * len(shape))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self._rate(site), "train" if self.scaling == "train" else "test")

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected(x, self._rate(site), scaling=self.scaling)

    def _rate(self, site: Site) -> Any:
        return self.rate * site.depth if self.rule == "linear" else self.rate
