"""Facts of Lee et al. 2020: a dropped weight falls back to the one before fine-tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dropjax
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.models.mlp import MLP
from dropjax.schemes import parse
from dropjax.train import OBJECTIVES, Problem, fit
from tests.compiled import compiled, normal, ops, outputs_of

KEY = jax.random.key(2)
W, BEFORE = normal(2, 40, 30, seed=9)


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_the_papers_formula(rate):
    keep = np.asarray(ops.keep_mask(KEY, rate, W.shape))
    w, before = np.asarray(W, np.float64), np.asarray(BEFORE, np.float64)
    wanted = (np.where(keep, w, before) - rate * before) / (1 - rate)
    y = ops.mixout(KEY, W, rate, previous=BEFORE)
    np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(y)[~keep], BEFORE[~keep])


def test_every_weight_has_a_mask_of_its_own():
    """The authors' code draws one for all rows of a matrix."""
    dropped = np.asarray(ops.mixout(KEY, W, 0.5, previous=BEFORE) == BEFORE)
    assert len({row.tobytes() for row in dropped}) == len(dropped)
    assert len({row.tobytes() for row in dropped.T}) == dropped.shape[1]


def test_the_gradient_has_the_scale_of_the_forward_pass():
    """The authors' code lacks it."""
    keep = np.asarray(ops.keep_mask(KEY, 0.7, W.shape))
    gradient = jax.grad(lambda w, u: ops.mixout(KEY, w, 0.7, previous=u).sum(), (0, 1))
    of_w, of_before = compiled(gradient)(W, BEFORE)
    np.testing.assert_allclose(of_w, keep / 0.3, rtol=1e-5)
    assert (of_before == 0).all()


def test_with_zeros_before_it_is_dropconnect():
    zeros = jnp.zeros_like(W)
    theirs = ops.dropconnect(KEY, W, 0.4)
    np.testing.assert_allclose(ops.mixout(KEY, W, 0.4, previous=zeros), theirs, rtol=1e-5)


def test_weights_that_have_not_moved_stay_as_they_are():
    np.testing.assert_array_equal(ops.mixout(KEY, W, 0.8, previous=W), W)


def test_in_training_it_falls_back_to_the_weights_that_training_started_from():
    model, x = MLP(2, widths=(4,)), np.random.default_rng(0).normal(size=(64, 3))
    x = x.astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    params = compiled(lambda: model.init(KEY, x[0], dropjax.CLEAN))()
    problem = Problem(
        model.apply,
        OBJECTIVES["classification"],
        parse("mixout(rate=0.5)"),
        optax.adamw(0.01, weight_decay=0.5),  # which must not move what it falls back to
    )
    fitted = fit(problem, params, x, y, key=KEY, epochs=3, batch_size=16)
    before = {"layer_0/linear": "layer_0", "head/linear": "head"}
    for site, module in before.items():
        start, end = (p["params"][module]["kernel"] for p in (params, fitted.params))
        np.testing.assert_array_equal(fitted.learned[site]["previous"], start)
        assert (np.asarray(start) != np.asarray(end)).mean() > 0.9
    draw = sampled(parse("mixout(rate=1.0)").bind(fitted.learned), Keys.of(KEY))
    kernels = {m: {"kernel": params["params"][m]["kernel"]} for m in before.values()}
    back = {m: v | kernels[m] for m, v in fitted.params["params"].items()}
    np.testing.assert_allclose(
        outputs_of(model, fitted.params, x[0], draw),
        outputs_of(model, {"params": back}, x[0], dropjax.CLEAN),
        rtol=1e-5,
    )


def test_bad_input():
    with pytest.raises(ValueError, match="previous must have the shape and dtype of w"):
        dropjax.mixout(KEY, W, 0.5, previous=BEFORE[0])
