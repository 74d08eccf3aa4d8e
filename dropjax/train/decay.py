"""Weight decay is for weights. What a scheme learns is left out of it.

The penalty of a learned rate or variance is its prior. Weight decay would be another prior, which
pulls a rate to 1/2, for example.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax.core.scheme import Scheme

Array = jax.Array

_STEPS = 1000  # a learning rate may start at 0, and an optimiser may act at every n-th step only


def weights_alone(both: Any) -> Any:
    """The `mask` of an optax optimiser with weight decay: `optax.adamw(1e-3, mask=weights_alone)`.

    Args:
      both: {"params": the model's parameters, "learned": what the scheme learns}, which
        `train.Problem` trains.

    Returns:
      True for the model's parameters, False for what the scheme learns; True for any other tree.
    """
    if isinstance(both, dict) and both.keys() == {"params", "learned"}:
        return {"params": True, "learned": False}
    return True


def check_spares_learned(
    optimizer: optax.GradientTransformation, scheme: Scheme, trained: Any
) -> None:
    """Refuses an optimiser that decays what a scheme learns.

    The optimiser is tried with gradients of 0, from some of the values and from values near them.
    If its updates depend on the values, it decays them.

    Args:
      optimizer: of {"params": ..., "learned": ...}.
      scheme: the scheme.
      trained: the initial arrays under these names.

    Raises:
      ValueError: it decays what the scheme learns.
    """

    def updates_from(trained: Any, shift: Array) -> Any:
        values = jax.tree.map(
            lambda leaf: leaf[tuple(slice(0, 2) for _ in leaf.shape)] + shift.astype(leaf.dtype),
            trained,
        )
        slopes = jax.tree.map(jnp.zeros_like, values)

        def step(_: Array, carry: Any) -> Any:
            state, total = carry
            updates: Any
            updates, state = optimizer.update(slopes, state, values)
            return state, jax.tree.map(jnp.add, total, scheme.trained(updates["learned"]))

        start = (optimizer.init(values), slopes["learned"])
        return jax.lax.fori_loop(0, _STEPS, step, start)[1]

    tried = jax.jit(updates_from)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        outcomes = [jax.tree.leaves(tried(trained, jnp.float32(shift))) for shift in (0.0, 0.01)]
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*outcomes, strict=True)):
        raise ValueError(
            "the optimizer decays what the scheme learns, which has a penalty of its own. Leave it "
            "out: optax.adamw(learning_rate, mask=dropjax.train.weights_alone) and the like; or "
            "give it an optimizer of its own: optax.multi_transform({'w': ..., 'l': "
            "optax.adam(...)}, {'params': 'w', 'learned': 'l'})"
        )
