"""Data parallelism: many devices equal one, and two processes equal one."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.ops.keys import derive
from dropjax.train.devices import check_batch_size
from tests.conftest import ROOT, run_python
from tests.train import on_devices, test_lanes, test_replay
from tests.train.on_devices import BATCH, KEY

# One of two processes with two devices each. They are made one before anything is computed.
PROCESS = """
import json, sys
import jax
number, port = map(int, sys.argv[1:])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
from tests.train import on_devices
with on_devices.optimising():
    found = on_devices.batch_norm()
print(json.dumps(found | {"devices": jax.device_count()}))
"""


def start(port: int, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(number), str(port)],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def found(shared: Path) -> dict[str, Any]:
    """What a process with eight devices finds, once for all processes of the session."""
    path = shared / "devices.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            done = run_python("-m", "tests.train.on_devices", JAX_NUM_CPU_DEVICES="8")
            assert done.returncode == 0, done.stderr
            path.write_text(done.stdout.splitlines()[-1])
    return json.loads(path.read_text())


def assert_close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The masks are the same, so what is left is rounding."""
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
    for part in ("params", "mutable"):
        assert len(found[part]) == len(wanted[part]) >= 2
        for a, b in zip(found[part], wanted[part], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_devices_change_no_mask_and_losses_only_by_rounding(found):
    one, many = found["mixed"]["1"], found["mixed"]["8"]
    assert many["masks"] == one["masks"] and len(set(one["masks"])) > 4
    assert many["losses"] == pytest.approx(one["losses"], rel=1e-5)
    for a, b in zip(one["params"], many["params"], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_lanes_on_many_devices_are_those_on_one(found):
    test_lanes.assert_same(found["lanes"]["4"], found["lanes"]["1"])
    assert len({str(of) for of in found["lanes"]["1"]}) == 3


def test_eight_devices_draw_what_is_replayed_by_one(found):
    by_step = [
        {int(row): np.array(values) for row, values in by_row.items()}
        for by_row in found["replayed"]
    ]
    assert len(by_step) == 2 * test_replay.STEPS
    of = test_replay.program()
    of.check(test_replay.PARAMS)
    test_replay.assert_replayed(of.replay(), by_step)


def test_a_batched_model_gets_a_key_for_each_device(found):
    step_key = derive(KEY, "noise", 0)
    keys = [derive(step_key, "batch", device) for device in range(8)]
    codes = [on_devices.codes_of(key, BATCH // 8) for key in keys]
    assert found["batched"] == pytest.approx(float(jnp.mean(jnp.stack(codes))), rel=1e-6)
    assert len({float(code[0]) for code in codes}) == 8


def test_batch_norm_is_that_of_the_global_batch_gradients_included(found):
    """Of its real rows: in the last batch three of eight devices have none."""
    assert_close(found["batch norm"], found["formula"])


def test_two_processes_with_two_devices_each_equal_one(found):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, second = [result(process) for process in [start(port, i) for i in range(2)]]
    assert first == second and first["devices"] == 4
    assert_close(first, found["batch norm"])


@pytest.mark.parametrize(
    ("size", "devices", "words"),
    [(30, 8, "24 or 32 would"), (3, 8, "; 8 would"), (0, 1, "at least 1")],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_sizes_that_would(size, devices, words):
    with pytest.raises(ValueError, match=words):
        check_batch_size(size, devices)
