"""Predictions over a data set: deterministic, and averaged over draws of the noise.

Functions here take anyone's model as a function of one example. The noise of example i in sample s
depends on the key, i and s alone, so the batch size changes results by rounding at most.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from dropjax.core.keys import Keys
from dropjax.ops.checks import is_known
from dropjax.ops.keys import check_key, derive

Array = jax.Array


class NoNoiseError(ValueError):
    """Draws were asked for of a function that has no noise: each would be the same."""


def sample_key_of(key: Array, sample: Any) -> Array:
    """The key of a Monte-Carlo sample. `Keys.of(..., row, sample)` makes an example's of it."""
    return derive(key, sample)


def map_examples(
    function: Callable[..., Any], params: Any, xs: Any, *, batch_size: int = 1000
) -> Any:
    """`function(params, x)` of every example.

    Args:
      function: of one example. Compiled once for each function object and shape.
      params: its parameters.
      xs: (examples, ...), or a tree of such arrays.
      batch_size: examples computed at a time; bounds the memory. If their number is left open, as
        in `jax.export`, all are computed at once.

    Returns:
      What `function` returns, with a leading axis of examples.

    Raises:
      TypeError: xs is neither an array nor a tree of arrays.
      ValueError: the arrays of xs differ in their number of examples; batch_size is less than 1.

    Cost: that of `function`, random bits included, for batch_size examples at a time. What it keeps
      is kept for the backward pass, of all examples.
    """
    _check_examples(xs)
    return _map_examples(function, params, xs, _check_count("batch_size", batch_size, 1))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _map_examples(
    function: Callable[[Any, Any], Any], params: Any, xs: Any, batch_size: int
) -> Any:
    return _each(lambda x: function(params, x), xs, batch_size)


def _each(function: Callable[[Any], Any], xs: Any, batch_size: int) -> Any:
    """`function` of every example, `batch_size` of them at a time."""
    if is_known(_count(xs)):
        return jax.lax.map(function, xs, batch_size=batch_size)
    return jax.vmap(function)(xs)


def monte_carlo(
    function: Callable[[Any, Any, Any], Any],
    params: Any,
    xs: Any,
    key: Array,
    *,
    samples: int,
    batch_size: int = 1000,
    of_keys: bool = False,
) -> tuple[Any, Any]:
    """Mean and standard deviation of a noisy function over independent draws.

    Args:
      function: (params, x, key) -> value, of one example: anyone's model. Compiled once for each
        function object.
      params: its parameters.
      xs: (examples, ...), or a tree of such arrays.
      key: PRNG key.
      samples: draws an example, at least 2. Typical: 20 to 100.
      batch_size: examples computed at a time, as in `map_examples`.
      of_keys: `function` takes all of an example's `Keys`, so that noise on weights can be shared
        by all examples of a sample.

    Returns:
      The mean and the sample standard deviation (divided by samples - 1), each of what `function`
      returns with a leading axis of examples, in float32 at least.

    Raises:
      NoNoiseError: a ValueError: the value of `function` does not depend on its key, so that each
        draw would be the same.
      ValueError: the arrays of xs differ in their number of examples; samples is less than 2, or
        batch_size than 1.
      TypeError: the values are complex, or xs is neither an array nor a tree of arrays.

    Cost: `samples` times that of `function`, random bits included, and its memory for batch_size
      examples. What it keeps is kept for the backward pass, of all samples, and 8 bytes a value of
      each.

    Source: Gal & Ghahramani 2016, "Dropout as a Bayesian Approximation" (arXiv 1506.02142),
      section 4.
    """
    function = function if of_keys else _OfKey(function)
    return _over_samples(function, params, xs, key, _MOMENTS, samples, batch_size, least=2)


def monte_carlo_samples(
    function: Callable[[Any, Any, Any], Any],
    params: Any,
    xs: Any,
    key: Array,
    *,
    samples: int,
    batch_size: int = 1000,
    of_keys: bool = False,
) -> Any:
    """The values of a noisy function under independent draws, each for itself.

    `monte_carlo` returns their mean and standard deviation, in less memory.

    Args:
      function: (params, x, key) -> value, of one example: anyone's model. Compiled once for each
        function object.
      params: its parameters.
      xs: (examples, ...), or a tree of such arrays.
      key: PRNG key. The draws are those that the other functions here average for it.
      samples: draws of each example, at least 1.
      batch_size: examples computed at a time, as in `map_examples`.
      of_keys: as in `monte_carlo`.

    Returns:
      What `function` returns, with two leading axes: (samples, examples, ...).

    Raises:
      NoNoiseError: a ValueError: the value of `function` does not depend on its key, so that each
        draw would be the same.
      ValueError: the arrays of xs differ in their number of examples; samples or batch_size is less
        than 1.
      TypeError: xs is neither an array nor a tree of arrays.

    Cost: `samples` times that of `function`, random bits included, and its memory for batch_size
      examples, beside the values. What `function` keeps is kept for the backward pass, of all
      samples.

    Example:
      >>> import dropjax, jax, jax.numpy as jnp
      >>> from dropjax import evaluate
      >>> f = lambda params, x, key: dropjax.dropout(key, x, 0.5)
      >>> evaluate.monte_carlo_samples(f, (), jnp.ones((5, 3)), jax.random.key(0), samples=9).shape
      (9, 5, 3)
    """
    function = function if of_keys else _OfKey(function)
    return _over_samples(function, params, xs, key, None, samples, batch_size, least=1)


def monte_carlo_log_probabilities(
    function: Callable[[Any, Any, Keys], Array],
    params: Any,
    xs: Any,
    key: Array,
    *,
    samples: int,
    batch_size: int = 1000,
) -> Array:
    """The logarithm of class probabilities averaged over draws.

    Probabilities are averaged, not logarithms or logits; in log space, so that a probability too
    small for float32 is not lost.

    Args:
      function: (params, x, keys) -> log-probabilities (classes,), of one example. It gets `Keys`,
        not a key: noise on weights is shared by all examples of a sample.
      params: its parameters.
      xs: (examples, ...), or a tree of such arrays.
      key: PRNG key.
      samples: draws an example, at least 1.
      batch_size: examples computed at a time, as in `map_examples`.

    Returns:
      (examples, classes).

    Raises:
      NoNoiseError: a ValueError: the value of `function` does not depend on its keys, so that
        each draw would be the same.
      ValueError: the arrays of xs differ in their number of examples; samples or batch_size is less
        than 1.
      TypeError: xs is neither an array nor a tree of arrays.

    Cost: `samples` times that of `function`, random bits included, and its memory for batch_size
      examples. What it keeps is kept for the backward pass, of all samples, and 8 bytes a class of
      each.
    """
    return _over_samples(function, params, xs, key, _LOG_MEAN_EXP, samples, batch_size, least=1)


def _check_examples(xs: Any) -> None:
    leaves = jax.tree.leaves(xs)
    for leaf in leaves or [xs]:
        if not getattr(leaf, "shape", ()):  # a number in a list of lists, say
            raise TypeError(
                "xs must be an array (examples, ...) or a tree of such arrays; got "
                f"{type(xs).__name__}{'' if leaf is xs else f' of {type(leaf).__name__}'}. Make it "
                "one first: np.asarray(xs)"
            )
    if any(leaf.shape[0] != leaves[0].shape[0] for leaf in leaves):
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(
            f"the arrays of xs must have as many examples each; their shapes: {shapes}"
        )


def _count(xs: Any) -> int:
    """How many examples there are."""
    return jax.tree.leaves(xs)[0].shape[0]


def _check_count(name: str, value: int, least: int) -> int:
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


class _Reduction(NamedTuple):
    """How values are gathered over samples, one at a time, so that memory does not grow."""

    start: Callable[[Any], Any]  # of the value's shape
    update: Callable[[Any, Any, Array], Any]  # of what is gathered, the value, its number from 0
    end: Callable[[Any, int], Any]  # of what is gathered, the number of samples


def _zeros(shape: Any) -> Any:
    """Zeros of a tree's shapes, wide enough to sum many small terms."""

    def zeros(leaf: Any) -> Array:
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError("a function with complex values has no such moments; take parts of it")
        small = not jnp.issubdtype(leaf.dtype, jnp.floating) or jnp.finfo(leaf.dtype).bits < 32
        return jnp.zeros(leaf.shape, jnp.float32 if small else leaf.dtype)

    return jax.tree.map(zeros, shape)


def _welford(carry: Any, value: Any, number: Array) -> Any:
    def grow(mean: Array, squares: Array, value: Array) -> tuple[Array, Array]:
        value = value.astype(mean.dtype)
        new = mean + (value - mean) / (number.astype(mean.dtype) + 1)
        return new, squares + (value - mean) * (value - new)

    grown = jax.tree.map(grow, *carry, value)
    return jax.tree.transpose(jax.tree.structure(value), jax.tree.structure((0, 0)), grown)


_MOMENTS = _Reduction(
    start=lambda shape: (_zeros(shape), _zeros(shape)),
    update=_welford,
    end=lambda carry, n: (carry[0], jax.tree.map(lambda s: jnp.sqrt(s / (n - 1)), carry[1])),
)
_LOG_MEAN_EXP = _Reduction(
    start=lambda shape: jnp.full(shape.shape, -jnp.inf, shape.dtype),
    update=lambda carry, value, number: jnp.logaddexp(carry, value),
    end=lambda carry, n: carry - math.log(n),
)


@dataclasses.dataclass(frozen=True)
class _OfKey:
    """A function of a key as one of keys; equal for equal functions, so that it compiles once."""

    function: Callable[[Any, Any, Array], Any]

    def __call__(self, params: Any, x: Any, keys: Keys) -> Any:
        return self.function(params, x, keys.example)


def _depends_on_inputs(jaxpr: Any) -> bool:
    """Whether any output needs any input: what is computed and not used does not count."""
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return any(used)


def _over_samples(
    function: Callable[[Any, Any, Keys], Any],
    params: Any,
    xs: Any,
    key: Array,
    reduction: "_Reduction | None",
    samples: int,
    batch_size: int,
    *,
    least: int,
) -> Any:
    """What is gathered of each example, once the arguments are checked; see `_gathered`."""
    _check_examples(xs)
    samples = _check_count("samples", samples, least)
    batch_size = _check_count("batch_size", batch_size, 1)
    return _gathered(function, params, xs, check_key(key), reduction, samples, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _gathered(
    function: Callable[[Any, Any, Keys], Any],
    params: Any,
    xs: Any,
    key: Array,
    reduction: _Reduction | None,
    samples: int,
    batch_size: int,
) -> Any:
    """What is gathered of each example over samples; without a reduction the value of each."""
    rows = jnp.arange(_count(xs))

    def of_example(x_and_row: tuple[Any, Array]) -> Any:
        x, row = x_and_row

        def value(sample: Array) -> Any:
            return function(params, x, Keys.of(sample_key_of(key, sample), row, sample + 1))

        jaxpr, shape = jax.make_jaxpr(value, return_shape=True)(jnp.int32(0))
        if not _depends_on_inputs(jaxpr.jaxpr):  # the number of the sample, which makes its keys
            raise NoNoiseError(
                "the value of `function` does not depend on its key: each draw would be the same, "
                "and their spread 0. Let it draw noise (in Flax deterministic=False or train=True, "
                "in Equinox inference=False), and give that the key"
            )
        if reduction is None:
            return jax.lax.map(value, jnp.arange(samples))
        start, update, end = reduction

        def body(carry: Any, sample: Array) -> tuple[Any, None]:
            return update(carry, value(sample), sample), None

        carry, _ = jax.lax.scan(body, start(shape), jnp.arange(samples))
        return end(carry, samples)

    gathered = _each(of_example, (xs, rows), batch_size)
    if reduction is None:
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), gathered)
    return gathered
