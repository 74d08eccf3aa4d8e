"""The losses of single examples against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.data import TASKS
from dropjax.train.objectives import (
    OBJECTIVES,
    binary,
    checked_metrics,
    classification,
    loss_per_nat,
    regression,
)


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
    of_two = classification(jnp.float32([0, logit]), jnp.int32(label))
    assert found["loss"] == pytest.approx(float(of_two["loss"]), rel=1e-5)


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


def test_regression_does_not_broadcast():
    with pytest.raises(TypeError):
        regression(jnp.zeros(3), jnp.float32(1.0))


@pytest.mark.parametrize("task", OBJECTIVES)
def test_a_target_may_have_an_axis_of_one_as_data_sets_have_it(task):
    assert tuple(OBJECTIVES) == TASKS
    outputs, y = jnp.float32([0.5]), jnp.float32(1.0) if task == "regression" else jnp.int32(0)
    values = OBJECTIVES[task](outputs, y)
    assert "loss" in values
    for name, value in values.items():
        column = OBJECTIVES[task](outputs, y.reshape(1))[name]
        assert column.shape == value.shape == () and column == value


INTEGERS = np.arange(6) % 3
TARGETS = [
    # task, outputs of an example, y, what the message names; "" if they are taken
    ("classification", (3,), INTEGERS, ""),
    ("classification", (3,), INTEGERS.astype(np.uint8)[:, None], ""),
    ("classification", (3,), INTEGERS - 1, r"\[0, 2\].* 3 classes; it is -1 in row 0, one of 2"),
    ("classification", (2,), INTEGERS, r"labels in \[0, 1\].*; it is 2 in row 2, one of 2 such"),
    ("classification", (3,), INTEGERS.astype(float), r"integers.* float64.*y\.astype\(int\)"),
    ("classification", (3,), INTEGERS > 0, r"integers, for classification; got bool"),
    ("classification", (3,), INTEGERS.reshape(2, 3), r"a label for each example.*\(2, 3\)"),
    ("classification", (3,), np.array(["a", "b"]), "integers, for classification; got <U1"),
    ("classification", (4, 3), INTEGERS, r"outputs \(classes,\) of an example, got \(4, 3\)"),
    ("classification", (3,), [0, 1], "y must be one array of targets, got list"),
    ("classification", (3,), {"a": INTEGERS}, "y must be one array of targets, got dict"),
    ("binary", (1,), INTEGERS % 2, ""),
    ("binary", (), INTEGERS[:, None] > 0, ""),
    ("binary", (1,), np.array([0.0, 1.0], np.float32), ""),
    ("binary", (1,), np.array([0, 2, 1]), r"0 and 1, for a binary objective; it is 2 in row 1$"),
    ("binary", (1,), np.array([-1, 1]), "it is -1 in row 0"),
    ("binary", (1,), np.array([0.0, 0.3]), r"it is 0\.3 in row 1"),
    ("binary", (1,), np.array([0.0, np.nan]), "it is nan in row 1"),
    ("binary", (2,), INTEGERS % 2, r"one output of an example, its logit; got \(2,\)"),
    ("binary", (1,), np.zeros((4, 2)), r"a label for each example.*\(4, 2\)"),
    ("regression", (1,), np.zeros(4), ""),
    ("regression", (1,), np.arange(4), ""),
    ("regression", (2, 3), np.zeros((4, 2, 3)), ""),
    ("regression", (), np.zeros((4, 1)), ""),
    ("regression", (2,), np.zeros((4, 3)), r"targets of shape \(3,\), and outputs of shape \(2,\)"),
    ("regression", (2, 3), np.zeros((4, 3, 2)), r"shape \(3, 2\), and outputs of shape \(2, 3\)"),
    ("regression", (2,), np.array([[0, 1], [np.inf, 0]]), r"it is \[inf, 0\.0\] in row 1$"),
    ("regression", (1,), np.array([0, np.nan, np.nan]), "it is nan in row 1, one of 2 such rows"),
    ("regression", (1,), np.array([0.0, 1e39]), r"range of float32.* it is 1e\+39 in row 1"),
    ("regression", (1,), np.array([2**40, 0]), "range of int32.* it is 1099511627776 in row 0"),
    ("regression", (1,), np.array([1j, 0]), "y must be numbers, got complex128"),
]


@pytest.mark.parametrize(("task", "outputs", "y", "words"), TARGETS)
def test_targets_are_looked_at(task, outputs, y, words):
    """The message names the target, its row, and what is allowed."""
    of = jax.ShapeDtypeStruct(outputs, jnp.float32)
    if not words:
        return OBJECTIVES[task].check(of, y)
    with pytest.raises((ValueError, TypeError), match=words):
        OBJECTIVES[task].check(of, y)


def test_only_targets_that_are_trained_on_are_looked_at():
    y, of = np.array([0, 7, 1, 9]), jax.ShapeDtypeStruct((3,), jnp.float32)
    OBJECTIVES["classification"].check(of, y, np.array([True, False, True, False]))
    with pytest.raises(ValueError, match=r"it is 9 in row 3$"):
        OBJECTIVES["classification"].check(of, y, np.array([True, False, True, True]))


@pytest.mark.parametrize("outputs", [(), (1,), (2,), (3, 4)])
def test_the_loss_of_regression_is_so_many_times_the_gaussian_s(outputs):
    """Against the log-density at variance 1: the difference of two targets' losses."""
    rng = np.random.default_rng(0)
    output, a, b = rng.normal(size=(3, *outputs))

    def nll(y):
        return 0.5 * np.sum((output - y) ** 2)

    def loss(y):
        return float(regression(jnp.float32(output), jnp.float32(y))["loss"])

    unit = loss_per_nat(OBJECTIVES["regression"], output)
    assert loss(a) - loss(b) == pytest.approx(unit * (nll(a) - nll(b)), rel=1e-4)
    for metrics in (OBJECTIVES["classification"], OBJECTIVES["binary"], regression):
        assert loss_per_nat(metrics, output) == 1


ONE = jnp.ones(())
METRICS = [
    ({"loss": jnp.ones(1)}, r"'loss' must be a scalar for each example, got the shape \(1,\)"),
    ({"loss": ONE, "all": jnp.ones((3, 2))}, r"'all' must be a scalar.* shape \(3, 2\)"),
    ({"loss": jnp.int32(1)}, "'loss' must be a float, or it has no gradient; got int32"),
    ({"loss": jnp.complex64(1j)}, "'loss' must be a scalar, a real number; got complex64"),
    ({"loss": None}, "'loss' must be a scalar, a real number; got NoneType"),
    ({"loss": ONE, "name": "a"}, "'name' must be a scalar, a real number; got str"),
    ({"loss": ONE, "more": {"a": ONE}}, "'more' must be a scalar, a real number; got dict"),
    ({"loss": ONE, "key": jax.random.key(0)}, "'key' must be a scalar, a real number; got key"),
    ({"loss": ONE, "weight": ONE}, "the name 'weight' is taken"),
    ({"loss": ONE, 1: ONE}, "metrics must have names, got 1"),
    ({"error": ONE}, r"a scalar named 'loss', got \['error'\]"),
    (ONE, "metrics must return a dictionary of scalars, got ArrayImpl"),
    ((ONE, {}), "metrics must return a dictionary of scalars, got tuple"),
]


@pytest.mark.parametrize(("metrics", "words"), METRICS)
def test_metrics_are_scalars(metrics, words):
    with pytest.raises((ValueError, TypeError), match=words):
        checked_metrics(metrics)


def test_hits_may_be_counted_by_booleans_and_integers():
    found = checked_metrics({"loss": 1.0, "hit": jnp.bool_(True), "count": jnp.int32(3), "a": 2})
    assert found == {"loss": 1, "hit": 1, "count": 3, "a": 2}
    assert {value.dtype for value in found.values()} == {jnp.dtype(jnp.float32)}
