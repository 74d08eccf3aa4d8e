"""Convolutions and pooling of single images, fast where XLA is not.

XLA's own convolution is nine times slower inside a loop than outside on a CPU. There it is written
as patches and a matrix product instead, which is faster than either.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

Array = jax.Array


def conv(x: Array, w: Array, *, padding: Literal["same", "valid"] = "same") -> Array:
    """A convolution with stride 1.

    Args:
      x: (..., height, width, inputs).
      w: (kernel_height, kernel_width, inputs, outputs), both of odd size.
      padding: "same" puts zeros around the image, which keeps its size; "valid" does not, and each
        side becomes smaller by that of the kernel less 1.

    Returns:
      (..., height, width, outputs): the cross-correlation, as all frameworks have it.

    Raises:
      ValueError: padding is neither, or with "valid" the kernel is larger than the image.
    """
    if padding not in ("same", "valid"):
        raise ValueError(f'padding must be "same" or "valid", got {padding!r}')
    if padding == "valid" and (x.shape[-3] < w.shape[0] or x.shape[-2] < w.shape[1]):
        raise ValueError(
            f'padding="valid": the kernel, {w.shape[0]} x {w.shape[1]}, is larger than the image, '
            f"{x.shape[-3]} x {x.shape[-2]}"
        )
    by = functools.partial
    return jax.lax.platform_dependent(
        x, w, cpu=by(_by_patches, padding), default=by(_by_xla, padding)
    )


def _by_patches(padding: str, x: Array, w: Array) -> Array:
    rows, columns, inputs, outputs = w.shape
    padded = x
    if padding == "same":
        around = [(0, 0)] * (x.ndim - 3) + [(rows // 2,) * 2, (columns // 2,) * 2, (0, 0)]
        padded = jnp.pad(x, around)
    height, width = padded.shape[-3] - rows + 1, padded.shape[-2] - columns + 1
    patches = [
        padded[..., i : i + height, j : j + width, :] for i in range(rows) for j in range(columns)
    ]
    # A primitive with the gradient x.T @ ct took a quarter less time in training on a CPU; but
    # jaxlib 0.12.0.1 computes that one wrongly inside loops.
    return jnp.concatenate(patches, axis=-1) @ w.reshape(rows * columns * inputs, outputs)


def _by_xla(padding: str, x: Array, w: Array) -> Array:
    images = x.reshape((-1, *x.shape[-3:]))
    y = jax.lax.conv_general_dilated(
        images, w, (1, 1), padding.upper(), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.reshape((*x.shape[:-3], *y.shape[1:]))


def pool(x: Array, kind: str) -> Array:
    """Halves height and width; a last odd row or column is left out.

    By reshaping: the gradient of XLA's window maximum is slow on CPUs, and refused on GPUs where
    results must be deterministic.

    Args:
      x: (..., height, width, channels), both at least 2.
      kind: "max" or "average" of each 2 x 2 window. Where several are the largest, they share the
        gradient.
    """
    height, width, channels = x.shape[-3:]
    h, w = height // 2, width // 2
    windows = x[..., : 2 * h, : 2 * w, :].reshape((*x.shape[:-3], h, 2, w, 2, channels))
    return windows.max((-4, -2)) if kind == "max" else windows.mean((-4, -2))
