"""Argument checks. Concrete values are checked; traced ones cannot be, as the docstrings say."""

import operator
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.core import Tracer
from jax.sharding import AxisType
from jax.typing import ArrayLike

Array: TypeAlias = jax.Array


def check_floating(x: ArrayLike, name: str = "x") -> Array:
    """Returns `x` as a JAX array of a floating (or complex) dtype.

    Raises:
      TypeError: `x` is no array, or holds integers or booleans: scaled noise on these would be
        truncated or would silently change their dtype.
    """
    if not isinstance(x, jax.Array) and hasattr(x, "__jax_array__"):  # a framework's variable
        x = x.__jax_array__()  # type: ignore[union-attr]
    if not isinstance(x, (jax.Array, np.ndarray, np.generic, float, complex)):
        raise TypeError(f"{name} must be an array of floats, got {type(x).__name__}")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(
            f"{name} must be an array of floats, got {x.dtype}{list(x.shape)}; "
            f"convert it first, for example {name}.astype(jnp.float32)"
        )
    return x


def check_real(x: ArrayLike, name: str = "x") -> Array:
    """Returns `x` as `check_floating` does, for what has no meaning for complex numbers.

    Raises:
      TypeError: `x` is no array, or holds integers, booleans or complex numbers.
    """
    x = check_floating(x, name)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"{name} must be an array of real floats, got {x.dtype}{list(x.shape)}")
    return x


def check_rate_value(rate: ArrayLike, name: str = "rate") -> None:
    """Refuses a concrete rate that is no number, is NaN, or lies outside [0, 1].

    Raises:
      TypeError: it is not a number or an array of floats.
      ValueError: it is out of range.
    """
    value = _number(rate, name, "a number in [0, 1]")
    if value is not None and not np.all((value >= 0) & (value <= 1)):
        raise ValueError(f"{name} is the probability of dropping, in [0, 1]; got {rate!r}")


def check_spread_value(spread: ArrayLike, name: str = "std") -> None:
    """Refuses a concrete standard deviation or variance that is no finite number of at least 0.

    Raises:
      TypeError: it is not a number or an array of floats.
      ValueError: it is out of range.
    """
    value = _number(spread, name, "a number, at least 0")
    if value is not None and not np.all((value >= 0) & np.isfinite(value)):
        raise ValueError(f"{name} must be finite and at least 0; got {spread!r}")


def check_fixed_value(value: float, name: str) -> None:
    """Refuses anything but a finite number at hand, neither traced nor an array.

    Raises:
      TypeError: it is something else.
      ValueError: it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        raise TypeError(f"{name} must be a number, not traced, as it decides shapes; got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")


def check_number_value(value: ArrayLike, name: str) -> None:
    """Refuses a concrete value that is no number or is not finite.

    Raises:
      TypeError: it is not a number or an array of floats.
      ValueError: it is not finite.
    """
    number = _number(value, name, "a number")
    if number is not None and not np.all(np.isfinite(number)):
        raise ValueError(f"{name} must be finite, got {value!r}")


def check_between(value: ArrayLike, name: str, low: float, high: float) -> None:
    """Refuses a concrete value outside the open interval (low, high).

    Raises:
      TypeError: it is not a number or an array of floats.
      ValueError: it is out of range.
    """
    number = _number(value, name, f"a number in ({low:g}, {high:g})")
    if number is not None and not np.all((number > low) & (number < high)):
        raise ValueError(f"{name} must be in ({low:g}, {high:g}); got {value!r}")


def _number(value: ArrayLike, name: str, allowed: str) -> np.ndarray | None:
    """A concrete value in float64, None if it is traced."""
    if not isinstance(value, (int, float, np.generic, np.ndarray, Array)):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating) and not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    return None if isinstance(value, Tracer) else np.asarray(value).astype(np.float64)


def as_rate(
    rate: ArrayLike, shape: Sequence[int], name: str = "rate", dtype: jnp.dtype | type = jnp.float32
) -> Array:
    """Returns a checked rate, of rank 0 or of the rank of `shape`, without a gradient.

    The dtype is pinned (float32 for masks) so that neither x64 mode nor a low-precision rate can
    change a mask: a bfloat16 rate of 0.001 would otherwise drop 0.8 %.

    Args:
      rate: a Python number, or a scalar or array that broadcasts to `shape`; may be traced, and is
        then not checked for range.
      shape: the shape of the noise that it is for.
      name: what the caller calls it.
      dtype: of the result.

    Raises:
      TypeError: it is not a number.
      ValueError: it lies outside [0, 1] or does not broadcast to `shape`.
    """
    check_rate_value(rate, name)
    return jax.lax.stop_gradient(fitted(rate, shape, name, dtype))


def as_spread(
    spread: ArrayLike,
    shape: Sequence[int],
    name: str = "std",
    dtype: jnp.dtype | type = jnp.float32,
) -> Array:
    """Returns a checked standard deviation or variance, as `as_rate` returns a rate.

    Args:
      spread: a number, or a scalar or array that broadcasts to `shape`; may be traced, and is then
        not checked for range.
      shape: the shape of the noise that it is for.
      name: what the caller calls it.
      dtype: of the result.

    Raises:
      TypeError: it is not a number.
      ValueError: it is negative or not finite, or does not broadcast to `shape`.
    """
    check_spread_value(spread, name)
    return jax.lax.stop_gradient(fitted(spread, shape, name, dtype))


def fitted(value: ArrayLike, shape: Sequence[int], name: str, dtype: jnp.dtype | type) -> Array:
    """Returns a value of rank 0 or of the rank of `shape`, with its gradient.

    Args:
      value: a number, or a scalar or array that broadcasts to `shape`.
      shape: what it is for.
      name: what the caller calls it.
      dtype: of the result.

    Raises:
      ValueError: it does not broadcast to `shape`.
    """
    value = jnp.asarray(value).astype(dtype)
    if value.ndim == 0:
        return value
    # Not by NumPy's function: a size may be symbolic.
    pairs = zip(reversed(value.shape), reversed(shape), strict=False)
    if value.ndim > len(shape) or not all(own in (1, size) for own, size in pairs):
        raise ValueError(
            f"{name} of shape {value.shape} does not broadcast to the noise, of shape "
            f"{tuple(shape)}"
        )
    return value.reshape((1,) * (len(shape) - value.ndim) + value.shape)


def check_like(x: ArrayLike, previous: ArrayLike, name: str = "x") -> tuple[Array, Array]:
    """Returns two arrays of one shape and one floating dtype, the second named previous.

    Raises:
      TypeError: one holds no floats.
      ValueError: they differ.
    """
    x, previous = check_floating(x, name), check_floating(previous, "previous")
    if x.shape != previous.shape or x.dtype != previous.dtype:
        raise ValueError(
            f"previous must have the shape and dtype of {name}, {x.dtype}{list(x.shape)}; got "
            f"{previous.dtype}{list(previous.shape)}"
        )
    return x, previous


def is_known(size: int) -> bool:
    """Whether a size is a number: with `jax.export` a function may leave it open, as a symbol."""
    return isinstance(size, (int, np.integer)) or not export.is_symbolic_dim(size)


def check_known(shape: Sequence[int], axes: Iterable[int], why: str) -> None:
    """Refuses symbolic sizes where numbers are needed.

    Args:
      shape: of a value.
      axes: those whose sizes must be known.
      why: what depends on them.

    Raises:
      ValueError: one is symbolic.
    """
    for axis in axes:
        if not is_known(shape[axis]):
            raise ValueError(
                f"the size of axis {axis} must be a number, as {why}; it is the symbol "
                f"{shape[axis]}. Only other axes can be left open in jax.export"
            )


def check_whole(x: Array, axis: int, why: str, name: str = "x") -> None:
    """Refuses an array that several devices share along an axis, on a mesh with Explicit axes.

    Args:
      x: the array.
      axis: that has to be whole on each device.
      why: what is done along it.
      name: what the caller calls x.

    Raises:
      ValueError: it is sharded.
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return
    spec = [*sharding.spec, *[None] * (x.ndim - len(sharding.spec))]
    if spec[axis] is not None:
        whole = ["None" if i == axis % x.ndim else repr(part) for i, part in enumerate(spec)]
        raise ValueError(
            f"axis {axis} of {name} is sharded over {spec[axis]!r} on a mesh with Explicit axes, "
            f"and {why} along it; first make it whole on each device: "
            f"{name} = jax.sharding.reshard({name}, jax.P({', '.join(whole)}))"
        )


def check_shape(shape: Sequence[int], name: str = "shape") -> tuple[int, ...]:
    """Returns a shape as a tuple of integers, or of symbolic sizes where `jax.export` has them.

    Raises:
      TypeError: it is no sequence of integers.
      ValueError: a size is negative.
    """
    try:
        sizes = tuple(operator.index(size) if is_known(size) else size for size in shape)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of integers, got {shape!r}") from None
    if any(size < 0 for size in sizes):
        raise ValueError(f"{name} must hold no negative size, got {sizes}")
    return sizes


def normalize_axes(axes: int | Sequence[int], ndim: int, name: str) -> tuple[int, ...]:
    """Returns axes as sorted numbers in [0, ndim).

    Raises:
      TypeError: an axis is no integer.
      ValueError: an axis is out of range or named twice.
    """
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    if not all(isinstance(a, (int, np.integer)) and not isinstance(a, bool) for a in given):
        raise TypeError(f"{name} must be an axis or several, as integers; got {axes!r}")
    axes = [int(axis) for axis in given]  # type: ignore[arg-type]
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(f"{name} names axis {axis}, but x has {ndim} axes")
    positive = tuple(sorted(axis % ndim for axis in axes))
    if len(set(positive)) != len(positive):
        raise ValueError(f"{name} names an axis twice: {tuple(axes)}")
    return positive


def check_layer(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    """Returns the inputs, weights and bias of a dense layer as JAX arrays.

    Raises:
      TypeError: one of them holds no floats.
      ValueError: w is no matrix, or their shapes do not fit.
    """
    x, w = check_floating(x), check_floating(w, "w")
    if w.ndim != 2:
        raise ValueError(f"w must be a matrix (inputs, outputs), got shape {w.shape}")
    if not x.ndim or x.shape[-1] != w.shape[0]:
        raise ValueError(f"x of shape {x.shape} does not fit w, of shape {w.shape}")
    if b is None:
        return x, w, None
    b = check_floating(b, "b")
    if b.shape != w.shape[1:]:
        raise ValueError(f"b of shape {b.shape} does not fit w, of shape {w.shape}")
    return x, w, b


def check_choice(value: str, choices: Sequence[str], name: str) -> None:
    """Refuses a value that is not one of `choices`.

    Raises:
      ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
