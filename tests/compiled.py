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


def jit(f: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` with few optimisations, unless it is a part of a larger program."""
    whole = jax.jit(f, compiler_options=IN_A_HURRY, **options)
    part = jax.jit(f, **options)

    @functools.wraps(f)
    def call(*args: Any, **named: Any) -> Any:
        return (part if is_traced((args, named)) else whole)(*args, **named)

    return call


def is_traced(values: Any) -> bool:
    """Whether a transformation of JAX is about to see what is computed from these."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


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

        if is_traced(arrays):
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


@compiled
def keep_of(mask: Any) -> Any:
    """Where a mask that is not drawn yet keeps."""
    return mask.keep()


@compiled
def outputs_of(model: Any, variables: Any, x: Any, draw: Any) -> Any:
    """What a model of Flax makes of one example."""
    return model.apply(variables, x, draw)


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
