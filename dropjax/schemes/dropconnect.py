"""DropConnect: Bernoulli dropout on weights.

Source: Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of Neural Networks using
DropConnect" (ICML), section 3.

Differs: by default one mask serves the whole batch in a step, scaled in training; `mode="example"`
draws the paper's mask for each example and `scaling="test"` leaves the scale to test time, where
weights are multiplied by the keep probability (the mean of the paper's Gaussian). The paper's own
inference averages over samples of that Gaussian: `dropconnect_gaussian`, or Monte-Carlo under
`mode="gaussian"` of a model trained under `mode="example"`. Biases are kept; the paper masks them
too.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, dense, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import SCALINGS, Mask, drop, expected_drop, wide_dtype
from dropjax.ops.bits import sharding_like
from dropjax.ops.checks import (
    as_rate,
    check_choice,
    check_floating,
    check_layer,
    is_known,
)
from dropjax.ops.gaussian import Normal, around, multiply, variance_through
from dropjax.ops.keys import check_key
from dropjax.ops.lazy import fused
from dropjax.schemes.bernoulli import dropout
from dropjax.schemes.bernoulli import expected as expected_dropout

Array = jax.Array


def dropconnect(
    key: Array, w: ArrayLike, rate: ArrayLike, *, scaling: Literal["train", "test"] = "train"
) -> Array:
    """Sets each weight to 0 with probability `rate`.

    Args:
      key: PRNG key, typed or raw. One call makes one mask: call it once for a batch, or under
        `jax.vmap` over keys for a mask an example.
      w: weights, floats of any shape.
      rate: probability of dropping a weight, in [0, 1]; may be traced, or an array that broadcasts
        to w. Typical: 0.5.
      scaling: "train" divides what is kept by 1 - rate; "test" does not, and
        `dropjax.expected.dropconnect` multiplies by 1 - rate instead.

    Returns:
      An array of the shape and dtype of w.

    Raises:
      TypeError: w holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong scaling.

    Cost: 32 random bits a weight; about the time of reading w and writing the result; under
      `jax.vmap` over keys, a copy of w for each example. 8 bytes a key are kept for the backward
      pass, which draws the mask again.

    Source: Wan et al. 2013, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> w = dropjax.dropconnect(jax.random.key(0), jnp.ones((2, 2)), 0.5)
      >>> w.shape
      (2, 2)
    """
    return dropout(key, check_floating(w, "w"), rate, scaling=scaling)


def expected(
    w: ArrayLike, rate: ArrayLike, *, scaling: Literal["train", "test"] = "train"
) -> Array:
    """The exact expectation of `dropconnect`: w, or (1 - rate) * w if scaling is "test".

    At rate 1, where `dropconnect` gives zeros, it is 0 too.

    Args:
      w: weights, floats of any shape.
      rate: probability of dropping, in [0, 1].
      scaling: as `dropconnect` was called.

    Returns:
      An array of the shape and dtype of w.

    Raises:
      TypeError: w holds no floats.
      ValueError: rate outside [0, 1]; a wrong scaling.

    Cost: no random bits; at most a product a weight. Nothing but the rate is kept for the backward
      pass.
    """
    return expected_dropout(check_floating(w, "w"), rate, scaling=scaling)


def dropconnect_linear(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    w: ArrayLike,
    b: ArrayLike | None = None,
    scaling: Literal["train", "test"] = "train",
    chunk: int | None = None,
) -> Array:
    """A dense layer `x @ w + b` with a mask on w of its own for each row of x.

    Args:
      key: PRNG key, typed or raw.
      x: floats, (..., inputs). Each row has a mask of its own: for one that all steps of a
        sequence share, call `dropconnect` under `jax.vmap` over keys.
      rate: probability of dropping a weight, in [0, 1]; may be traced, or an array that broadcasts
        to w. Typical: 0.5.
      w: weights, floats, (inputs, outputs).
      b: (outputs,), which is not dropped; or None.
      scaling: "train" divides the weights that are kept by 1 - rate; "test" does not, and
        `dropjax.expected.dropconnect_linear` multiplies by 1 - rate instead.
      chunk: how many rows are computed at once. It changes no mask. Default: as many as have 2**18
        weights together, at least one, which suits a CPU's cache; more keep a GPU busier. Where x
        is sharded on an Explicit mesh, the default is all rows.

    Returns:
      An array (..., outputs) of the dtype of x.

    Raises:
      TypeError: x, w or b holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; shapes of x, w and b that
        do not; a wrong scaling; a chunk below 1.

    Cost: 32 random bits a weight and row: a mask of the size of w for each row. Memory for `chunk`
      of them, and for the backward pass no more, which draws them again: x, w and 4 bytes a row are
      kept. On two CPU cores, 128 rows of 800 inputs and 800 outputs take a fifth of the time of
      `dropconnect` under `jax.vmap`, and a fortieth of its memory.

    Source: Wan et al. 2013, section 3, algorithm 1.

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x, w = jnp.ones((8, 3)), jnp.ones((3, 2))
      >>> dropjax.dropconnect_linear(jax.random.key(0), x, 0.5, w=w).shape
      (8, 2)
    """
    key = check_key(key)
    x, w, b = check_layer(x, w, b)
    check_choice(scaling, SCALINGS, "scaling")
    number = isinstance(chunk, (int, np.integer)) and not isinstance(chunk, bool)
    if chunk is not None and not (number and chunk >= 1):
        raise ValueError(f"chunk must be a whole number of rows, at least 1; got {chunk!r}")
    rate = as_rate(rate, w.shape)
    batch = x.shape[:-1]
    masks = Mask.of(key, rate[None] if rate.ndim else rate, (math.prod(batch), *w.shape))
    # At rate 1 nothing is kept that could be scaled.
    scale = jnp.where(rate < 1, 1 / jnp.where(rate < 1, 1 - rate, 1), 0)
    scale = scale if scaling == "train" else jnp.ones_like(scale)

    def product(number: Array, row: Array) -> Array:
        return _product(masks, number[0], row, w, scale)

    count = math.prod(batch)
    numbers = jax.lax.broadcasted_iota(jnp.int32, (count, 1), 0)
    sharding = sharding_like(x, (*batch, 1))
    at_once = max(1, _AT_ONCE // max(1, w.size)) if chunk is None else int(chunk)
    if not is_known(count):  # a loop over an open number of rows has no last, smaller part
        at_once = 1
    # Rows that several devices of an Explicit mesh hold cannot be looped over.
    if (is_known(count) and at_once >= count) or (sharding is not None and chunk is None):
        numbers = numbers.reshape(*batch, 1)
        for _ in batch:
            product = jax.vmap(product)
        y = product(numbers if sharding is None else jax.sharding.reshard(numbers, sharding), x)
    else:
        rows = numbers, x.reshape(count, w.shape[0])
        y = jax.lax.map(
            lambda row: product(*row), rows, batch_size=at_once if at_once > 1 else None
        )
        y = y.reshape(*batch, w.shape[-1])
    if b is not None:
        y = y + b.reshape((1,) * (y.ndim - 1) + b.shape).astype(y.dtype)
    return y.astype(x.dtype)


_AT_ONCE = 2**18


@fused
def _product(masks: Mask, number: Array, x: Array, w: Array, scale: Array) -> Array:
    wide = jnp.promote_types(wide_dtype(x.dtype), wide_dtype(w.dtype))
    kept = jnp.where(masks.row(number).keep(), w.astype(wide) * scale.astype(wide), 0)
    return x.astype(wide) @ kept


def dropconnect_moments(
    x: ArrayLike,
    rate: ArrayLike,
    *,
    w: ArrayLike,
    b: ArrayLike | None = None,
    scaling: Literal["train", "test"] = "train",
) -> tuple[Array, Array]:
    """The exact mean and variance of `x @ w + b` over masks on w, of each output on its own.

    Args:
      x: floats, (..., inputs).
      rate: probability of dropping a weight, in [0, 1]; may be traced, or an array that broadcasts
        to w.
      w: weights, floats, (inputs, outputs).
      b: (outputs,), which is not dropped; or None.
      scaling: "test", as in the paper: mean (1 - rate) x @ w + b and variance
        rate (1 - rate) x**2 @ w**2. "train": those of weights divided by 1 - rate.

    Returns:
      The mean, of the dtype of x, and the variance, of at least float32; both (..., outputs). At
      rate 1, where nothing is random, b and 0.

    Raises:
      TypeError: x, w or b holds no floats.
      ValueError: rate outside [0, 1] or of a shape that does not fit; shapes of x, w and b that
        do not; a wrong scaling.

    Cost: no random bits; two products of matrices. x is kept for the backward pass, and in float32
      12 bytes a weight.

    Example:
      >>> import jax.numpy as jnp, dropjax
      >>> x, w = jnp.array([1.0, 2.0]), jnp.ones((2, 1))
      >>> dropjax.dropconnect_moments(x, 0.5, w=w, scaling="test")
      (Array([1.5], dtype=float32), Array([1.25], dtype=float32))
    """
    x, w, b = check_layer(x, w, b)
    check_choice(scaling, SCALINGS, "scaling")
    return _moments(x, as_rate(rate, w.shape), w, b, scaling)


def _moments(x: Array, rate: Array, w: Array, b: Array | None, scaling: str) -> tuple[Array, Array]:
    q = 1 - rate
    wide = jnp.promote_types(wide_dtype(x.dtype), wide_dtype(w.dtype))
    # Of one factor, 0 or its scale.
    if scaling == "train":
        mean = jnp.where(q > 0, 1, 0)
        variance = jnp.where(q > 0, rate / jnp.where(q > 0, q, 1), 0)
    else:
        mean, variance = q, rate * q
    mean_w = (w.astype(wide) * mean.astype(wide)).astype(x.dtype)
    b = None if b is None else b.astype(x.dtype)
    squares = jnp.square(w.astype(wide)) * variance.astype(wide)
    # The mean as the layer without noise has it, to the bit; squares would lose too much.
    return dense(x, mean_w, b), variance_through(x, squares)


def dropconnect_gaussian(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    w: ArrayLike,
    b: ArrayLike | None = None,
    scaling: Literal["train", "test"] = "train",
) -> Array:
    """A dense layer `x @ w + b` with Gaussian noise of the moments of DropConnect.

    The paper's inference averages what follows over samples of this. In training, it is
    DropConnect with a mask for each row, at the cost of one product more.

    Args:
      key: PRNG key, typed or raw; one call makes one sample, `jax.vmap` over keys several.
      x: floats, (..., inputs); each row has noise of its own.
      rate: probability of dropping a weight, in [0, 1]; may be traced, or an array that broadcasts
        to w. Typical: 0.5.
      w: weights, floats, (inputs, outputs).
      b: (outputs,), which is not dropped; or None.
      scaling: "train" for the moments of weights divided by 1 - rate, which suit the weights of a
        model trained so; "test" for those of the paper. See `dropconnect_moments`.

    Returns:
      An array (..., outputs) of the dtype of x. Rate 1 gives b, rate 0 the layer without noise.

    Raises:
      TypeError: x, w or b holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; shapes of x, w and b that
        do not; a wrong scaling.

    Cost: 32 random bits an output; two products of matrices instead of one. x, the variance
      of each output and in float32 12 bytes a weight are kept for the backward pass.

    Source: Wan et al. 2013, section 3, algorithm 2; as training noise: Wang, Manning 2013, "Fast
      dropout training" (ICML).

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> x, w = jnp.ones((8, 3)), jnp.ones((3, 2))
      >>> dropjax.dropconnect_gaussian(jax.random.key(0), x, 0.5, w=w).shape
      (8, 2)
    """
    key = check_key(key)
    x, w, b = check_layer(x, w, b)
    check_choice(scaling, SCALINGS, "scaling")
    mean, variance = _moments(x, as_rate(rate, w.shape), w, b, scaling)
    return around(Normal.of(key, mean.shape), mean, variance)


def expected_linear(
    x: ArrayLike,
    rate: ArrayLike,
    *,
    w: ArrayLike,
    b: ArrayLike | None = None,
    scaling: Literal["train", "test"] = "train",
) -> Array:
    """The exact expectation of `dropconnect_linear` and of `dropconnect_gaussian`.

    Args:
      x: floats, (..., inputs).
      rate: probability of dropping a weight, in [0, 1].
      w: weights, floats, (inputs, outputs).
      b: (outputs,) or None.
      scaling: as the op was called.

    Returns:
      `x @ w + b`, with w multiplied by 1 - rate if scaling is "test"; of the dtype of x. At rate 1
      it is b, as the mean of `dropconnect_moments` is.

    Raises:
      TypeError: x, w or b holds no floats.
      ValueError: rate outside [0, 1]; shapes of x, w and b that do not fit; a wrong scaling.

    Cost: no random bits; a product of matrices; x and w are kept for the backward pass.
    """
    x, w, b = check_layer(x, w, b)
    b = None if b is None else b.astype(x.dtype)
    return dense(x, expected_drop(w, rate, scaling).astype(x.dtype), b)


@scheme
class DropConnect(Scheme):
    """DropConnect on dense layers and recurrent kernels.

    With `mode="gaussian"` the noise on weights is Gaussian, with the masks' mean and variance, and
    each example has its own. A dense layer then draws its outputs, independently for each row, and
    makes no noisy weights.

    Args:
      rate: the probability of dropping a weight, in [0, 1].
      mode: "batch", one mask for the whole batch of a step; "example", a mask for each example;
        "gaussian", normal noise for each example.
      scaling: "train" divides what is kept by 1 - rate, in training; "test" multiplies by 1 - rate
        in evaluation instead.
    """

    rate: Rate = 0.5
    mode: Literal["batch", "example", "gaussian"] = "batch"
    scaling: Literal["train", "test"] = "train"

    acts_on: ClassVar = frozenset({Kind.WEIGHT, Kind.LINEAR})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask | Normal:
        if self.mode == "gaussian":
            return Normal.of(keys.example, shape)
        return Mask.of(keys.step if self.mode == "batch" else keys.example, self.rate, shape)

    def apply(self, noise: Mask | Normal, x: Array, site: Site, fallback: Array | None) -> Array:
        if isinstance(noise, Normal):
            return expected_drop(multiply(noise, x, self.rate), self.rate, self.scaling)
        return drop(noise, x, self.rate, self.scaling)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate, self.scaling)

    def linear(self, keys: Keys, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        if self.mode == "gaussian":
            mean, variance = _moments(x, as_rate(self.rate, w.shape), w, b, self.scaling)
            return around(Normal.of(keys.example, mean.shape), mean, variance)
        return super().linear(keys, x, w, b, site)
