"""Data parallelism: many devices equal one."""

import json

import numpy as np
import pytest

from dropjax.train.devices import check_batch_size
from tests.conftest import run_python

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, optax
from dropjax.core import plan
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from dropjax.train import Examples, Problem, Program

n, key = 50, jax.random.key(5)
x = jax.random.normal(jax.random.key(0), (n, 6))
y = jax.random.normal(jax.random.key(1), (n, 4))
params = {"w": jax.random.normal(jax.random.key(2), (6, 4)), "b": jnp.zeros(4)}
site = Site("hidden", Kind.HIDDEN, ("feature",))
linear = Site("linear", Kind.LINEAR, ("input", "output"))
# Small whole numbers, so that their sum over a batch is exact in any order.
codes = jnp.asarray([1.0, 3.0, 7.0, 15.0, 31.0, 63.0])

def apply(params, x, draw):
    outputs = draw.linear(draw(x, site), params["w"], params["b"], linear)
    mask = draw(jnp.ones(6), Site("mask", Kind.HIDDEN, ("feature",))) != 0
    return outputs, jnp.sum(jnp.where(mask, codes, 0))

def metrics(outputs, y):
    return {"loss": jnp.sum((outputs[0] - y) ** 2), "masks": outputs[1]}

sites = plan.record(lambda draw: apply(params, x[0], draw))
results = {}
for text in sys.argv[1:]:
    for count in (1, 2, 8):
        problem = Problem(apply, metrics, parse(text), optax.sgd(0.01), sites)
        devices = jax.devices()[:count]
        program = Program(problem, Examples(x, y), key=key, batch_size=16, devices=devices)
        state = program.init(params)
        losses, masks = [], []
        for step in range(2 * program.steps_per_epoch):
            state = jax.block_until_ready(program.run(state, step, step + 1))
            losses.append(float(state.totals["loss"]))
            masks.append(float(state.totals["masks"]))
        leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state.params)]
        results[f"{text} {count}"] = {"losses": losses, "masks": masks, "params": leaves}
print(json.dumps(results))
"""
TEXTS = (
    "none",
    "bernoulli",
    "dropconnect",
    "tests.throwaway:WholeBatch",
    "tests.throwaway:LearnedRate|bernoulli(rate=0.2)",
)


@pytest.fixture(scope="module")
def results():
    done = run_python("-c", SCRIPT, *TEXTS, JAX_NUM_CPU_DEVICES="8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("devices", [2, 8])
def test_devices_change_no_mask_and_losses_only_by_rounding(results, text, devices):
    one, many = results[f"{text} 1"], results[f"{text} {devices}"]
    assert many["masks"] == one["masks"]
    assert many["losses"] == pytest.approx(one["losses"], rel=1e-5)
    for a, b in zip(one["params"], many["params"], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_schemes_draw_different_masks(results):
    assert results["bernoulli 1"]["masks"] != results["tests.throwaway:WholeBatch 1"]["masks"]
    assert results["bernoulli 1"]["losses"] != results["none 1"]["losses"]


@pytest.mark.parametrize(
    ("size", "devices", "words"),
    [(30, 8, "24 or 32 would"), (3, 8, "; 8 would"), (0, 1, "at least 1")],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_sizes_that_would(size, devices, words):
    with pytest.raises(ValueError, match=words):
        check_batch_size(size, devices)


def test_a_batch_that_divides_is_accepted():
    check_batch_size(32, 8)
