"""Losses of several noisy passes over one example: multi-sample dropout, R-Drop, fraternal dropout.

Each comes in two forms: a plain function of logits, and a pair `apply, metrics` for a `Problem`,
made of anyone's. The first pass of a pair has the noise that the model alone would have, the others
have forks of it.

Source: Inoue 2019, "Multi-Sample Dropout for Accelerated Training and Better Generalization" (arXiv
1905.09788), section 3; Liang, Wu, Li et al. 2021, "R-Drop: Regularized Dropout for Neural Networks"
(arXiv 2106.14448), section 2.1; Zolna, Arpit, Suhubdy, Bengio 2018, "Fraternal Dropout" (arXiv
1711.00066), section 2.

Differs: R-Drop's cross-entropy is the mean over the two passes, as its authors' code has it; the
paper's equation adds the two, and so its alpha is twice ours for the same minimum.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from dropjax.core.draw import Draw
from dropjax.ops.bernoulli import wide_dtype
from dropjax.ops.checks import check_floating
from dropjax.ops.keys import check_key, derive
from dropjax.ops.lazy import fused
from dropjax.train.objectives import Metrics, Objective, checked_metrics

Array = jax.Array
Apply: TypeAlias = Callable[..., Any]


def multi_sample_loss(logits: ArrayLike, label: ArrayLike) -> Array:
    """The mean over samples of the cross-entropy: not the cross-entropy of a mean.

    Args:
      logits: (samples, ..., classes).
      label: integers in [0, classes), (...): of one example (), or of a batch or a sequence.

    Returns:
      In nats, of the shape of label; NaN where a label is out of range.

    Raises:
      TypeError: logits holds no floats.
      ValueError: the shapes do not fit.

    Cost: no random bits; 4 bytes a logit, and 8 a label and sample, are kept for the backward pass.

    Source: Inoue 2019, section 3.
    """
    logits = _wide(logits)
    if logits.ndim < 2 or not len(logits):
        raise ValueError(f"logits must be (samples, ..., classes), got {logits.shape}")
    return _cross_entropy(logits, label).mean(axis=0)


def r_drop_loss(
    logits_1: ArrayLike, logits_2: ArrayLike, label: ArrayLike, alpha: ArrayLike
) -> Array:
    """Mean cross-entropy of two passes, and alpha times half their symmetric KL divergence.

    Args:
      logits_1: of one pass, (..., classes).
      logits_2: of another, with noise of its own.
      label: integers in [0, classes), (...).
      alpha: weight of the divergence, at least 0. Typical: 0.3 to 5.

    Returns:
      In nats, of the shape of label, NaN where one is out of range: the divergence is summed over
      the classes alone.

    Raises:
      TypeError: logits holds no floats.
      ValueError: the shapes do not fit, or alpha is negative.

    Cost: no random bits; 8 bytes a logit, and 16 a label, are kept for the backward pass.

    Source: Liang et al. 2021, section 2.1.
    """
    first, second = _alike(logits_1, logits_2)
    passes = jnp.stack([first, second])
    entropy = _cross_entropy(passes, label).mean(axis=0)
    return _plus(entropy, _weight(alpha, "alpha"), _divergence(first, second))


def fraternal_loss(
    logits_1: ArrayLike, logits_2: ArrayLike, label: ArrayLike, kappa: ArrayLike
) -> Array:
    """Mean cross-entropy of two passes, and kappa times the mean squared difference of logits.

    Args:
      logits_1: of one pass, (..., classes).
      logits_2: of another, with noise of its own.
      label: integers in [0, classes), (...).
      kappa: weight of the squared difference, at least 0. Typical: 0.15.

    Returns:
      In nats, of the shape of label, NaN where one is out of range: the squares are averaged over
      the classes.

    Raises:
      TypeError: logits holds no floats.
      ValueError: the shapes do not fit, or kappa is negative.

    Cost: no random bits; 6 bytes a logit, and 16 a label, are kept for the backward pass.

    Source: Zolna et al. 2018, section 2.
    """
    first, second = _alike(logits_1, logits_2)
    passes = jnp.stack([first, second])
    entropy = _cross_entropy(passes, label).mean(axis=0)
    distance = jnp.mean(jnp.square(first - second), axis=-1)
    return _plus(entropy, _weight(kappa, "kappa"), distance)


def multi_sample(
    trunk: Apply, head: Apply, metrics: Metrics, *, samples: int
) -> tuple[Apply, Metrics]:
    """Multi-sample dropout for a `Problem`: the trunk runs once, the head under several masks.

    Args:
      trunk: (params, x, draw) -> features, or for a stateful problem (params, x, draw, mutable) ->
        (features, new): all that runs once. `lambda params, x, draw: x` to sample the whole model.
      head: (params, features, draw) -> outputs, with the dropout to be sampled before its last
        layers. A draw, or a key for a problem without a scheme, as in `Problem`.
      metrics: (outputs, y) -> a dictionary of scalars, of one sample.
      samples: masks, at least 1. With 1 it is ordinary dropout, with the same masks. Typical: 8.

    Returns:
      (apply, metrics) for a `Problem`: each metric, the loss among them, is the mean over samples.
      They are for training; evaluate with `head` on `trunk`.

    Raises:
      ValueError: samples is less than 1.

    Cost: the random bits and the time of the trunk once, and of the head `samples` times. What each
      run keeps is kept for the backward pass.

    Source: Inoue 2019, section 3.
    """
    samples = _samples(samples)

    def apply(params: Any, x: Any, noise: Any, *state: Any, **weight: Array) -> Any:
        features = trunk(params, x, noise, *state, **weight)
        new: tuple[Any, ...] = ()
        if state:
            features, *new = features  # type: ignore[assignment]
        outputs = tuple(head(params, features, _fork(noise, i)) for i in range(samples))
        return (outputs, *new) if state else outputs

    return apply, _averaged(metrics)


def r_drop(apply: Apply, metrics: Metrics, *, alpha: ArrayLike) -> tuple[Apply, Metrics]:
    """R-Drop for a `Problem`: two passes, whose predictions are pulled together.

    Args:
      apply: the model, in any form that `Problem` takes; it returns logits (..., classes). One
        logit stands for the classes (0, logit), as `train.OBJECTIVES["binary"]` has it.
      metrics: (logits, y) -> a dictionary of scalars, of one pass.
      alpha: weight of the divergence, at least 0. Typical: 0.3 to 5.

    Returns:
      (apply, metrics) for a `Problem`. Each metric is the mean over the two passes; to the loss is
      added alpha times "divergence": half the symmetric KL divergence, summed over classes and
      averaged over what other axes the logits have. They are for training; evaluate with `apply`.

    Raises:
      ValueError: alpha is negative.

    Cost: the random bits and the time of two passes. What both keep is kept for the backward pass,
      and 4 bytes a logit.

    Source: Liang et al. 2021, section 2.1.
    """
    return _pair(apply, metrics, _weight(alpha, "alpha"), "divergence", _divergence)


def fraternal(apply: Apply, metrics: Metrics, *, kappa: ArrayLike) -> tuple[Apply, Metrics]:
    """Fraternal dropout for a `Problem`: two passes, whose outputs are pulled together.

    Args:
      apply: the model, in any form that `Problem` takes; it returns an array, logits or other
        numbers.
      metrics: (outputs, y) -> a dictionary of scalars, of one pass.
      kappa: weight of the distance, at least 0. Typical: 0.15.

    Returns:
      (apply, metrics) for a `Problem`. Each metric is the mean over the two passes; to the loss is
      added kappa times "distance": the mean squared difference of the outputs. They are for
      training; evaluate with `apply`.

    Raises:
      ValueError: kappa is negative.

    Cost: the random bits and the time of two passes. What both keep is kept for the backward pass,
      and 2 bytes an output.

    Source: Zolna et al. 2018, section 2.
    """
    return _pair(
        apply, metrics, _weight(kappa, "kappa"), "distance", lambda a, b: jnp.square(a - b)
    )


def _pair(
    apply: Apply,
    metrics: Metrics,
    weight: Array,
    name: str,
    apart: Callable[[Array, Array], Array],
) -> tuple[Apply, Metrics]:
    def twice(params: Any, x: Any, noise: Any, *state: Any, **weight: Array) -> Any:
        passes = [apply(params, x, _fork(noise, i), *state, **weight) for i in range(2)]
        if not state:
            return tuple(passes)
        # Both start from the same variables; a running average then takes in the mean of both.
        outputs, new = zip(*passes, strict=True)
        return outputs, jax.tree.map(_mean, *new)

    of_one = _averaged(metrics)

    def of_two(outputs: tuple[Any, Any], y: Any) -> dict[str, Array]:
        values = of_one(outputs, y)
        if name in values:
            raise ValueError(f"metrics returns {name!r}, which is the name of what is added")
        distance = jnp.mean(apart(*_alike(*outputs)))
        return values | {"loss": _plus(values["loss"], weight, distance), name: distance}

    return twice, _in_place_of(metrics, of_two)


def _averaged(metrics: Metrics) -> Metrics:
    def mean(outputs: tuple[Any, ...], y: Any) -> dict[str, Array]:
        return jax.tree.map(_mean, *[checked_metrics(metrics(output, y)) for output in outputs])

    return _in_place_of(metrics, mean)


def _in_place_of(metrics: Metrics, new: Metrics) -> Metrics:
    """New metrics; if the old ones are an `Objective`, one with the same targets and unit."""
    if isinstance(metrics, Objective):
        return dataclasses.replace(metrics, metrics=new)
    return new


def _mean(*values: ArrayLike) -> Array:
    stacked = jnp.stack([jnp.asarray(value) for value in values])
    if not jnp.issubdtype(stacked.dtype, jnp.inexact):  # a counter: each pass counts the same
        return stacked[0]
    return stacked.mean(axis=0)


def _plus(loss: Array, weight: Array, term: Array) -> Array:
    return loss + (weight.astype(term.dtype) * term).astype(loss.dtype)


def _fork(noise: Any, number: int) -> Any:
    """An independent draw or key; number 0 is the one that is given."""
    if not number:
        return noise
    if isinstance(noise, Draw):
        return noise.fork(number)
    return derive(check_key(noise), f"fork {number}")


def _cross_entropy(logits: Array, label: ArrayLike) -> Array:
    """Of logits (passes, ..., classes) and labels (...)."""
    label = jnp.asarray(label)
    if label.shape != logits.shape[1:-1] or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(
            f"label must be integers {list(logits.shape[1:-1])}, for logits with classes on the "
            f"last axis; got {label.dtype}{list(label.shape)}"
        )
    log_p = jax.nn.log_softmax(logits)
    # Out of range it gives NaN: a negative index would be a class, counted from the end.
    label = label.astype(jnp.promote_types(label.dtype, jnp.int32))
    label = jnp.where(label >= 0, label, logits.shape[-1])
    at = jnp.broadcast_to(label[None, ..., None], (*logits.shape[:-1], 1))
    return -jnp.take_along_axis(log_p, at, axis=-1)[..., 0]


@fused
def _divergence(first: Array, second: Array) -> Array:
    """Half the symmetric KL divergence, summed over the classes."""
    if first.shape[-1] == 1:
        first, second = (_two_classes(logit) for logit in (first, second))
    log_p, log_q = jax.nn.log_softmax(first), jax.nn.log_softmax(second)
    # Equal ones may be infinite: classes that are masked out.
    gap = jnp.where(log_p == log_q, 0, log_p - log_q)
    return jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * gap, axis=-1) / 2


def _two_classes(logit: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(logit), logit], axis=-1)


def _alike(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    first, second = _wide(first), _wide(second)
    if first.shape != second.shape or not first.ndim:
        raise ValueError(
            f"both passes must give logits (..., classes), got {first.shape} and {second.shape}"
        )
    return first, second


def _wide(logits: ArrayLike) -> Array:
    logits = check_floating(logits, "logits")
    return logits.astype(wide_dtype(logits.dtype))


def _weight(value: ArrayLike, name: str) -> Array:
    if not isinstance(value, Tracer):
        number = np.asarray(value)
        if number.ndim or not (number >= 0 and math.isfinite(number)):
            raise ValueError(f"{name} must be a finite number from 0 on, got {value!r}")
    return jnp.asarray(value, jnp.float32)


def _samples(samples: int) -> int:
    if isinstance(samples, bool) or not hasattr(samples, "__index__") or samples < 1:
        raise ValueError(f"samples must be a whole number, at least 1; got {samples!r}")
    return operator.index(samples)
