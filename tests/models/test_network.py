"""Equal networks are one to the compiler; networks that differ in anything are not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax import models
from dropjax.models.network import Network
from dropjax.schemes import parse


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
