"""The papers' experiments, at sizes that take a second: that they run, and judge rightly."""

import importlib
import json
import math
import pkgutil

import jax
import numpy as np
import optax
import pytest

from dropjax.core import plan
from dropjax.data import Dataset
from experiments import papers
from experiments.papers import common, concrete, local_reparameterization
from experiments.papers.common import Target
from tests.conftest import ROOT

NAMES = [m.name for m in pkgutil.iter_modules(papers.__path__) if m.name != "common"]


def run(name, **values) -> dict[str, Target]:
    module = importlib.import_module(f"experiments.papers.{name}")
    return {target.name: target for target in module.targets(**values)}


@pytest.fixture
def small_mnist(monkeypatch):
    """60 images of 4 x 4 pixels, as MNIST."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 60).astype(np.int32)
    x = rng.integers(0, 255, (60, 4, 4, 1)).astype(np.uint8)
    small = Dataset("mnist", x, y, x[:20], y[:20], task="classification", outputs=10)
    monkeypatch.setattr("dropjax.data.load", lambda *_, **__: small)


def test_a_target_is_met_within_its_bounds_alone():
    near = common.near("rate", 0.4, 0.003, 0.403)
    assert near.passed and str(near) == "PASS  rate: 0.403 (published 0.4; 0.397 to 0.403)"
    assert not common.near("rate", 0.4, 0.003, 0.404).passed
    most = Target("error", "1.9", -math.inf, 2.1, 2.2)
    assert str(most) == "FAIL  error: 2.2 (published 1.9; at most 2.1)"
    assert not Target("error", "1.9", -math.inf, 2.1, math.nan).passed
    assert common.holds("it falls", "yes", True).passed
    assert not common.holds("it falls", "yes", False).passed


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_program_that_says_what_it_makes_again_and_how(name):
    module = importlib.import_module(f"experiments.papers.{name}")
    text = module.__doc__ or ""
    assert f"python -m experiments.papers.{name}" in text and "\nSource: " in text
    source = (ROOT / "experiments" / "papers" / f"{name}.py").read_text()
    assert source.endswith('if __name__ == "__main__":\n    common.main(targets)\n')
    assert len(NAMES) >= 4


@pytest.fixture
def short_line(monkeypatch):
    """10 examples each time, for which one compiled program serves."""
    line = concrete.line
    monkeypatch.setattr(concrete, "line", lambda rng, examples: line(rng, 10))


def test_concrete(short_line, monkeypatch):
    monkeypatch.setattr(concrete, "EPOCHS", {10: 3, 100: 2})
    found = run("concrete", examples=(100, 10), width=4)
    assert len(found) == 4 + 4 + 1 + 2
    rates = [t for name, t in found.items() if "rate of" in name]
    assert [t.published for t in rates[::4]] == ["0.4038", "0.236"]
    assert all(0.09 < t.found < 0.11 for t in rates)


def test_concrete_for_another_time_has_no_targets_for_rates(short_line):
    found = run("concrete", examples=(100,), width=4, times=0.01)
    assert list(found) == ["100 examples, noise's std"]
    with pytest.raises(ValueError, match="examples must be of 10, 25"):
        run("concrete", examples=(7,))


def test_sparse_variational(small_mnist):
    found = run("sparse_variational", epochs=2, control_epochs=1, widths=())
    assert [t.published for t in found.values()] == ["1.92", "68", "98.9, 97.2, 62.0 %", "few"]
    assert found["compression"].found >= 1


def test_local_reparameterization(small_mnist, monkeypatch):
    """With one hidden layer instead of three."""
    dense_params = common.dense_params
    monkeypatch.setattr(
        common,
        "dense_params",
        lambda key, sizes, init: dense_params(key, [sizes[0], *sizes[-2:]], init),
    )
    small = {"small_width": 6, "small_epochs": 1, "runs": 2}
    found = run(
        "local_reparameterization", width=8, epochs=1, batch=100, draws=16, errors=True, **small
    )
    assert len(found) == 6 + 2
    assert found["top layer, single / local"].found > 1
    with pytest.raises(ValueError, match="runs must be at least 1; got 0"):
        run("local_reparameterization", errors=True, runs=0)


def test_noise_of_each_example_s_own_is_measured_in_smaller_batches(small_mnist):
    """With which the variance of a gradient falls as one over their size; with shared noise not."""
    module = local_reparameterization
    training, _ = common.mnist(None, centred=False)
    params = common.dense_params(jax.random.key(0), [16, 5, 10])

    def variance(name, batch, shared):
        scheme = module.TABLE[name]
        shapes = plan.record(lambda draw: common.network(params, training[0][0], draw))
        learned = scheme.init_learned(jax.random.key(1), shapes, plan.no_weights(shapes))
        found = module.gradient_variances(
            params, scheme.bind(learned), training, batch=batch, draws=600, shared=shared, seed=0
        )
        return found["bottom"]

    local = variance("local", 400, False)
    assert variance("local", 400, True) == pytest.approx(local, rel=0.1)
    assert variance("single", 400, True) > 1.5 * local


def test_an_average_over_time_takes_in_each_step_s_parameters_and_changes_none():
    decay = 0.9
    optimizer = optax.chain(optax.sgd(0.5), local_reparameterization.averaging(decay))
    params = expected = {"w": np.ones(3, np.float32)}
    state = optimizer.init(params)
    for step in range(5):
        updates, state = optimizer.update({"w": np.float32([1, 2, step])}, state, params)
        params = optax.apply_updates(params, updates)
        expected = {"w": decay * expected["w"] + (1 - decay) * np.asarray(params["w"])}
    np.testing.assert_array_equal(params["w"], [-1.5, -4, -4])
    np.testing.assert_allclose(state[1].average["w"], expected["w"], rtol=1e-6)


def test_selu_alpha_at_a_smaller_width_and_depth():
    """The moments are those of the paper at any width and depth that are not tiny."""
    found = run("selu_alpha", depth=12, width=128, examples=100)
    assert all(target.passed for target in found.values()), found


SCRIPT = """
import contextlib, io, json, runpy, sys
from absl import flags

found = []
for name, *arguments in json.loads(sys.argv[1]):
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    sys.argv = [name, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(f"experiments.papers.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            found.append([end.code, *(of.buffer.getvalue().decode() for of in (out, err))])
    flags.FLAGS.unparse_flags()
    for module, defined in [*flags.FLAGS.flags_by_module_dict().items()]:
        for flag in [*defined] if module.endswith(f"{name}.py") else []:
            delattr(flags.FLAGS, flag.name)
print(json.dumps(found))
"""


def test_from_the_command_line(python):
    commands = [
        ["selu_alpha", "--width=16", "--depth=2", "--examples=4"],
        ["concrete", "--examples=7"],
        ["sparse_variational", "--helpshort"],
    ]
    done = python("-c", SCRIPT, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    small, wrong, helped = json.loads(done.stdout.splitlines()[-1])
    assert small[0] in (0, 1), small
    assert small[1].count("published") == 3 and "alpha: mean" in small[1]
    assert wrong[0] == 2 and "examples must be of 10, 25" in wrong[2]
    assert "Traceback" not in wrong[2]
    assert "--epochs: passes over the data" in helped[1] and "--widths" in helped[1]
