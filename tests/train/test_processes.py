"""Two processes that train together equal one with as many devices."""

import json
import os
import socket
import subprocess
import sys

import numpy as np

from tests.conftest import ROOT

SCRIPT = """
import json, sys
import jax
process, processes, port = map(int, sys.argv[1:])
jax.config.update("jax_num_cpu_devices", 4 // processes)
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
import numpy as np, optax
from dropjax import models, schemes, train
from dropjax.runs import Network

network = Network(models.parse('cnn(channels=(3,),dense=(5,),norm="batch")', 3),
                  schemes.parse('bernoulli|spatial(rate=0.2)|cutout(size=2)'))
rng = np.random.default_rng(0)
x = rng.normal(size=(50, 4, 4, 1)).astype(np.float32)
y = np.arange(50, dtype=np.int32) % 3
params, mutable = network.init(jax.random.key(0), x[0])
problem = train.Problem(
    network.forward, train.OBJECTIVES["classification"], network.scheme, optax.sgd(0.05),
    stateful=True,
)
fitted = train.fit(
    problem, params, x, y, key=jax.random.key(1), epochs=2, batch_size=16, mutable=mutable
)
leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves((fitted.params, fitted.mutable))]
print(json.dumps({"devices": jax.device_count(), "history": fitted.history, "leaves": leaves}))
"""

# Without optimisations JAX's CPU code for batch norm in a loop ends in NaN.
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "NPROC": "16",
    "XLA_FLAGS": "",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
}


def start(process: int, processes: int, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(process), str(processes), str(port)],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_two_processes_with_two_devices_each_equal_one_with_four():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, *two = (start(0, 1, 0), start(0, 2, port), start(1, 2, port))
    alone, *together = [result(process) for process in (one, *two)]
    assert together[0] == together[1]
    assert alone["devices"] == together[0]["devices"] == 4
    for epoch, other in zip(alone["history"], together[0]["history"], strict=True):
        # The masks are the same, so what is left is rounding.
        np.testing.assert_allclose(epoch["loss"], other["loss"], rtol=1e-5)
    for leaf, other in zip(alone["leaves"], together[0]["leaves"], strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-5)
