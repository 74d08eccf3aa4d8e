"""What keeps weights small, besides dropout: penalties on them, and a limit of their norm.

    problem = Problem(..., regularizer=WeightPenalty(l2=1e-4), project=MaxNorm(3.0))

Both are about kernels alone: arrays of two or more axes, whose last axis is that of the units.
Biases, scales of normalisation, tables of embeddings, learned positions and what a scheme learns
are left out.

Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout: a simple way to
prevent neural networks from overfitting" (JMLR 15), section 5.1 and table 9; Loshchilov, Hutter
2019, "Decoupled weight decay regularization" (arXiv 1711.05101), for the difference to weight
decay.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

Array = jax.Array

_NO_KERNELS = ("embedding", "position", "table", "token")
"""Names of arrays of several axes that are no kernels: what they hold is looked up or added."""


def is_kernel(path: tuple[Any, ...], leaf: Any) -> bool:
    """Whether a parameter is a kernel.

    Args:
      path: where it is in the tree of parameters, as in `jax.tree_util.tree_map_with_path`.
      leaf: the parameter.
    """
    name = jax.tree_util.keystr(path[-1:], simple=True) if path else ""
    return jnp.ndim(leaf) >= 2 and name not in _NO_KERNELS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WeightPenalty:
    """l1 times the sum of absolute weights, plus l2 times the sum of squared weights.

    It is added to the loss, which is a mean over examples. Its gradient is l1 sign(w) + 2 l2 w.
    With plain SGD `l2` is weight decay by 2 l2. With Adam and its kin it is not: they divide the
    gradient of the penalty by the size of all gradients, and decay weights with large gradients
    less. Their decoupled decay is an argument of the optimiser: 'adamw(weight_decay=0.01)'.

    Args:
      l1, l2: at least 0.

    Raises:
      ValueError: a number is below 0 or not finite.
    """

    l1: ArrayLike = 0.0
    l2: ArrayLike = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            _check_number(name, getattr(self, name), "at least 0", lambda value: value >= 0)

    def __call__(self, params: Any) -> Array:
        total = jnp.zeros(())
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if is_kernel(path, leaf):
                w = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
                total = total + self.l1 * jnp.abs(w).sum() + self.l2 * jnp.square(w).sum()
        return total


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaxNorm:
    """Limits the Euclidean norm of the weights that enter a unit, or a filter of a convolution.

    After a step weights of a larger norm are scaled to `max_norm`; others stay as they are.

    Args:
      max_norm: the largest norm, above 0. The paper has 2 to 4.

    Raises:
      ValueError: it is not above 0.

    Source: Srivastava et al. 2014, section 5.1.
    """

    max_norm: ArrayLike

    def __post_init__(self) -> None:
        _check_number("max_norm", self.max_norm, "above 0", lambda value: value > 0)

    def __call__(self, params: Any) -> Any:
        limited = jax.vmap(optax.projections.projection_l2_ball, in_axes=(-1, None), out_axes=-1)
        return jax.tree_util.tree_map_with_path(
            lambda path, w: (
                limited(w, jnp.asarray(self.max_norm, w.dtype)) if is_kernel(path, w) else w
            ),
            params,
        )


def _check_number(name: str, value: Any, allowed: str, right: Callable[[float], bool]) -> None:
    """Refuses a number out of range. An array, which JAX may be tracing, is taken as it is."""
    if isinstance(value, (int, float)) and not (math.isfinite(value) and right(value)):
        raise ValueError(f"{name} must be a finite number, {allowed}; got {value!r}")
