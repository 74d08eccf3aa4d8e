"""Objectives: the loss of an example, other metrics, and which targets they take."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

Array = jax.Array
Metrics: TypeAlias = Callable[[Any, Any], dict[str, Array]]
Shape: TypeAlias = tuple[int, ...]
_NUMBERS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["smoothing"],
    meta_fields=["metrics", "refuses", "loss_per_nat"],
)
@dataclasses.dataclass(frozen=True)
class Objective:
    """Metrics that also know which targets they take, and in which unit their loss is.

    It is called as a function, as `Problem.metrics` are: (outputs, y) -> a dictionary of scalars.

    Args:
      metrics: the function, of one example.
      refuses: (shape of an example's outputs, targets of many examples) -> which of them it does
        not take, booleans (examples,), and what it takes, in words.
      loss_per_nat: shape of an example's outputs -> the loss divided by the negative
        log-likelihood in nats, apart from a constant. A scheme's penalty, which is in nats, is
        multiplied by it.
      smoothing: label smoothing, in [0, 1): the target of an example is its label with the weight 1
        - smoothing, and every class with smoothing / classes. The loss has it; accuracy has not.
        `metrics` then takes it as its third argument.

    Raises:
      ValueError: there is a smoothing and `metrics` has no labels to smooth; it is out of range.

    Source: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016, "Rethinking the Inception architecture
    for computer vision" (arXiv 1512.00567), section 7, for the smoothing of labels.
    """

    metrics: Callable[..., dict[str, Array]]
    refuses: Callable[[Shape, np.ndarray], tuple[np.ndarray, str]]
    loss_per_nat: Callable[[Shape], float] = lambda outputs: 1.0
    smoothing: ArrayLike = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.smoothing, (int, float)) or self.smoothing == 0:
            return
        if len(inspect.signature(self.metrics).parameters) < 3:
            raise ValueError(
                f"label_smoothing={self.smoothing} would do nothing: there are no labels in "
                f"{getattr(self.metrics, '__name__', self.metrics)}"
            )
        if not 0 < self.smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.smoothing}")

    def __call__(self, outputs: Any, y: Any) -> dict[str, Array]:
        if isinstance(self.smoothing, (int, float)) and self.smoothing == 0:
            return self.metrics(outputs, y)
        return self.metrics(outputs, y, self.smoothing)

    def check(self, outputs: Any, y: Any, wanted: np.ndarray | None = None) -> None:
        """Refuses targets that the metrics do not take. It runs on the host.

        Args:
          outputs: of one example, or anything of their shape; of several passes, those of each.
          y: (examples, ...).
          wanted: (examples,), True for targets that are trained on; None for all.

        Raises:
          TypeError: y is no single array, or holds another kind of numbers.
          ValueError: a shape does not fit, or a target is out of range; the message names the row.
        """
        shape = _shape_of(outputs)
        if not hasattr(y, "shape") or not hasattr(y, "dtype"):
            raise TypeError(f"y must be one array of targets, got {type(y).__name__}")
        y = np.asarray(y)
        refused, takes = self.refuses(shape, y)
        refused = refused if wanted is None else refused & wanted
        if refused.any():
            row = int(refused.argmax())
            count = f", one of {refused.sum()} such rows" if refused.sum() > 1 else ""
            raise ValueError(f"y must be {takes}; it is {y[row].tolist()} in row {row}{count}")


def _shape_of(outputs: Any) -> Shape:
    # Of several passes, all are alike.
    return jnp.shape(jax.tree.leaves(outputs)[0])


def loss_per_nat(metrics: Metrics, outputs: Any) -> float:
    """The factor that puts a penalty in nats into the unit of the loss; 1 for a user's metrics."""
    return metrics.loss_per_nat(_shape_of(outputs)) if isinstance(metrics, Objective) else 1.0


def checked_metrics(metrics: Any) -> dict[str, Array]:
    """What a metrics function returned for one example, if it is a dictionary of scalars.

    Integers and booleans, such as a hit that is counted, become float32.

    Raises:
      TypeError: it is no dictionary, or a value is no real number.
      ValueError: there is no "loss", a name is taken, or a value is no scalar; the message has its
        name and its shape.
    """
    if not isinstance(metrics, dict):
        raise TypeError(
            f"metrics must return a dictionary of scalars, got {type(metrics).__name__}"
        )
    if "loss" not in metrics:
        raise ValueError(f"metrics must return a scalar named 'loss', got {[*metrics]}")
    return {name: _checked_metric(name, value) for name, value in metrics.items()}


def _checked_metric(name: Any, value: Any) -> Array:
    if not isinstance(name, str):
        raise TypeError(f"metrics must have names, got {name!r}")
    if name == "weight":
        raise ValueError("metrics: the name 'weight' is taken, by the examples' number; rename it")
    dtype = jnp.result_type(value) if isinstance(value, _NUMBERS) else None
    if dtype is None or not _is_real(dtype):
        what = type(value).__name__ if dtype is None else dtype
        raise TypeError(f"metrics: {name!r} must be a scalar, a real number; got {what}")
    if jnp.shape(value):
        raise ValueError(
            f"metrics: {name!r} must be a scalar for each example, got the shape "
            f"{jnp.shape(value)}; take jnp.mean or jnp.sum of it"
        )
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(value)
    if name == "loss":
        raise TypeError(f"metrics: 'loss' must be a float, or it has no gradient; got {dtype}")
    return jnp.asarray(value).astype(jnp.float32)


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def classification(
    logits: Array, label: Array, smoothing: ArrayLike | None = None
) -> dict[str, Array]:
    """Cross-entropy in nats as the loss, and accuracy, of one example.

    Args:
      logits: (classes,).
      label: an integer in [0, classes), () or (1,).
      smoothing: of the label; see `Objective`.
    """
    label = jnp.reshape(label, ())
    loss: Any = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    if smoothing is not None:
        loss = (1 - smoothing) * loss - smoothing * jnp.mean(jax.nn.log_softmax(logits))
    return {
        "loss": loss,
        "accuracy": (jnp.argmax(logits) == label).astype(jnp.float32),
    }


def binary(logits: Array, label: Array, smoothing: ArrayLike | None = None) -> dict[str, Array]:
    """Cross-entropy in nats of a sigmoid as the loss, and accuracy, of one example.

    Args:
      logits: (1,); above 0 stands for label 1.
      label: 0 or 1, () or (1,).
      smoothing: of the label; see `Objective`.
    """
    logit, label = jnp.reshape(logits, ()), jnp.reshape(label, ())
    target = label.astype(logit.dtype)
    if smoothing is not None:
        target = (1 - smoothing) * target + smoothing / 2
    return {
        "loss": optax.sigmoid_binary_cross_entropy(logit, target),
        "accuracy": ((logit > 0) == (label == 1)).astype(jnp.float32),
    }


def regression(outputs: Array, target: Array) -> dict[str, Array]:
    """Squared error as the loss, averaged over the targets of one example.

    It is 2 / targets times the negative log-likelihood of a Gaussian of variance 1, apart from a
    constant.

    Args:
      outputs: (targets,).
      target: (targets,), or () for a single one.
    """
    return {"loss": jnp.mean(jnp.square(outputs - target.reshape(outputs.shape)))}


def _labels(outputs: Shape, y: np.ndarray) -> tuple[np.ndarray, str]:
    if len(outputs) != 1:
        raise ValueError(f"classification takes outputs (classes,) of an example, got {outputs}")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(
            f"y must be labels, integers, for classification; got {y.dtype}. If its values are "
            "whole numbers, convert it: y.astype(int)"
        )
    labels = _one_each(y, "a label")
    takes = f"labels in [0, {outputs[0] - 1}], for outputs of {outputs[0]} classes"
    return (labels < 0) | (labels >= outputs[0]), takes


def _zeros_and_ones(outputs: Shape, y: np.ndarray) -> tuple[np.ndarray, str]:
    if np.prod(outputs, dtype=int) != 1:
        raise ValueError(f"binary takes one output of an example, its logit; got {outputs}")
    _check_real(y)
    labels = _one_each(y, "a label")
    return (labels != 0) & (labels != 1), "the labels 0 and 1, for a binary objective"


def _numbers(outputs: Shape, y: np.ndarray) -> tuple[np.ndarray, str]:
    targets = y.shape[1:]
    if _without_ones(targets) != _without_ones(outputs):
        raise ValueError(
            f"y must have a target for each output: an example has targets of shape {targets}, and "
            f"outputs of shape {outputs}"
        )
    _check_real(y)
    # As they will be on the device, where 64 bits may become 32.
    dtype = jax.dtypes.canonicalize_dtype(y.dtype)
    with np.errstate(over="ignore"):
        there = y.astype(dtype)
    fits = np.isfinite(there) if jnp.issubdtype(dtype, jnp.floating) else there == y
    refused = np.any(np.reshape(~fits, (len(y), -1)), axis=1)
    return refused, f"finite numbers within the range of {dtype}, for regression"


def _one_each(y: np.ndarray, what: str) -> np.ndarray:
    if y.shape[1:] not in ((), (1,)):
        raise ValueError(f"y must have {what} for each example, (examples,); got {y.shape}")
    return y.reshape(len(y))


def _check_real(y: np.ndarray) -> None:
    if not _is_real(y.dtype):
        raise TypeError(f"y must be numbers, got {y.dtype}")


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _of_squares(outputs: Shape) -> float:
    # A squared error is twice its part of the log-likelihood, and the loss is their mean.
    return 2.0 / max(1, int(np.prod(outputs)))


OBJECTIVES = {
    "classification": Objective(classification, _labels),
    "binary": Objective(binary, _zeros_and_ones),
    "regression": Objective(regression, _numbers, _of_squares),
}
"""The objectives, by the name of a data set's task."""
