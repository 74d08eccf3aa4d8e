"""The losses of single examples against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.data import TASKS
from dropjax.train.objectives import OBJECTIVES, binary, classification, regression


@pytest.mark.parametrize("label", [0, 1, 2])
def test_classification_is_the_cross_entropy(label):
    logits = np.array([0.5, -1.0, 2.0])
    found = classification(jnp.float32(logits), jnp.int32(label))
    wanted = np.log(np.exp(logits).sum()) - logits[label]
    assert found["loss"] == pytest.approx(wanted, rel=1e-6)
    assert found["accuracy"] == float(label == 2) and found["accuracy"].dtype == jnp.float32


@pytest.mark.parametrize("logit", [-3.0, -0.1, 0.0, 0.2, 4.0])
@pytest.mark.parametrize("label", [0, 1])
def test_binary_is_the_cross_entropy_of_a_sigmoid(logit, label):
    p = 1 / (1 + np.exp(-logit))
    found = binary(jnp.array([logit], jnp.float32), jnp.int32(label))
    assert found["loss"] == pytest.approx(-np.log(p if label else 1 - p), rel=1e-5)
    assert found["loss"].shape == found["accuracy"].shape == ()
    assert found["accuracy"] == float((p > 0.5) == label)


def test_binary_is_classification_with_a_logit_of_0_for_label_0():
    for logit in (-2.0, 0.7):
        for label in jnp.arange(2):
            one = binary(jnp.float32([logit]), label)
            two = classification(jnp.float32([0, logit]), label)
            assert one["loss"] == pytest.approx(float(two["loss"]), rel=1e-5)
            assert one["accuracy"] == two["accuracy"]


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("label", [0, 1])
def test_losses_and_gradients_of_extreme_logits_are_finite(logit, label):
    loss, slope = jax.value_and_grad(lambda z: binary(z, jnp.int32(label))["loss"])(
        jnp.float32([logit])
    )
    wrong = (logit > 0) != label
    assert loss == (1e4 if wrong else 0) and slope == (np.sign(logit) if wrong else 0)


def test_regression_is_the_mean_of_the_squares():
    outputs, target = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
    found = regression(jnp.float32(outputs), jnp.float32(target))
    assert found["loss"] == pytest.approx(np.mean((outputs - target) ** 2), rel=1e-6)
    assert list(found) == ["loss"]
    assert regression(jnp.float32([3.0]), jnp.float32(1.0))["loss"] == 4
    assert regression(jnp.float32([3.0]), jnp.float32([1.0]))["loss"] == 4


def test_regression_does_not_broadcast():
    with pytest.raises(TypeError):
        regression(jnp.zeros(3), jnp.float32(1.0))


def test_every_task_has_an_objective_with_a_loss():
    assert tuple(OBJECTIVES) == TASKS
    for task, objective in OBJECTIVES.items():
        y = jnp.zeros((), jnp.float32 if task == "regression" else jnp.int32)
        assert "loss" in objective(jnp.zeros(1), y)
