"""Deriving keys by name and number.

Everything random in dropjax hangs off one run key, and every step down the tree is a `fold_in`.
`jax.random.split` is never used: `split(key, n)[i]` and `fold_in(key, i)` are the *same* key in
today's JAX, so a tree that mixes them can hand out one key twice.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def derive(key: jax.Array, *labels: str | ArrayLike) -> jax.Array:
    """The key below `key` at the given labels, one `fold_in` for each.

    Args:
      key: a PRNG key, typed or raw.
      *labels: names, hashed by crc32 (stable across processes and machines, unlike Python's
        `hash`), or integers in [0, 2**32), which may be traced. Give each level of a tree labels
        of one sort, all names or all numbers, so that no number can equal a name's hash.

    Returns:
      A key of the same kind.

    Raises:
      TypeError: a label is neither a name nor an integer.
      ValueError: a label is out of range.
    """
    for label in labels:
        key = _fold_in(key, _number(label))
    return key


def _fold_in(key: jax.Array, number: ArrayLike) -> jax.Array:
    """`fold_in` with the same result under `jax.vmap` as in a loop.

    JAX's own differs there for keys of `unsafe_rbg`, so that of `rbg` is used for them.
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if str(jax.random.key_impl(key)) != "unsafe_rbg":
        return jax.random.fold_in(key, number)
    words = jax.random.key_data(key) if typed else key
    words = jax.random.key_data(
        jax.random.fold_in(jax.random.wrap_key_data(words, impl="rbg"), number)
    )
    return jax.random.wrap_key_data(words, impl="unsafe_rbg") if typed else words


def name_number(name: str) -> np.uint32:
    """The number that a name stands for: its crc32."""
    return np.uint32(zlib.crc32(name.encode()))


def _number(label: str | ArrayLike) -> ArrayLike:
    if isinstance(label, str):
        return name_number(label)
    if isinstance(label, bool) or not jnp.issubdtype(jnp.result_type(label), jnp.integer):
        raise TypeError(f"a label must be a name or an integer, got {label!r}")
    if isinstance(label, (int, np.integer)) and not 0 <= label < 2**32:
        raise ValueError(f"a label must be in [0, 2**32), got {label}")
    return label


def check_key(key: jax.Array, name: str = "key") -> jax.Array:
    """Returns `key` as one typed PRNG key, or says what is wrong with it.

    Args:
      key: a typed key of shape (), or a raw `uint32` key such as `jax.random.PRNGKey` returns.
      name: what the caller calls it.

    Raises:
      TypeError: it is no key at all.
      ValueError: it is a batch of keys.
    """
    if not isinstance(key, jax.Array) and hasattr(key, "__jax_array__"):  # a framework's variable
        key = key.__jax_array__()  # type: ignore[attr-defined]
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise TypeError(
            f"{name} must be a PRNG key such as jax.random.key(0), got {type(key).__name__}"
        )
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.dtype != np.uint32:
            raise TypeError(
                f"{name} must be a PRNG key such as jax.random.key(0), got an array of "
                f"{key.dtype}{list(key.shape)}"
            )
        if key.ndim != 1:
            raise ValueError(
                f"{name} must be one raw key, got uint32{list(key.shape)}; use jax.vmap over keys"
            )
        try:
            key = jax.random.wrap_key_data(jnp.asarray(key))
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} must be a key of the default PRNG, got uint32{list(key.shape)}"
            ) from None
    key = jnp.asarray(key)
    if key.ndim:
        raise ValueError(f"{name} must be one key, got {list(key.shape)}; use jax.vmap over keys")
    return key
