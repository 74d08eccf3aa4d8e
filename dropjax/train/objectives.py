"""What a model is trained for: the loss of one example, and what is watched beside it."""

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


def binary(logits: Array, label: Array) -> dict[str, Array]:
    """Cross-entropy in nats of a sigmoid as the loss, and accuracy, of one example.

    Args:
      logits: (1,); above 0 stands for label 1.
      label: 0 or 1.
    """
    logit = logits.reshape(())
    return {
        "loss": optax.sigmoid_binary_cross_entropy(logit, label.astype(logit.dtype)),
        "accuracy": ((logit > 0) == (label == 1)).astype(jnp.float32),
    }


def regression(outputs: Array, target: Array) -> dict[str, Array]:
    """Squared error as the loss, averaged over the targets of one example.

    Args:
      outputs: (targets,).
      target: (targets,), or () for a single one.
    """
    return {"loss": jnp.mean(jnp.square(outputs - target.reshape(outputs.shape)))}


OBJECTIVES = {"classification": classification, "binary": binary, "regression": regression}
"""By the name of a data set's task."""
