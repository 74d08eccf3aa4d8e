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

_STEPS = 1000  # a schedule of the learning rate may start at 0, and steps may be gathered


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

    It is tried with gradients of 0, on a few of the values and close to them: where what it does
    depends on the values, it decays them.

    Args:
      optimizer: of {"params": ..., "learned": ...}.
      scheme: the scheme.
      both: arrays of these names, as they are initially.

    Raises:
      ValueError: it does.
    """

    def moved(both: Any, nearby: Array) -> Any:
        values = jax.tree.map(
            lambda leaf: leaf[tuple(slice(0, 2) for _ in leaf.shape)] + nearby.astype(leaf.dtype),
            both,
        )
        slopes = jax.tree.map(jnp.zeros_like, values)

        def step(_: Array, carry: Any) -> Any:
            state, total = carry
            updates: Any
            updates, state = optimizer.update(slopes, state, values)
            return state, jax.tree.map(jnp.add, total, scheme.trained(updates["learned"]))

        start = (optimizer.init(values), slopes["learned"])
        return jax.lax.fori_loop(0, _STEPS, step, start)[1]

    tried = jax.jit(moved)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        outcomes = [jax.tree.leaves(tried(both, jnp.float32(nearby))) for nearby in (0.0, 0.01)]
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*outcomes, strict=True)):
        raise ValueError(
            "the optimizer decays what the scheme learns, which has a penalty of its own. Leave it "
            "out: optax.adamw(learning_rate, mask=dropjax.train.weights_alone) and the like; or "
            "give it an optimizer of its own: optax.multi_transform({'w': ..., 'l': "
            "optax.adam(...)}, {'params': 'w', 'learned': 'l'})"
        )
