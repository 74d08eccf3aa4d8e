"""Seconds per epoch, and to an accuracy, of dropjax, PyTorch and Keras on the same work.

  python -m scripts.benchmark_training --data_dir=DIR --torch_python=PATH --keras_python=PATH

The work: the nets of the results, --nets, on 28 x 28 images in batches of 128, with Adam at 1e-3.
DIR has MNIST's four original files; without it images and labels are random, and only seconds per
epoch are measured. The arms take turns epoch by epoch, so that other load on the machine meets all
of them:

  dropjax: what experiments.mnist runs; every example has a key of its own.
  no dropout: the same with --dropout=none. It shows what masks cost.
  PyTorch: a plain loop over float32 tensors in memory, fused Adam; for the CNN also in the memory
      format "channels last". Its LSTM has no dropout on the hidden state and two bias vectors.
  Keras on TensorFlow: Model.fit on float32 arrays in memory. --keras_jit says whether XLA compiles
      it; "auto" leaves that to Keras.
  With --masks, for mlp_1024_1024:
  32-bit masks: dropjax with the masks that Flax, Haiku and Equinox draw: 32 bits of threefry an
      element, kept for the backward pass.
  a key per batch: the same network, but each layer's mask is drawn in one call for the whole batch.
      It shows what a key per example costs; dropjax itself has no such mode.

Arms are matched in shapes (parameters are counted and compared), dropout, order of layers, loss,
optimiser, distribution of initial weights and number of threads, not in the random numbers. Each
peer runs in a process of its own, in the interpreter that its flag names, and is left out, with a
line, where that cannot import it; `scripts/training_peers.py` is all that it needs.

All run on the CPU. An arm's first epoch, with tracing and compilation, counts towards the time to
the target and not among seconds per epoch. The time to the target is the sum of the epochs' until
accuracy on the test images, without noise, is --target; evaluation, after each epoch, is in no
time, nor are starting the process, reading data and making initial weights. One seed is one sample
of it: --seed varies it.

Prints for each net seconds and their ratios, taken within a round, in which each arm ran one epoch;
last a summary in Markdown. Training losses must agree; with random labels they are ln(10) = 2.30
until the net knows the images by heart.

Takes, on 2 idle cores, some 18 minutes with MNIST, --epochs=2 and --max_epochs=6, most of it for
the CNN and the LSTM; --nets leaves them out. On a busy machine read the smallest times: PyTorch's
threads wait for each other, and with other load an epoch can take it a minute.

On AMD some of the distance to PyTorch can be MKL's: it picks slower code for CPUs that are not
Intel's. Told that this one is, PyTorch was a third faster on one day and no faster on another:

  echo 'int mkl_serv_intel_cpu_true(void) { return 1; }' | gcc -shared -fPIC -o mkl.so -x c -
  LD_PRELOAD=$PWD/mkl.so python -m scripts.benchmark_training --torch_python=PATH
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from dropjax import evaluate, schemes
from dropjax.core.draw import Draw
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain, dense
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop, keep_mask
from dropjax.ops.keys import derive
from dropjax.train.objectives import classification
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError, Setup, set_up
from scripts import training_peers
from scripts.training_peers import BATCH, LEARNING_RATE, Work

Array = jax.Array


class Net(NamedTuple):
    """A network and its dropout, as --model and --dropout of experiments.mnist."""

    model: str
    dropout: str


NETS = {
    "mlp_512_256": Net("mlp(widths=(512,256))", "bernoulli(rate=0.25)"),
    "mlp_256": Net("mlp(widths=(256,))", "bernoulli(rate=0.5)"),
    "mlp_1024_1024": Net("mlp(widths=(1024,1024))", "bernoulli(rate=0.5)"),
    "lstm_128": Net("rnn(width=128)", "variational(rate=0.2)"),
    "cnn": Net(
        "cnn(channels=(32,64,128),dense=(128,))",
        'bernoulli(rate=0.25,at="stage_[01]/map")|bernoulli(rate=0.5,at="hidden")',
    ),
}
_MASKS_OF = "mlp_1024_1024"
_MASKED = {"layer_0/hidden": 1024, "layer_1/hidden": 1024}
_RATE = 0.5
_MORE_PARAMETERS = {("lstm_128", "PyTorch"): 4 * 128}
_PAUSE = 0.3  # seconds in which another arm's threads stop spinning
_NAMES = 52  # characters
_APART = 1.25  # ratio of losses that is worth a line


class Epoch(NamedTuple):
    """What an epoch took, its mean training loss, and test accuracy if that is asked for."""

    seconds: float
    loss: float
    accuracy: float | None


class Arm(NamedTuple):
    """A competitor.

    Args:
      name: its name.
      parameters: how many its net has.
      epoch: trains the epoch of that number.
    """

    name: str
    parameters: int
    epoch: Callable[[int], Epoch]


@schemes.scheme
class Kept(schemes.Scheme):
    """Bernoulli dropout as other libraries have it: masks of 32 bits an element, as arrays."""

    rate: schemes.Rate = _RATE

    acts_on: ClassVar = frozenset({Kind.HIDDEN})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        return keep_mask(keys.example, self.rate, shape, bits=32)

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)


def _parameters(setup: Setup) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(setup.params))


def _accuracy(setup: Setup, values: dict[str, Any]) -> float:
    dataset = setup.dataset
    return evaluate.accuracy(
        evaluate.map_examples(setup.network.prediction, values, dataset.x_test), dataset.y_test
    )


def training_loop(name: str, setup: Setup, *, test: bool) -> Arm:
    """An arm that is dropjax's training loop.

    Args:
      name: its name.
      setup: an experiment.
      test: whether test accuracy is asked for.
    """
    program = setup.program
    state, steps = program.init(setup.params, setup.mutable), program.steps_per_epoch

    def epoch(number: int) -> Epoch:
        nonlocal state
        began = time.perf_counter()
        state = program.run(state, number * steps, (number + 1) * steps)
        jax.block_until_ready(state)
        seconds, step = time.perf_counter() - began, (number + 1) * steps
        accuracy = _accuracy(setup, setup.values(state, step)) if test else None
        return Epoch(seconds, state.means()["loss"], accuracy)

    return Arm(name, _parameters(setup), epoch)


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


def key_per_batch(name: str, setup: Setup, *, test: bool) -> Arm:
    """The arm that differs from dropjax's loop in where its masks come from, and in that alone.

    Args:
      name: its name.
      setup: the experiment with dropjax's own masks.
      test: whether test accuracy is asked for.
    """
    dataset, key = setup.dataset, jax.random.key(setup.config.seed)
    examples, optimizer = len(dataset.y_train), optax.adam(LEARNING_RATE)
    images, labels = jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)
    noise_key = derive(key, "noise")
    steps = setup.program.steps_per_epoch

    def step(number: Array, carry: Any, order: Array, first: Array) -> Any:
        params, opt_state, totals = carry
        position = (number - first) * BATCH + jnp.arange(BATCH)
        weight = (position < examples).astype(jnp.float32)
        rows = order[position % examples]
        step_key = derive(noise_key, number)
        masks = {
            site: Mask.of(derive(step_key, site), _RATE, (BATCH, width))
            for site, width in _MASKED.items()
        }

        def objective(params: Any) -> tuple[Array, dict[str, Array]]:
            def one(x: Array, y: Array, i: Array) -> dict[str, Array]:
                own = {name: mask.row(i) for name, mask in masks.items()}
                return classification(setup.network.outputs(params, x, Given(Chain(), own), {}), y)

            metrics = jax.vmap(one)(images[rows], labels[rows], jnp.arange(BATCH))
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
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), setup.params)
    opt_state = optimizer.init(params)

    def epoch(number: int) -> Epoch:
        nonlocal params, opt_state
        began = time.perf_counter()
        order = jax.random.permutation(derive(key, "data", number), examples)
        params, opt_state, totals = compiled(params, opt_state, order, jnp.int32(number * steps))
        jax.block_until_ready((params, opt_state, totals))
        seconds = time.perf_counter() - began
        values = {"params": params, "learned": {}, "mutable": {}, "strength": 1.0}
        accuracy = _accuracy(setup, values) if test else None
        return Epoch(seconds, float(totals["loss"]) / examples, accuracy)

    return Arm(name, _parameters(setup), epoch)


@contextlib.contextmanager
def peer_arm(python: str, work: Work) -> Iterator[Arm | None]:
    """An arm in another process, which lives inside the context.

    Args:
      python: the interpreter.
      work: for it.

    Yields:
      None, after a printed line, if the interpreter lacks the library.
    """
    command = [python, training_peers.__file__, json.dumps(dataclasses.asdict(work))]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # Leaving the context closes its stdin, which ends it.
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, env=environment, stderr=log, **pipes) as process,
    ):
        assert process.stdin and process.stdout
        to, back = process.stdin, process.stdout

        def answer() -> dict[str, Any]:
            for line in back:
                if line.startswith("{"):  # else a library's own
                    return json.loads(line)
            log.seek(0)
            raise RuntimeError(f"{work.library} on {work.net} ended:\n{log.read()[-2000:]}")

        def epoch(number: int) -> Epoch:
            to.write(f"{number}\n")
            to.flush()
            return Epoch(**answer())

        hello = answer()
        if "skipped" in hello:
            print(f"{work.library} is skipped: {hello['skipped']}; see --{work.library}_python")
            yield None
        else:
            yield Arm(hello["name"], hello["parameters"], epoch)


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_parameters(net: str, arms: Sequence[Arm]) -> None:
    """Compares the sizes of the nets.

    Raises:
      ValueError: they differ by other than PyTorch's second bias vectors.
    """
    ours = arms[0].parameters
    for arm in arms:
        more = _MORE_PARAMETERS.get((net, arm.name.partition(" ")[0]), 0)
        if arm.parameters != ours + more:
            raise ValueError(f"{net}: {arm.name} has {arm.parameters} parameters, dropjax {ours}")
        if more:
            print(f"{arm.name} has {more} parameters more: it has two bias vectors")
    print(f"{ours} parameters in all arms")


class Record(NamedTuple):
    """An arm's epochs so far."""

    name: str
    epochs: list[Epoch]

    @property
    def seconds(self) -> list[float]:
        """Of each epoch after the first."""
        return [epoch.seconds for epoch in self.epochs[1:]]

    def reached(self, target: float) -> int | None:
        """How many epochs it took to reach the target; None if it has not."""
        for number, epoch in enumerate(self.epochs):
            if epoch.accuracy is not None and epoch.accuracy >= target:
                return number + 1
        return None

    def time_to(self, target: float) -> str:
        """Seconds of training until then and, in brackets, epochs."""
        count = self.reached(target)
        if count is None:
            return f"not in {len(self.epochs)} epochs"
        return f"{sum(epoch.seconds for epoch in self.epochs[:count]):.1f} s ({count})"


def measure(
    arms: Sequence[Arm], epochs: int, target: float | None = None, most: int = 0
) -> list[Record]:
    """Lets the arms take turns.

    Args:
      arms: they.
      epochs: of each after the first, which does not count.
      target: arms go on until their test accuracy is this; None if they need not.
      most: an arm's epochs in search of it.
    """
    records = [Record(arm.name, []) for arm in arms]

    def searching(record: Record) -> bool:
        return target is not None and record.reached(target) is None

    for number in range(max(epochs + 1, most if target else 0)):
        seconds = []
        for arm, record in zip(arms, records, strict=True):
            if number <= epochs or searching(record):
                time.sleep(_PAUSE)
                record.epochs.append(arm.epoch(number))
                seconds.append(f"{record.epochs[-1].seconds:.1f}")
        if not seconds:
            break
        print(f"  epoch {number + 1}: {' '.join(seconds)} s", file=sys.stderr, flush=True)
    return records


def ratios(ours: Record, other: Record) -> list[float]:
    """Of seconds, in each round that both ran."""
    return [a / b for a, b in zip(ours.seconds, other.seconds, strict=False)]


def _row(name: str, values: Sequence[float], last: str = "") -> str:
    numbers = (statistics.median(values), min(values), max(values))
    return f"{name:<{_NAMES}}" + "".join(f"{number:8.2f}" for number in numbers) + last


def table(records: Sequence[Record], target: float | None) -> str:
    """One net's result as text.

    Args:
      records: of the arms, dropjax as it is first.
      target: test accuracy, if it was asked for.
    """
    ours, *others = records
    head = "".join(f"{title:>8}" for title in ("median", "min", "max"))
    lines = [
        f"{'seconds per epoch':<{_NAMES}}{head}{'first':>8}{'loss':>9}" + "   test" * bool(target)
    ]
    common = min(len(record.epochs) for record in records) - 1
    for record in records:
        at = record.epochs[common]
        last = f"{record.epochs[0].seconds:8.2f}{at.loss:9.4f}"
        last += f" {at.accuracy:.4f}" if at.accuracy is not None else ""
        lines += [_row(record.name, record.seconds, last)]
    lines += ["", f"{'ratio':<{_NAMES}}{head}"]
    lines += [_row(f"dropjax / {other.name}", ratios(ours, other)) for other in others]
    if target:
        lines += ["", f"training until test accuracy {target:g} (epochs)"]
        lines += [f"{record.name:<{_NAMES}}{record.time_to(target):>24}" for record in records]
    for other in others:
        a, b = ours.epochs[common].loss, other.epochs[common].loss
        if other.name != "no dropout" and max(a, b) > _APART * min(a, b):
            lines += [f"NOTE: losses of dropjax, {a:.4f}, and {other.name}, {b:.4f}, are apart"]
    return "\n".join(lines)


def summary(results: dict[str, list[Record]], target: float | None) -> str:
    """All nets' results as a table in Markdown.

    Args:
      results: by net.
      target: test accuracy, if it was asked for.
    """
    titles = ["net", "dropjax, s an epoch", "dropjax / no dropout", "dropjax / PyTorch"]
    titles += ["dropjax / Keras"]
    groups = ("dropjax", "PyTorch", "Keras")
    if target:
        titles += [f"{group} to {100 * target:g} % (epochs)" for group in groups]
    lines = [titles, ["---"] * len(titles)]

    def cell(records: Sequence[Record], group: str, text: Callable[[Record], str]) -> str:
        """A group's arms; all but its first under what tells them from it."""
        found = [record for record in records if record.name.startswith(group)]
        texts = [text(record) for record in found]
        texts[1:] = [f"{r.name.partition(', ')[2]}: {text(r)}" for r in found[1:]]
        return "; ".join(texts) or "-"

    def spread(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    def time_to(record: Record) -> str:
        return record.time_to(target or 0.0)

    for net, records in results.items():
        ours = records[0]

        def ratio(record: Record, ours: Record = ours) -> str:
            return spread(ratios(ours, record))

        line = [f"`{net}`", spread(ours.seconds)]
        line += [cell(records, group, ratio) for group in ("no dropout", *groups[1:])]
        if target:
            line += [cell(records, group, time_to) for group in groups]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def define_flags() -> None:
    """Not at import: the tests import this module beside others that have such flags too."""
    flags.DEFINE_list("nets", list(NETS), f"Which of {', '.join(NETS)}.")
    what = "Epochs of each arm after the first, which does not count."
    flags.DEFINE_integer("epochs", 5, what, lower_bound=1)
    what = "Test accuracy to be reached; used with --data_dir."
    flags.DEFINE_float("target", 0.98, what, lower_bound=0, upper_bound=1)
    what = "Most epochs of an arm in search of --target."
    flags.DEFINE_integer("max_epochs", 20, what, lower_bound=1)
    flags.DEFINE_integer("examples", 60_000, "Random training images.", lower_bound=BATCH)
    flags.DEFINE_string("data_dir", None, "Folder with MNIST's four original .gz files.")
    what = "Seed of images, weights, order and masks."
    flags.DEFINE_integer("seed", 0, what, lower_bound=0, upper_bound=2**31 - 1)
    for library, title in (("torch", "torch"), ("keras", "keras and tensorflow")):
        what = f"A Python interpreter that has {title}. Default: this one."
        flags.DEFINE_string(f"{library}_python", None, what)
    flags.DEFINE_enum("keras_jit", "auto", ["auto", "true", "false"], "Keras' jit_compile.")
    flags.DEFINE_bool("masks", False, f"Two more arms for {_MASKS_OF}, of other masks.")


def _flags_of(net: str, dropout: str, folder: Path) -> Flags:
    """What experiments.mnist is told."""
    given = flags.FLAGS
    return Flags(
        dropout=dropout,
        model=NETS[net].model,
        dataset="mnist" if given.data_dir else str(folder / "random.npz"),
        data_dir=given.data_dir,
        validation=0,
        seed=given.seed,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
    )


def write_random(path: Path, examples: int, seed: int) -> None:
    """Random images and labels as a data set."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (examples, 28, 28, 1), np.uint8)
    y = rng.permutation(np.arange(examples, dtype=np.int32) % 10)
    np.savez(path, x_train=x, y_train=y, x_test=x[:BATCH], y_test=y[:BATCH])


def _run_net(net: str, folder: Path) -> list[Record]:
    """Measures one net and prints its table."""
    given = flags.FLAGS
    test = bool(given.data_dir)
    target = given.target if test else None

    def setup(dropout: str) -> Setup:
        return set_up(EXPERIMENT, _flags_of(net, dropout, folder), lambda line: None)

    ours = setup(NETS[net].dropout)
    # One device: the arms are to have the same CPUs and no more.
    assert len(ours.program.devices) == 1, "XLA_FLAGS makes several devices of this CPU"
    arms = [
        training_loop("dropjax", ours, test=test),
        training_loop("no dropout", setup("none"), test=test),
    ]
    if given.masks and net == _MASKS_OF:
        arms.append(training_loop("32-bit masks", setup(f"kept(rate={_RATE})"), test=test))
        arms.append(key_per_batch("a key per batch", ours, test=test))
    data = folder / "data.npz"
    split = ours.dataset
    np.savez(
        data, x_train=split.x_train, y_train=split.y_train, x_test=split.x_test, y_test=split.y_test
    )
    jit = {"auto": "auto", "true": True, "false": False}[given.keras_jit]
    base = Work("torch", net, str(data), test, given.seed, _cpus())
    works = [base, dataclasses.replace(base, library="keras", jit=jit)]
    if net == "cnn":
        works.insert(1, dataclasses.replace(base, channels_last=True))
    with contextlib.ExitStack() as stack:
        for work in works:
            python = given[f"{work.library}_python"].value or sys.executable
            arm = stack.enter_context(peer_arm(python, work))
            arms += [arm] if arm else []
        print(f"\n{net}: {NETS[net].model}, {NETS[net].dropout}")
        check_parameters(net, arms)
        records = measure(arms, given.epochs, target, given.max_epochs)
    print(f"\n{table(records, target)}", flush=True)
    return records


def _note_on_mkl() -> None:
    info = Path("/proc/cpuinfo")
    amd = info.exists() and "AuthenticAMD" in info.read_text()
    if amd and "LD_PRELOAD" not in os.environ:
        print("NOTE: an AMD CPU, on which MKL slows PyTorch down; the module's docstring says more")


def main(argv: list[str]) -> None:
    """Measures and prints."""
    given = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    if unknown := [net for net in given.nets if net not in NETS]:
        raise app.UsageError(f"no such nets: {', '.join(unknown)}; there are {', '.join(NETS)}")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    schemes.register("kept", Kept)
    images = "MNIST" if given.data_dir else f"{given.examples} random images"
    print(
        f"{images}, {given.epochs} epochs after 1, {_cpus()} CPUs and threads, "
        f"jax {jax.__version__} on {jax.local_devices()[0].device_kind}, seed {given.seed}",
        flush=True,
    )
    _note_on_mkl()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random(folder / "random.npz", given.examples, given.seed)
        try:
            results = {net: _run_net(net, folder) for net in given.nets}
        except LaunchError as error:
            sys.exit(str(error))
    print(f"\n{summary(results, given.target if given.data_dir else None)}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
