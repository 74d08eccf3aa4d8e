"""The metrics of predicted numbers against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from dropjax.evaluate import mae, r2, rmse

METRICS = [rmse, mae, r2]


def predictions(targets: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(50, targets)) * [1, 100, 0.01][:targets] + 5
    return y + rng.normal(size=y.shape) * y.std(axis=0) / 2, y


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_are_those_of_scikit_learn(targets, dtype):
    p, y = (a.astype(dtype) for a in predictions(targets))
    wide = [a.astype(np.float64) for a in (y, p)]
    # Not averaged over targets before the root, as scikit-learn would.
    assert rmse(p, y) == pytest.approx(
        root_mean_squared_error(*(a.reshape(-1) for a in wide)), rel=1e-12
    )
    assert mae(p, y) == pytest.approx(mean_absolute_error(*wide), rel=1e-12)
    assert r2(p, y) == pytest.approx(r2_score(*wide), rel=1e-12)
    assert all(isinstance(metric(p, y), float) for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS)
def test_one_target_may_have_an_axis_or_none(metric):
    p, y = predictions(1)
    values = {metric(a, b) for a in (p, p[:, 0]) for b in (y, y[:, 0])}
    assert len(values) == 1  # in particular nothing was broadcast to (50, 50)


def test_what_they_are_of_simple_predictions():
    y = np.array([1.0, 2.0, 3.0])
    assert (rmse(y, y), mae(y, y), r2(y, y)) == (0, 0, 1)
    assert r2(np.full(3, 2.0), y) == 0 and r2(-y, y) < 0
    p = y + np.array([3.0, 0.0, 0.0])
    assert rmse(p, y) == pytest.approx(3**0.5) and mae(p, y) == 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1])
def test_r2_of_a_target_that_does_not_vary_is_nan(value):
    """Though in floats its mean is not exactly the value."""
    assert math.isnan(r2([0.2, 0.2, 0.3], [value] * 3))
    both = np.array([[1.0, value], [2.0, value], [4.0, value]])
    assert math.isnan(r2(both, both))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("p", "y"),
    [
        ((3,), (4,)),
        ((4, 2), (4,)),
        ((4, 2), (2, 4)),
        ((0,), (0,)),
        ((), ()),
        ((1,), ()),
        ((4,), ()),
    ],
)
def test_shapes_that_do_not_fit_are_refused(metric, p, y):
    with pytest.raises(ValueError, match="expected as many predictions as targets"):
        metric(np.zeros(p), np.zeros(y))
