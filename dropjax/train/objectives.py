"""What a model is trained for."""

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def classification(logits: Array, label: Array) -> dict[str, Array]:
    """Cross-entropy in nats as the loss, and accuracy, of one example.

    Args:
      logits: (classes,).
      label: an integer in [0, classes).
    """
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, label),
        "accuracy": (jnp.argmax(logits) == label).astype(jnp.float32),
    }
