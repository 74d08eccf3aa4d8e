"""Weight decay is for weights: what a scheme learns is left out of it.

A learned rate or variance has a prior of its own, its penalty; a decay would pull it to another
one, such as a rate of 1/2.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax.core.scheme import Scheme

Array = jax.Array

_STEPS = 4  # a schedule of the learning rate may start at 0


def weights_alone(both: Any) -> Any:
    """The `mask` of an optax optimiser with weight decay: `optax.adamw(1e-3, mask=weights_alone)`.

    Args:
      both: {"params": the model's, "learned": the scheme's}, which `train.Problem` trains.

    Returns:
      True for the model's parameters, False for what the scheme learns; True for any other tree.
    """
    if isinstance(both, dict) and both.keys() == {"params", "learned"}:
        return {"params": True, "learned": False}
    return True


def check_spares_learned(
    optimizer: optax.GradientTransformation, scheme: Scheme, both: Any
) -> None:
    """Refuses an optimiser that decays what a scheme learns.

    It is tried on values of size 1 with gradients of 0: what moves then, and by how much depends on
    the values, is decayed.

    Args:
      optimizer: of {"params": ..., "learned": ...}.
      scheme: the scheme.
      both: trees of these names, of arrays or their shapes.

    Raises:
      ValueError: it does.
    """
    leaves, structure = jax.tree.flatten(both)

    def moved(value: Array) -> Any:
        small = [jnp.full((1,) * len(leaf.shape), value) for leaf in leaves]
        values: Any = jax.tree.unflatten(structure, small)
        slopes = jax.tree.map(jnp.zeros_like, values)
        state, total = optimizer.init(values), slopes["learned"]
        for _ in range(_STEPS):
            updates: Any
            updates, state = optimizer.update(slopes, state, values)
            total = jax.tree.map(jnp.add, total, scheme.trained(updates["learned"]))
        return total

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = [jax.tree.leaves(jax.jit(moved)(value)) for value in (1.0, 2.0)]
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*found, strict=True)):
        raise ValueError(
            "the optimizer decays what the scheme learns, which has a penalty of its own; leave it "
            "out: optax.adamw(learning_rate, mask=dropjax.train.weights_alone), or "
            "optax.add_decayed_weights(weight_decay, mask=dropjax.train.weights_alone)"
        )
