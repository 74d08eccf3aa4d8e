"""Equal networks are one to the compiler; networks that differ in anything are not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax import models, runs
from dropjax.core import noise
from dropjax.runs import Network
from dropjax.schemes import parse

CALLS = {
    "predict": lambda run, x: run.predict(x),
    "one draw": lambda run, x: run.predict(x, samples=1),
    "draws": lambda run, x: run.predict(x, samples=3),
    "spread": lambda run, x: run.predict_with_spread(x, samples=4),
    "noise": lambda run, x: run.noise(0, run.batch(0)[: len(x)]),
    "noise in evaluation": lambda run, x: run.noise_in_evaluation(1, np.arange(len(x) - 1)),
}


@pytest.mark.parametrize("call", CALLS)
def test_runs_of_equal_networks_share_one_program(own_run, call, monkeypatch):
    """Of any number of them; traced is what is compiled."""
    traced, outputs, drawn = [], Network.outputs, noise._at_sites

    def counted(*arguments):
        traced.append(1)
        return outputs(*arguments)

    def counted_noise(*arguments):
        traced.append(1)
        return drawn(*arguments)

    loaded = [runs.load(own_run("regression")) for _ in range(3)]
    for run in loaded:
        assert run.sites  # found by tracing, for each
    x = np.linspace(0, 1, 13 * 5).reshape(13, 5)  # so many as no other test has
    monkeypatch.setattr(Network, "outputs", counted)
    monkeypatch.setattr(noise, "_at_sites", counted_noise)
    first = CALLS[call](loaded[0], x)
    assert traced, "nothing was traced, so nothing could be seen"
    traced.clear()
    for run in loaded[1:]:
        jax.tree.map(np.testing.assert_array_equal, CALLS[call](run, x), first)
    assert not traced


def network(**changes) -> Network:
    module, scheme = models.parse("mlp(widths=(4,))", 2), parse("bernoulli(rate=0.3)|dropblock")
    given = {"task": "regression", "shift": np.float32([1, 2, 3]), "scale": 2.0}
    given |= {"target_shift": np.float32(1), "target_scale": np.float32([3, 4])}
    return Network(**{"module": module, "scheme": scheme} | given | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"module": models.parse("mlp(widths=(5,))", 2)},
        {"module": models.parse("mlp(widths=(4,))", 3)},
        {"scheme": parse("bernoulli(rate=0.31)|dropblock")},
        {"scheme": parse("bernoulli(rate=0.3,at='hidden')|dropblock")},
        {"scheme": parse("bernoulli(rate=0.3)|dropblock(block_size=3)")},
        {"scheme": parse("bernoulli(rate=0.3)")},
        {"task": "classification"},
        {"shift": np.float32([1, 2, 3.5])},
        {"shift": 1.0},
        {"shift": np.float64([1, 2, 3])},
        {"scale": 3.0},
        {"scale": np.float32(2)},
        {"target_shift": np.float32(2)},
        {"target_scale": np.float32([3, 5])},
        {"target_scale": np.float32([[3, 4]])},
    ],
)
def test_networks_that_differ_in_anything_are_not_equal(changes):
    assert network() == network() and hash(network()) == hash(network())
    assert network(**changes) != network()
    assert network(**changes) == network(**changes)
    assert {*changes} <= {field.name for field in dataclasses.fields(Network)}


def test_a_network_of_traced_numbers_equals_itself_alone():
    found = []

    def keep(rate):
        traced = dataclasses.replace(network(), scheme=parse("bernoulli").scaled(rate))
        other = dataclasses.replace(traced)
        found.append((traced == traced, traced == other, len({traced, other})))
        return rate

    jax.eval_shape(keep, jnp.float32(0.5))
    assert found == [(True, False, 2)]


def test_predictions_are_those_of_each_example():
    of = network(task="classification", shift=0.0)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    params, mutable = of.init(jax.random.key(0), x[0])
    values = {"params": params, "mutable": mutable, "learned": [{}, {}], "strength": 1.0}
    each = np.stack([of.prediction(values, one) for one in x])
    np.testing.assert_allclose(of.predictions(values, x, batch_size=3), each, rtol=1e-5)
