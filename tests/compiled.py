"""One program for what a test computes. Outside of `jax.jit`, JAX compiles each operation alone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import dropjax
import dropjax.expected
from dropjax.core.draw import sampled
from tests.conftest import IN_A_HURRY

jit = functools.partial(jax.jit, compiler_options=IN_A_HURRY)
"""`jax.jit` with few optimisations, for a program that runs once. Not for use inside another."""


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as one program for each structure, shape and fixed value of its arguments.

    Arrays are arguments of the program. All else (numbers, texts, functions) is fixed in it, as it
    is where `f` is called without `jax.jit`. The results are arrays of NumPy. The program is
    compiled with few optimisations: they would take longer than it runs.
    """
    programs: dict[Any, Callable[..., Any]] = {}

    @functools.wraps(f)
    def call(*args: Any, **named: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, named))
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray)]
        fixed = [None if isinstance(leaf, jax.Array | np.ndarray) else leaf for leaf in leaves]
        program = (structure, *((type(value), value) for value in fixed))

        def of_arrays(arrays: list[Any]) -> Any:
            given = iter(arrays)
            whole = [next(given) if value is None else value for value in fixed]
            args, named = jax.tree.unflatten(structure, whole)
            return f(*args, **named)

        if any(isinstance(leaf, jax.core.Tracer) for leaf in arrays):
            return f(*args, **named)  # a part of a larger program
        if program not in programs:
            programs[program] = jit(of_arrays)
        return jax.tree.map(in_numpy, programs[program](arrays))

    return call


def in_numpy(value: Any) -> Any:
    """The array in NumPy, unless it holds keys."""
    return np.asarray(value) if isinstance(value, jax.Array) and not is_key(value) else value


def is_key(value: jax.Array) -> bool:
    return jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


class Functions:
    """The functions of a module, each as `compiled` makes it."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = compiled(getattr(self.module, name))
        setattr(self, name, function)
        return function


ops, expected = Functions(dropjax), Functions(dropjax.expected)
"""`dropjax` and `dropjax.expected`."""


@compiled
def draw_at(scheme: Any, keys: Any, x: Any, site: Any, fallback: Any = None) -> Any:
    """What a scheme makes of x at a site, with noise of these keys."""
    return sampled(scheme, keys)(x, site, fallback)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ones(*shape: int) -> np.ndarray:
    """Ones in float32."""
    return np.ones(shape, np.float32)
