"""Shake-shake: a random convex combination of two branches, another one backward.

Source: Gastaldi 2017, "Shake-Shake regularization" (arXiv 1705.07485), section 1.1: "Shake-Shake"
with a number for each image, or for the batch; at test time both branches weigh one half.
"""

from collections.abc import Sequence

import jax
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.checks import check_floating, normalize_axes
from dropjax.ops.keys import check_key, derive
from dropjax.ops.uniform import uniform

Array = jax.Array


@jax.custom_jvp
def _mixed(a: Array, b: Array, forward: Array, backward: Array) -> Array:
    del backward
    return _mix(a, b, forward)


@_mixed.defjvp
def _mixed_jvp(
    primals: tuple[Array, Array, Array, Array], tangents: tuple[Array, Array, Array, Array]
) -> tuple[Array, Array]:
    (a, b, forward, backward), (to_a, to_b, _, _) = primals, tangents
    return _mix(a, b, forward), _mix(to_a, to_b, backward)


def _mix(a: Array, b: Array, weight: Array) -> Array:
    wide = wide_dtype(a.dtype)
    weight = weight.astype(wide)
    return (weight * a.astype(wide) + (1 - weight) * b.astype(wide)).astype(a.dtype)


def shake_shake(
    key: Array, a: ArrayLike, b: ArrayLike, *, batch_axes: int | Sequence[int]
) -> Array:
    """u a + (1 - u) b with u uniform in [0, 1]; the gradient has another such number.

    Args:
      key: PRNG key, typed or raw.
      a: a branch before it is added, floats of any shape.
      b: another, of the shape and dtype of a.
      batch_axes: the axes that hold examples, each with numbers of its own, 0 for an ordinary
        batch; () for one number for all, or for a single example under `jax.vmap` over keys.

    Returns:
      An array of the shape and dtype of a. The gradient is that of v a + (1 - v) b, with v uniform
      in [0, 1] and independent of u; in forward mode too. At test time use `(a + b) / 2`, the exact
      expectation.

    Raises:
      TypeError: a or b holds no floats, or key is no PRNG key.
      ValueError: b is not like a; a wrong axis.

    Cost: 32 random bits an example forward, and 32 backward; about the time of reading both and
      writing the result. A few bytes an example are kept for the backward pass.

    Source: Gastaldi 2017, section 1.1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dropjax.blocks import shake_shake
      >>> y = shake_shake(jax.random.key(0), jnp.ones(3), jnp.zeros(3), batch_axes=0)
      >>> [round(float(number), 2) for number in y]
      [0.97, 0.5, 0.6]
    """
    key, a, b = check_key(key), check_floating(a, "a"), check_floating(b, "b")
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"b must be like a: {b.dtype}{list(b.shape)} is not {a.dtype}{list(a.shape)}"
        )
    own = normalize_axes(batch_axes, a.ndim, "batch_axes")
    shape = [size if axis in own else 1 for axis, size in enumerate(a.shape)]
    forward, backward = (uniform(derive(key, name), shape) for name in ("forward", "backward"))
    return _mixed(a, b, forward, backward)
