"""The deterministic counterparts against the ops, at rates from 0 to 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax.evaluate import moments
from dropjax.schemes.alpha import LIMIT
from tests.conftest import IN_A_HURRY
from tests.statistics import assert_mean

KEY = jax.random.key(40)
RATES = np.array([0, 2**-24, 0.5, 1 - 2**-6, 1], np.float32)
X = jnp.array([[1.5, -0.7, 0.3], [0.2, 2.0, -1.1]])
W = jnp.array([[0.5, -1.0], [2.0, 0.1], [-0.3, 0.8]])
B = jnp.array([0.25, -2.0])
LAYER = {"w": W, "b": B}
BLOCKS = {"block_size": 2, "spatial_axes": -2, "gamma": "paper"}

# Ops with the arguments of both sides, and those of the op alone.
CASES = {
    "drop_path": [
        ({"scaling": scaling}, {"batch_axes": 0}) for scaling in ("train", "test", "none")
    ],
    "dropblock": [
        (BLOCKS | {"normalize": "none"}, {}),
        (BLOCKS | {"normalize": "expected", "block_size": 1}, {}),
        (BLOCKS, {}),
    ],
    "dropconnect": [({"scaling": scaling}, {}) for scaling in ("train", "test")],
    "dropconnect_gaussian": [(LAYER | {"scaling": s}, {}) for s in ("train", "test")],
    "dropconnect_linear": [(LAYER | {"scaling": s}, {}) for s in ("train", "test")],
    "dropout": [({"scaling": scaling}, {}) for scaling in ("train", "test")],
    "information_dropout": [({}, {})],
    "layer_drop": [({"previous": 3 * X + 1}, {"batch_axes": 0})],
    "shake_drop": [({"alpha": (-0.5, 2.0)}, {"batch_axes": 0})],
    "sparse_variational_linear": [(LAYER, {})],
    "standout": [({"slope": 2.0, "offset": 0.5}, {})],
    "targeted_dropout": [({"fraction": 0.5, "target": t}, {}) for t in ("weight", "unit")],
    "variational_gaussian_linear": [(LAYER, {})],
    "zoneout": [({"previous": 3 * X + 1}, {})],
}
NOT_THE_MEAN = [("drop_path", "none")]
"""Where evaluation is another than the mean, as the docstring says."""


def of_rate(name, rate):
    """The third argument of an op, which need not be a probability."""
    return jnp.log(rate + 0.01) if name.endswith("variational_linear") else rate


@pytest.fixture(scope="module")
def drawn():
    """Of each op and case, at each rate: 3000 draws, and what stands for them. One program."""

    def of(name, both, op):
        def at(rate):
            third = of_rate(name, rate)
            draw = jax.vmap(lambda k: getattr(dropjax, name)(k, X, third, **both, **op))
            keys = jax.random.split(jax.random.fold_in(KEY, 1), 3000)
            if name == "variational_gaussian_linear":
                counterpart = dropjax.expected.variational_gaussian_linear(X, **both)
            else:
                counterpart = getattr(dropjax.expected, name)(X, third, **both)
            return draw(keys), counterpart

        return jax.vmap(at)

    @jax.jit
    def all_of(rates):
        return {
            name: [of(name, both, op)(rates) for both, op in cases] for name, cases in CASES.items()
        }

    return all_of.lower(RATES).compile(IN_A_HURRY)(RATES)


def test_every_counterpart_is_tried():
    assert set(CASES) == set(dropjax.expected.__all__)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_mean_over_noise_at_every_rate(name, drawn):
    for (both, _), (draws, counterpart) in zip(CASES[name], drawn[name], strict=True):
        if (name, both.get("scaling")) in NOT_THE_MEAN:
            np.testing.assert_array_equal(counterpart, np.broadcast_to(X, counterpart.shape))
            continue
        for ours, wanted in zip(draws, counterpart, strict=True):
            assert_mean(ours, wanted)


@pytest.mark.parametrize("name", ["dropout", "dropconnect", "drop_path"])
def test_at_rate_1_it_is_0_for_rates_that_are_numbers_too(name):
    for rate in (1, 1.0, np.float32(1), 1 - 2**-30, np.array([1.0, 1.0, 0.5], np.float32)):
        y = np.asarray(getattr(dropjax.expected, name)(X, rate))
        np.testing.assert_array_equal(y, np.where(np.float32(rate) < 1, X, 0))
    assert (jax.grad(lambda x: dropjax.expected.dropout(x, 1.0).sum())(X) == 0).all()


@pytest.mark.parametrize("scaling", ["train", "test"])
def test_moments_have_the_same_mean_at_every_rate(scaling, drawn):
    of_case = {"train": 0, "test": 1}[scaling]
    for i, rate in enumerate(RATES):
        of = moments.dropout(moments.exactly(X), rate, scaling=scaling)
        np.testing.assert_allclose(of.mean, drawn["dropout"][of_case][1][i], rtol=1e-6)
        mean, variance = dropjax.dropconnect_moments(X, rate, **LAYER, scaling=scaling)
        np.testing.assert_allclose(
            mean, drawn["dropconnect_linear"][of_case][1][i], rtol=1e-5, atol=1e-6
        )
        assert (variance >= 0).all()


@pytest.mark.parametrize("rate, mean, variance", [(0.1, 0.0, 1.0), (0.6, -0.5, 2.0), (1.0, 0.3, 1)])
def test_what_is_said_of_alpha_dropout_is_so(rate, mean, variance):
    """There is no counterpart, but its docstring has the formula."""
    assert "(1 - rate) (1 + rate (1.7581 + m)**2 / v)" in (dropjax.expected.__doc__ or "")
    assert abs(LIMIT + 1.7581) < 1e-4
    x = jnp.broadcast_to(X[0], (20_000, 3))
    y = jax.jit(lambda x: dropjax.alpha_dropout(KEY, x, rate, mean=mean, variance=variance))(x)
    a = ((1 - rate) * (1 + rate * (1.7581 + mean) ** 2 / variance)) ** -0.5 if rate < 1 else 0
    assert_mean(y, mean + a * (1 - rate) * (np.asarray(X[0], np.float64) - mean))
