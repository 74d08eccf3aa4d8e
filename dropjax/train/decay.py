"""Weight decay is for weights: what a scheme learns is left out of it.

A learned rate or variance has a prior of its own, its penalty; a decay would pull it to another
one, such as a rate of 1/2. Optax's `mask` leaves parameters out, but has to be given where an
optimiser is made, and this one may be anyone's. So those of its parts that decay see zeros instead.
"""

import copy
import types
from typing import Any

import jax
import jax.numpy as jnp
import optax

# The transformations of optax that decay by themselves; its optimisers are made of these.
_DECAYING = {f"{name}.<locals>.update_fn" for name in ("add_decayed_weights", "scale_by_novograd")}


def sparing_learned(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimiser of {"params": ..., "learned": ...}, without decay of the second.

    Args:
      optimizer: one of optax, or made of its transformations in any depth. Not found is a decay of
        one's own, or one inside `optax.flatten`, where no parameter has a name.

    Returns:
      One that differs in that alone; the very same if nothing in it decays.
    """
    return _sparing(optimizer, set())


def _sparing(value: Any, above: set[int]) -> Any:
    if id(value) in above:
        return value
    above = above | {id(value)}
    if isinstance(value, types.FunctionType):
        return _of_function(value, above)
    if isinstance(value, types.MethodType):  # of `optax.MultiSteps`
        inside = _sparing(vars(value.__self__), above)
        if inside is vars(value.__self__):
            return value
        owner = copy.copy(value.__self__)
        vars(owner).update(inside)
        return types.MethodType(value.__func__, owner)
    if isinstance(value, dict):
        new = {key: _sparing(part, above) for key, part in value.items()}
        return value if all(new[key] is value[key] for key in value) else new
    if isinstance(value, (tuple, list)):
        parts = [_sparing(part, above) for part in value]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value
        # A transformation is a named tuple of two functions.
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _of_function(function: types.FunctionType, above: set[int]) -> Any:
    """Optax composes transformations as functions that enclose others."""
    if function.__qualname__ in _DECAYING:

        def update(updates: Any, state: Any, params: Any = None, **more: Any) -> Any:
            return function(updates, state, _with_zeros(params), **more)

        return update
    cells = function.__closure__ or ()
    names = function.__code__.co_freevars
    new = [_of_cell(name, cell, above) for name, cell in zip(names, cells, strict=True)]
    if all(a is b for a, b in zip(new, cells, strict=True)):
        return function
    made = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(new),
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _of_cell(name: str, cell: types.CellType, above: set[int]) -> types.CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # nothing in it yet
        return cell
    if name == "inner_factory":  # `optax.inject_hyperparams` makes its optimiser in every step
        return types.CellType(lambda *args, **given: sparing_learned(value(*args, **given)))
    new = _sparing(value, above)
    return cell if new is value else types.CellType(new)


def _with_zeros(params: Any) -> Any:
    def of(path: Any, leaf: Any) -> Any:
        return jnp.zeros_like(leaf) if path and getattr(path[0], "key", None) == "learned" else leaf

    return jax.tree_util.tree_map_with_path(of, params)
