"""Seconds per epoch of dropjax and of PyTorch on the same work, in one sitting.

  python -m scripts.benchmark_training --torch_python=PATH

The work: an MLP 784-1024-1024-10 with ReLU and dropout 0.5 on both hidden layers, Adam at 1e-3,
batches of 128, on 60,000 random images, or on MNIST with --data_dir. The arms take turns epoch by
epoch, so that other load on the machine meets all of them:

  dropjax: what experiments.mnist runs; every example has a key of its own.
  no dropout: the same program with --dropout=none. It shows what masks cost.
  32-bit masks: the same with the masks that Flax, Haiku and Equinox draw: 32 bits of threefry an
      element, kept for the backward pass.
  a key per batch: the same network, but each layer's mask is drawn in one call for the whole batch.
      It shows what a key per example costs; dropjax itself has no such mode.
  PyTorch: a plain loop over float32 tensors in memory, fused Adam, as many threads as CPUs. It
      runs in the interpreter that --torch_python names, which needs torch and numpy only.

All run on the CPU. Prints a table of seconds and of their ratios. The losses must agree; with
random labels they are ln(10) = 2.30.

Takes 2 minutes on 2 idle cores. There (AMD EPYC with AVX-512, jax 0.10.2, torch 2.13): dropjax
3.8 s an epoch, without dropout 3.8, PyTorch 6.4. On a busy machine read the smallest times:
PyTorch's threads wait for each other, and with other load an epoch can take it a minute.

On AMD some of the distance to PyTorch can be MKL's: it picks slower code for CPUs that are not
Intel's. Told that this one is, PyTorch was a third faster on one day and no faster on another:

  echo 'int mkl_serv_intel_cpu_true(void) { return 1; }' | gcc -shared -fPIC -o mkl.so -x c -
  LD_PRELOAD=$PWD/mkl.so python -m scripts.benchmark_training --torch_python=PATH
"""

import contextlib
import dataclasses
import inspect
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from dropjax import data, models, schemes
from dropjax.core import plan
from dropjax.core.draw import CLEAN, Draw
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain, Scheme, dense
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, keep_mask
from dropjax.ops.keys import derive
from dropjax.train import Examples, Problem, Program
from dropjax.train.objectives import classification

Array = jax.Array

EPOCHS = flags.DEFINE_integer("epochs", 5, "Measured epochs of each arm.", lower_bound=1)
EXAMPLES = flags.DEFINE_integer("examples", 60_000, "Random training images.", lower_bound=1)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with MNIST's four original .gz files.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of images, weights, order and masks.", lower_bound=0)
TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", None, "A Python interpreter that has torch. Default: this one."
)

_WIDTH, _RATE, _BATCH, _LEARNING_RATE = 1024, 0.5, 128, 1e-3
_MODEL = models.parse(f"mlp(widths=({_WIDTH},{_WIDTH}))", outputs=10)
_HIDDEN = ("layer_0/hidden", "layer_1/hidden")

Arm = Callable[[int], tuple[float, float]]
"""Trains an epoch, given its number; returns its seconds and its mean training loss."""


def _apply(params: Any, x: Array, draw: Draw) -> Array:
    return _MODEL.apply({"params": params}, x.astype(jnp.float32) / 255, draw)  # type: ignore


def _initial_params(key: Array, x: np.ndarray) -> Any:
    return jax.jit(lambda key: _MODEL.init(key, x[0].astype("float32"), CLEAN)["params"])(key)


@schemes.scheme
class Kept(schemes.Scheme):
    """Bernoulli dropout as other libraries have it: masks of 32 bits an element, as arrays."""

    rate: schemes.Rate = _RATE

    acts_on: ClassVar = frozenset({Kind.HIDDEN})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        return keep_mask(keys.example, self.rate, shape, bits=32)

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)


def training_loop(x: np.ndarray, y: np.ndarray, key: Array, scheme: Scheme) -> Arm:
    """An arm that is dropjax's training loop under a scheme.

    Args:
      x: images.
      y: labels.
      key: the run's key.
      scheme: the scheme.
    """
    params = _initial_params(derive(key, "init"), x)
    sites = plan.record(lambda draw: _apply(params, x[0], draw))
    optimizer = optax.adam(_LEARNING_RATE)
    problem = Problem(_apply, classification, scheme, optimizer, sites)
    # One device: the arms are to have the same CPUs and no more.
    program = Program(
        problem, Examples(x, y), key=key, batch_size=_BATCH, devices=jax.local_devices()[:1]
    )
    state, steps = program.init(params), program.steps_per_epoch

    def epoch(number: int) -> tuple[float, float]:
        nonlocal state
        began = time.perf_counter()
        state = program.run(state, number * steps, (number + 1) * steps)
        jax.block_until_ready(state)
        return time.perf_counter() - began, state.means()["loss"]

    return epoch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Given(Draw):
    """A draw whose masks are given, by the names of their sites."""

    masks: dict[str, Mask]

    def noise(self, site: Site, shape: Any) -> Any:
        del shape
        return self.masks.get(self.prefix + site.name)

    def apply(self, noise: Any, x: Array, site: Site, fallback: Array | None = None) -> Array:
        del site, fallback
        return x if noise is None else drop(noise, x, _RATE)

    def linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        del site
        return dense(x, w, b)


def key_per_batch(x: np.ndarray, y: np.ndarray, key: Array) -> Arm:
    """The arm that differs from dropjax's loop in where its masks come from, and in that alone.

    Args:
      x: images.
      y: labels.
      key: the run's key.
    """
    examples, optimizer = len(x), optax.adam(_LEARNING_RATE)
    noise_key, images, labels = derive(key, "noise"), jnp.asarray(x), jnp.asarray(y)
    steps = -(-examples // _BATCH)

    def step(number: Array, carry: Any, order: Array, first: Array) -> Any:
        params, opt_state, totals = carry
        position = (number - first) * _BATCH + jnp.arange(_BATCH)
        weight = (position < examples).astype(jnp.float32)
        rows = order[jnp.minimum(position, examples - 1)]
        step_key = derive(noise_key, number)
        masks = {name: Mask.of(derive(step_key, name), _RATE, (_BATCH, _WIDTH)) for name in _HIDDEN}

        def objective(params: Any) -> tuple[Array, dict[str, Array]]:
            def one(x: Array, y: Array, i: Array) -> dict[str, Array]:
                own = {name: mask.row(i) for name, mask in masks.items()}
                return classification(_apply(params, x, Given(Chain(), own)), y)

            metrics = jax.vmap(one)(images[rows], labels[rows], jnp.arange(_BATCH))
            sums = jax.tree.map(lambda values: jnp.sum(weight * values), metrics)
            return sums["loss"] / weight.sum(), sums

        gradients, sums = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        totals = jax.tree.map(jnp.add, totals, sums)
        return optax.apply_updates(params, updates), opt_state, totals

    def train(params: Any, opt_state: Any, order: Array, first: Array) -> Any:
        totals = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
        body = lambda number, carry: step(number, carry, order, first)  # noqa: E731
        return jax.lax.fori_loop(first, first + steps, body, (params, opt_state, totals))

    compiled = jax.jit(train, donate_argnums=(0, 1))
    params = _initial_params(derive(key, "init"), x)
    opt_state = optimizer.init(params)

    def epoch(number: int) -> tuple[float, float]:
        nonlocal params, opt_state
        began = time.perf_counter()
        order = jax.random.permutation(derive(key, "data", number), examples)
        params, opt_state, totals = compiled(params, opt_state, order, jnp.int32(number * steps))
        jax.block_until_ready((params, opt_state, totals))
        return time.perf_counter() - began, float(totals["loss"]) / examples

    return epoch


def torch_worker(path: str, seed: int, threads: int) -> None:
    """The program of the PyTorch arm, which runs in another interpreter and so imports for itself.

    It prints its version, then for each line that it reads an epoch's seconds and loss.

    Args:
      path: an npz file with x and y.
      seed: of weights, order and masks.
      threads: for PyTorch to use.
    """
    import importlib
    import sys
    import time

    import numpy as np

    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as XLA does
    torch.manual_seed(seed)
    arrays = np.load(path)
    x = torch.from_numpy(arrays["x"].reshape(len(arrays["x"]), -1)).float() / 255
    y = torch.from_numpy(arrays["y"]).long()
    nn = torch.nn
    layers = [nn.Linear(784, 1024), nn.ReLU(), nn.Dropout(0.5)]
    layers += [nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 10)]
    net = nn.Sequential(*layers).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    print(torch.__version__, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        total = torch.zeros(())
        for rows in torch.randperm(len(x)).split(128):
            loss = nn.functional.cross_entropy(
                net(x.index_select(0, rows)), y.index_select(0, rows)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        mean = total.item() / len(x)
        print(time.perf_counter() - began, mean, flush=True)


@contextlib.contextmanager
def torch_arm(python: str, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, Arm] | None]:
    """The PyTorch arm as a process that lives inside the context, and its name.

    Args:
      python: the interpreter.
      x: images.
      y: labels.

    Yields:
      None, after a printed line, if it cannot import torch.
    """
    check = [python, "-c", "import numpy, torch"]
    if subprocess.run(check, capture_output=True).returncode:
        print(f"PyTorch is skipped: {python} cannot import torch and numpy; see --torch_python")
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "data.npz")
        np.savez(path, x=x, y=y)
        threads = _cpus()
        call = f"torch_worker({path!r}, {SEED.value}, {threads})"
        program = f"from typing import Any\n{inspect.getsource(torch_worker)}\n{call}\n"
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # Leaving the context closes its stdin, which ends it.
        with subprocess.Popen([python, "-c", program], **pipes) as process:
            assert process.stdin and process.stdout
            to, back = process.stdin, process.stdout

            def epoch(number: int) -> tuple[float, float]:
                to.write(f"{number}\n")
                to.flush()
                seconds, loss = back.readline().split()
                return float(seconds), float(loss)

            yield f"PyTorch {back.readline().strip()}, {threads} threads", epoch


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _note_on_mkl() -> None:
    info = Path("/proc/cpuinfo")
    amd = info.exists() and "AuthenticAMD" in info.read_text()
    if amd and "LD_PRELOAD" not in os.environ:
        print("NOTE: an AMD CPU, on which MKL slows PyTorch down; the module's docstring says more")


def training_data() -> tuple[np.ndarray, np.ndarray]:
    """MNIST if --data_dir is given, else random images and labels."""
    if DATA_DIR.value is not None:
        mnist = data.load("mnist", Path(DATA_DIR.value), say=print)
        return mnist.x_train, mnist.y_train
    rng = np.random.default_rng(SEED.value)
    x = rng.integers(0, 256, (EXAMPLES.value, 28, 28, 1), np.uint8)
    return x, rng.integers(0, 10, EXAMPLES.value, np.int32)


def measure(arms: dict[str, Arm], epochs: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each epoch after a first one that does not count, and the last training loss."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    losses: dict[str, float] = {}
    for number in range(epochs + 1):
        for name, arm in arms.items():
            took, losses[name] = arm(number)
            if number:
                seconds[name].append(took)
    return seconds, losses


def _row(name: str, values: list[float], last: str = "") -> str:
    numbers = (statistics.median(values), min(values), max(values))
    return f"{name:<34}" + "".join(f"{number:8.2f}" for number in numbers) + last


def table(seconds: dict[str, list[float]], losses: dict[str, float]) -> str:
    """The result as text. Ratios are taken within a round, in which each arm ran one epoch.

    Args:
      seconds: by arm, dropjax as it is first.
      losses: by arm.
    """
    ours, *others = seconds
    ratios = {
        f"{ours} / {other}": [a / b for a, b in zip(seconds[ours], seconds[other], strict=True)]
        for other in others
    }
    head = "".join(f"{title:>8}" for title in ("median", "min", "max"))
    lines = [f"{'seconds per epoch':<34}{head}{'loss':>9}"]
    lines += [_row(name, values, f"{losses[name]:9.4f}") for name, values in seconds.items()]
    lines += ["", f"{'ratio':<34}{head}", *(_row(name, v) for name, v in ratios.items())]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    jax.config.update("jax_platforms", "cpu")
    (x, y), key = training_data(), jax.random.key(SEED.value)
    print(
        f"{'MNIST' if DATA_DIR.value else 'random images'}, {len(x)} examples, "
        f"{EPOCHS.value} epochs after 1, {_cpus()} CPUs, jax {jax.__version__} on "
        f"{jax.local_devices()[0].device_kind}",
        flush=True,
    )
    arms = {
        "dropjax": training_loop(x, y, key, schemes.parse("bernoulli", rate=_RATE)),
        "no dropout": training_loop(x, y, key, schemes.parse("none")),
        "32-bit masks": training_loop(x, y, key, Kept()),
        "a key per batch": key_per_batch(x, y, key),
    }
    with torch_arm(TORCH_PYTHON.value or sys.executable, x, y) as peer:
        if peer:
            arms[peer[0]] = peer[1]
            _note_on_mkl()
        print(table(*measure(arms, EPOCHS.value)))


if __name__ == "__main__":
    app.run(main)
