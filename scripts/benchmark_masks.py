"""What dropout costs on an array: dropjax, its peers and a kernel that only scales, in one run.

  python -m scripts.benchmark_masks --out=masks.md

Takes 3 minutes on 2 idle cores, and 4 GB. On such (AMD EPYC with AVX-512, jax 0.10.2, flax 0.12.8,
torch 2.13, tensorflow 2.21), at rates 0.1 and 0.5:

  forward                    128x1024  512x512  2048x2048  4096x4096
  times x * 1.5, float32     1.3-1.4   1.7-1.8  1.1-1.2    1.3-1.4
  times x * 1.5, bfloat16    1.7-1.8   1.8-1.9  3.7-3.8    2.8-4.8
  times as fast as flax's    5-7       6-7      11-24      13-21

  forward and backward, 4096x4096: times the cost without dropout
  dropjax 1.07-1.13, flax, haiku and equinox 2.4-2.9, TensorFlow 2.2-2.6, PyTorch 3.2-7.1

flax.nnx, haiku and equinox draw as flax.linen does and are within its noise. Forward, PyTorch runs
at 0.3 to 1 of its speed, TensorFlow at 0.6 to 2.2. A key an example costs what a key for the batch
does. x * 1.5 takes as long at 512x512 as at 128x1024: most of it there is starting a program.
Read the last line of the output first: with another program on one of 2 cores, PyTorch's threads
wait for each other and its small arrays take 16 ms instead of 1.

What is measured, for each size, dtype and rate ("0.1 traced" is an argument of the compiled
program, the others are constants in it):

  Forward: dropout of one array, against x * 1.5, which reads and writes as much.
  Forward and backward: the gradient of sum(tanh(dropout(sin(x)))) in one program, against the same
      program, of the same framework, without dropout.
  Memory: the bytes an element that `jax.vjp` of dropout holds for its pullback, called op by op;
      also without arrays of a single repeated value, which a compiled step need not keep.
  Keys: a key an example under `jax.vmap`, against a key for the batch.
  On a GPU, also arrays of 2**28 elements against the same kernel, that is, against the bandwidth of
      memory. Times are then those of several launches in a row, PyTorch and TensorFlow are left
      out, and no figure is for their programs on the CPU.

How: the competitors take turns in an order shuffled each round. In its turn each runs untimed for
some milliseconds, for the cache, the clock and other frameworks' threads that still spin, and then
a few times more, the median of which counts. Ratios are taken within a round; tables give their
median and quartiles. Each program's output is first checked to be dropout at its rate.

Memory is part of the result. By glibc's defaults a large output is fresh pages of the system's at
every call, and faulting them in takes 35 ms for 64 MiB (on the machine above), which hides all
differences between kernels that take 5. Threads' arenas do so whatever the threshold for mmap. A
program that runs for long settles on memory that it reuses, so the script starts itself again with
one arena and no mmap (MALLOC_ARENA_MAX=1, MALLOC_MMAP_MAX_=0), touches a heap that is never given
back, and says how many page faults were left in the timed calls (0.001 in one, above). Inputs are
not donated: written in place x * 1.5 takes half of its time, but the input of a dropout inside a
network is mostly not free to be written to, nor could PyTorch be compared.

haiku, equinox, torch and tensorflow are optional.
"""

import ctypes
import dataclasses
import functools
import importlib
import itertools
import math
import os
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import flax
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import linen, nnx

import dropjax
from dropjax.core.text import aligned

Array = jax.Array

SIZES = flags.DEFINE_list("sizes", ["128x1024", "512x512", "2048x2048", "4096x4096"], "Shapes.")
DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of the arrays.")
REPEATS = flags.DEFINE_integer(
    "repeats", 3, "Rounds for the largest arrays; smaller ones have up to 6 times as many.", 1
)
OUT = flags.DEFINE_string("out", None, "Also write what is printed to this file.")

_HEAP = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}
_HEAP_BYTES = 3 * 2**30  # what the largest of the default cases needs
_LINEN = "flax.linen"
_SETTLE = 0.004  # seconds; OpenMP's threads spin for about that long after a call of PyTorch's
_CHECKED = 2**20  # elements

Arm = Callable[[], Any]
"""Runs a program once and returns its output, for JAX before it is computed."""

Times = dict[str, list[float]]
"""Seconds by competitor, one for each round."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of a table.

    Args:
      shape: of the array.
      dtype: of the array.
      rate: of dropping.
      traced: whether the rate is an argument of the program.
    """

    shape: tuple[int, ...]
    dtype: str
    rate: float
    traced: bool = False

    @property
    def cells(self) -> list[str]:
        rate = f"{self.rate:g}{' traced' if self.traced else ''}"
        return ["x".join(map(str, self.shape)), self.dtype, rate]

    def values(self) -> np.ndarray:
        """The array, in float32."""
        return _values(self.shape)


@functools.lru_cache(maxsize=1)
def _values(shape: tuple[int, ...]) -> np.ndarray:
    # In [0.5, 1.5): no zeros, nor a zero gradient, that dropout did not make.
    return np.random.default_rng(0).random(shape, np.float32) + np.float32(0.5)


class Peer(Protocol):
    """A framework's dropout. A method returns None if this case is not for it."""

    @property
    def name(self) -> str:
        """Of the competitor."""
        ...

    @property
    def family(self) -> str:
        """Of the framework, in which several competitors may be."""
        ...

    def forward(self, case: Case) -> Arm | None:
        """Dropout alone."""
        ...

    def training(self, case: Case, *, dropout: bool = True) -> Arm | None:
        """Its gradient between two other functions, or theirs without it."""
        ...

    def kept_for_backward(self, case: Case) -> tuple[float, float] | None:
        """Bytes an element; the second without arrays of one repeated value."""
        ...

    def to_numpy(self, y: Any) -> np.ndarray:
        """The first elements of an output."""
        ...


@dataclasses.dataclass(frozen=True)
class JaxPeer:
    """A dropout for JAX, as a function of key, array and rate."""

    name: str
    dropout: Callable[[Array, Array, Any], Array]
    family: str = "JAX"

    def forward(self, case: Case) -> Arm | None:
        return self._arm(case, self.dropout)

    def training(self, case: Case, *, dropout: bool = True) -> Arm | None:
        def loss(x: Array, key: Array, rate: Any) -> Array:
            h = jnp.sin(x)
            return jnp.sum(jnp.tanh(self.dropout(key, h, rate) if dropout else h))

        return self._arm(case, lambda key, x, rate: jax.grad(loss)(x, key, rate))

    def _arm(self, case: Case, f: Callable[[Array, Array, Any], Array]) -> Arm | None:
        key, x = jax.random.key(0), jnp.asarray(case.values(), case.dtype)
        if not case.traced:
            fixed = jax.jit(lambda key, x: f(key, x, case.rate))
            return lambda: fixed(key, x)
        # Weakly typed, as a Python number is, so that no peer turns bfloat16 into float32.
        rate, free = jnp.asarray(case.rate), jax.jit(f)
        try:
            jax.eval_shape(free, key, x, rate)
        except jax.errors.ConcretizationTypeError:
            return None
        return lambda: free(key, x, rate)

    def kept_for_backward(self, case: Case) -> tuple[float, float] | None:
        key, x = jax.random.key(0), jnp.asarray(case.values(), case.dtype)
        _, pullback = jax.vjp(lambda x: self.dropout(key, x, case.rate), x)
        held = {id(leaf): np.asarray(leaf) for leaf in jax.tree.leaves(pullback)}.values()
        varied = [a for a in held if a.size == 1 or np.any(a != a.flat[0])]
        return sum(a.nbytes for a in held) / x.size, sum(a.nbytes for a in varied) / x.size

    def to_numpy(self, y: Any) -> np.ndarray:
        return np.asarray(y).reshape(-1)[:_CHECKED].astype(np.float64)


class TorchPeer:
    """PyTorch on the CPU, eager as it is mostly used. Its rate is never compiled in."""

    name = family = "torch"

    def __init__(self, torch: Any):
        self.torch = torch
        torch.set_num_threads(_cpus())

    def _input(self, case: Case) -> Any:
        return self.torch.from_numpy(case.values()).to(getattr(self.torch, case.dtype))

    def forward(self, case: Case) -> Arm | None:
        torch, x = self.torch, self._input(case)

        def arm() -> Any:
            with torch.no_grad():
                return torch.nn.functional.dropout(x, case.rate, training=True)

        return None if case.traced else arm

    def training(self, case: Case, *, dropout: bool = True) -> Arm | None:
        torch, x = self.torch, self._input(case).requires_grad_()

        def arm() -> Any:
            h = torch.sin(x)
            if dropout:
                h = torch.nn.functional.dropout(h, case.rate, training=True)
            return torch.autograd.grad(torch.tanh(h).sum(), x)[0]

        return None if case.traced else arm

    def kept_for_backward(self, case: Case) -> tuple[float, float] | None:
        torch, x, held = self.torch, self._input(case).requires_grad_(), {}

        def pack(tensor: Any) -> Any:
            held[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            torch.nn.functional.dropout(x, case.rate, training=True)
        size = sum(held.values()) / x.numel()
        return size, size

    def to_numpy(self, y: Any) -> np.ndarray:
        return y.detach().reshape(-1)[:_CHECKED].double().numpy()


class TfPeer:
    """TensorFlow on the CPU, in a `tf.function`."""

    name = family = "tf"

    def __init__(self, tf: Any):
        self.tf = tf

    def _arm(self, case: Case, f: Callable[[Any, Any], Any]) -> Arm:
        tf, x = self.tf, self.tf.cast(case.values(), case.dtype)
        if case.traced:
            # tf.nn.dropout wants it in the array's dtype, and so at 0.1001 in bfloat16.
            rate, free = tf.cast(case.rate, case.dtype), tf.function(f)
            return lambda: free(x, rate)
        fixed = tf.function(lambda x: f(x, case.rate))
        return lambda: fixed(x)

    def forward(self, case: Case) -> Arm | None:
        return self._arm(case, self.tf.nn.dropout)

    def training(self, case: Case, *, dropout: bool = True) -> Arm | None:
        tf = self.tf

        def gradient(x: Any, rate: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                h = tf.nn.dropout(tf.sin(x), rate) if dropout else tf.sin(x)
                loss = tf.reduce_sum(tf.tanh(h))
            return tape.gradient(loss, x)

        return self._arm(case, gradient)

    def kept_for_backward(self, case: Case) -> tuple[float, float] | None:
        return None

    def to_numpy(self, y: Any) -> np.ndarray:
        return y.numpy().reshape(-1)[:_CHECKED].astype(np.float64)


def _linen_dropout(key: Array, x: Array, rate: Any) -> Array:
    y = linen.Dropout(rate, deterministic=False).apply({}, x, rngs={"dropout": key})
    assert isinstance(y, jax.Array)
    return y


def jax_peers(say: Callable[[str], None]) -> list[JaxPeer]:
    """dropjax first, then flax.linen, then the others that are installed."""
    peers = [
        JaxPeer("dropjax", dropjax.dropout),
        JaxPeer(_LINEN, _linen_dropout),
        JaxPeer("flax.nnx", lambda key, x, rate: nnx.Dropout(rate)(x, rngs=key)),
    ]
    if haiku := _optional("haiku", say):
        peers.append(JaxPeer("haiku", lambda key, x, rate: haiku.dropout(key, rate, x)))
    if eqx := _optional("equinox", say):
        peers.append(JaxPeer("equinox", lambda key, x, rate: eqx.nn.Dropout(rate)(x, key=key)))
    return peers


def other_peers(say: Callable[[str], None]) -> list[Peer]:
    """PyTorch and TensorFlow, if installed, and if JAX runs where they would: on the CPU."""
    if jax.default_backend() != "cpu":
        say("torch and tensorflow are left out: here they would run on the CPU.")
        return []
    peers: list[Peer] = []
    if torch := _optional("torch", say):
        peers.append(TorchPeer(torch))
    if tf := _optional("tensorflow", say):
        peers.append(TfPeer(tf))
    return peers


def _optional(module: str, say: Callable[[str], None]) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        say(f"{module} is left out: not installed.")
        return None


def check(case: Case, out: np.ndarray, gradient: bool, name: str) -> None:
    """That an output is dropout's at the case's rate.

    Args:
      case: what was asked for.
      out: the output's first elements.
      gradient: whether it is that of `Peer.training`.
      name: the competitor's.

    Raises:
      AssertionError: it is not.
    """
    x = case.values().reshape(-1)[:_CHECKED].astype(np.float64)
    scale, dropped = 1 / (1 - case.rate), out == 0
    sigma = math.sqrt(case.rate * (1 - case.rate) / x.size)
    # Some round the rate, or the comparison's uniform number, to bfloat16.
    slack = 5 * sigma + (2**-9 if case.dtype == "bfloat16" else 0)
    assert abs(dropped.mean() - case.rate) < slack, (name, case, dropped.mean())
    expected = x * scale
    if gradient:
        expected = np.cos(x) * scale * (1 - np.tanh(scale * np.sin(x)) ** 2)
    error = np.abs(out - expected)[~dropped].max()
    tolerance = (0.06 if gradient else 0.04) if case.dtype == "bfloat16" else 4e-6
    assert error < tolerance, (name, case, error)


class Clock:
    """Times competitors by turns, and counts page faults as it does.

    Args:
      launches: of a program in a row, for one time.
    """

    def __init__(self, launches: int):
        self.launches, self.calls, self.faults = launches, 0, 0
        self._random = random.Random(0)

    def measure(self, arms: dict[str, Arm], rounds: int, samples: int = 3) -> Times:
        """Seconds of each competitor in each round.

        Args:
          arms: the competitors.
          rounds: in which each has a turn.
          samples: timed calls in a turn, of which the median counts.
        """
        times: Times = {name: [] for name in arms}
        for _ in range(rounds):
            for name in self._random.sample(list(arms), len(arms)):
                self._settle(arms[name])
                times[name].append(statistics.median(self._time(arms[name], samples)))
        return times

    def _settle(self, arm: Arm) -> None:
        until = time.perf_counter() + _SETTLE
        jax.block_until_ready(arm())
        while time.perf_counter() < until:
            jax.block_until_ready(arm())

    def _time(self, arm: Arm, samples: int) -> list[float]:
        times, faults = [], _page_faults()
        for _ in range(samples):
            began = time.perf_counter()
            y = arm()
            for _ in range(self.launches - 1):
                y = arm()
            jax.block_until_ready(y)  # PyTorch's and TensorFlow's are
            times.append((time.perf_counter() - began) / self.launches)
            del y
        self.calls += samples * self.launches
        self.faults += _page_faults() - faults
        return times


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _rounds(case: Case) -> tuple[int, int]:
    """Rounds, and samples in each."""
    more = min(6, max(1, math.isqrt(2**24 // math.prod(case.shape))))
    return REPEATS.value * more, 5 if more == 6 else 1


def run_forward(case: Case, peers: Sequence[Peer], clock: Clock) -> Times:
    """The forward block of one case; also of the scale kernel."""
    arms = {peer.name: arm for peer in peers if (arm := peer.forward(case)) is not None}
    for peer in peers:
        if peer.name in arms:
            check(case, peer.to_numpy(arms[peer.name]()), False, peer.name)
    x, scale = jnp.asarray(case.values(), case.dtype), jax.jit(lambda x: x * 1.5)
    return clock.measure({"x * 1.5": lambda: scale(x)} | arms, *_rounds(case))


def run_training(case: Case, peers: Sequence[Peer], clock: Clock) -> Times:
    """Forward and backward of one case; also of each framework without dropout."""
    arms: dict[str, Arm] = {}
    for peer in peers:
        arm = peer.training(case)
        if arm is not None:
            check(case, peer.to_numpy(arm()), True, peer.name)
            arms[peer.name] = arm
            if (base := _without(peer)) not in arms:
                plain = peer.training(case, dropout=False)
                assert plain is not None
                arms[base] = plain
    return clock.measure(arms, *_rounds(case))


def _without(peer: Peer) -> str:
    return f"{peer.family} without"


def run_keys(dtype: str, clock: Clock) -> list[list[str]]:
    """Rows of the block on keys: 256 examples of 1024 features at rate 0.5."""
    case = Case((256, 1024), dtype, 0.5)
    x, key = jnp.asarray(case.values(), dtype), jax.random.key(0)
    keys = jax.random.split(key, len(x))

    def plain(key: Array, x: Array) -> Array:
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x / 0.5, 0)

    functions = {
        "dropjax": lambda key, x: dropjax.dropout(key, x, 0.5),
        "jax.random.bernoulli": plain,
    }
    arms: dict[str, Arm] = {}
    for name, f in functions.items():
        arms[name] = functools.partial(jax.jit(f), key, x)
        arms[f"{name}, keys"] = functools.partial(jax.jit(jax.vmap(f)), keys, x)
    for name, arm in arms.items():
        check(case, np.asarray(arm()).reshape(-1).astype(np.float64), False, name)
    times = clock.measure(arms, *_rounds(case))
    pairs = {name: (times[name], times[f"{name}, keys"]) for name in functions}
    return [
        [name, dtype, _ms(one), _ms(many), _ratio(many, one)] for name, (one, many) in pairs.items()
    ]


def run_gpu(dtype: str, peers: Sequence[JaxPeer], clock: Clock, exponent: int = 28) -> list:
    """Rows of the GPU block: how near to memory's bandwidth each competitor comes.

    Forward, forward that keeps what backward needs, and backward alone each read and write one
    array, as the scale kernel does, if they do nothing else.

    Args:
      dtype: of the array.
      peers: the competitors.
      clock: times them.
      exponent: of 2, the array's elements; even.
    """
    shape = (2 ** (exponent // 2),) * 2
    x, key, rows = jnp.ones(shape, dtype), jax.random.key(0), []
    scale = jax.jit(lambda x: x * 1.5)
    for peer in peers:

        def vjp(key: Array, x: Array, peer: JaxPeer = peer) -> Any:
            return jax.vjp(lambda x: peer.dropout(key, x, 0.1), x)

        forward = jax.jit(lambda key, x, peer=peer: peer.dropout(key, x, 0.1))
        keeping, backward = jax.jit(vjp), jax.jit(lambda pullback, g: pullback(g))
        _, pullback = keeping(key, x)
        arms: dict[str, Arm] = {
            "scale": functools.partial(scale, x),
            "forward": functools.partial(forward, key, x),
            "keeping": functools.partial(keeping, key, x),
            "backward": functools.partial(backward, pullback, x),
        }
        times = clock.measure(arms, REPEATS.value)
        bandwidth = 2 * x.nbytes / statistics.median(times["scale"]) / 1e9
        shares = [_ratio(times["scale"], times[name]) for name in list(arms)[1:]]
        rows.append([peer.name, dtype, f"{bandwidth:.0f}", *shares])
    return rows


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.3g}"


def _ratio(top: list[float], bottom: list[float]) -> str:
    """Median and quartiles of the ratios within a round."""
    ratios = [a / b for a, b in zip(top, bottom, strict=True)]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A titled markdown table with aligned columns."""
    first, *others = aligned([head, *rows], frame=("| ", " | ", " |"))
    rule = "".join("|" if letter == "|" else "-" for letter in first)
    return "\n".join([f"\n{title}\n", first, rule, *others])


_CASE = ["size", "dtype", "rate"]


def _case_table(
    title: str, names: Sequence[str], results: dict[Case, Times], cell: Callable[[Times, str], str]
) -> str:
    rows = [
        case.cells + [cell(times, name) if name in times else "-" for name in names]
        for case, times in results.items()
    ]
    return table(title, [*_CASE, *names], rows)


def _against_linen(what: str, names: Sequence[str], results: dict[Case, Times]) -> str:
    return _case_table(
        f"{what}, times as fast as {_LINEN}.Dropout: median (quartiles)",
        [name for name in names if name != _LINEN],
        {case: times for case, times in results.items() if not case.traced},
        lambda t, name: _ratio(t[_LINEN], t[name]),
    )


def forward_tables(peers: Sequence[Peer], results: dict[Case, Times]) -> list[str]:
    """The forward block: medians, then ratios to the scale kernel and to Flax."""
    names, scale = [peer.name for peer in peers], "x * 1.5"
    return [
        _case_table(
            "Forward, median milliseconds", [scale, *names], results, lambda t, name: _ms(t[name])
        ),
        _case_table(
            f"Forward, times the cost of {scale}: median (quartiles)",
            names,
            results,
            lambda t, name: _ratio(t[name], t[scale]),
        ),
        _against_linen("Forward", names, results),
    ]


def training_tables(peers: Sequence[Peer], results: dict[Case, Times]) -> list[str]:
    """Forward and backward: medians, then ratios to the same without dropout and to Flax."""
    bases = list(dict.fromkeys(map(_without, peers)))
    names, base = [peer.name for peer in peers], {peer.name: _without(peer) for peer in peers}
    return [
        _case_table(
            "Forward and backward, median milliseconds",
            [*bases, *names],
            results,
            lambda t, name: _ms(t[name]),
        ),
        _case_table(
            "Forward and backward, times the cost without dropout: median (quartiles)",
            names,
            results,
            lambda t, name: _ratio(t[name], t[base[name]]),
        ),
        _against_linen("Forward and backward", names, results),
    ]


def memory_table(peers: Sequence[Peer], dtypes: Sequence[str]) -> str:
    """The block on memory; the same for all sizes and rates."""
    rows = []
    for dtype in dtypes:
        held = [peer.kept_for_backward(Case((512, 512), dtype, 0.1)) for peer in peers]
        for i, what in enumerate(("all", "less constant arrays")):
            rows.append([dtype, what, *("-" if h is None else f"{h[i]:.3g}" for h in held)])
    title = "Kept for the backward pass, bytes an element (512x512)"
    return table(title, ["dtype", "arrays", *(peer.name for peer in peers)], rows)


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """Hardware and versions, in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    packages = {"jax": jax, "flax": flax}
    packages |= {name: sys.modules.get(name) for name in ("haiku", "equinox", "torch")}
    packages["tensorflow"] = sys.modules.get("tensorflow")
    versions = [f"{name} {package.__version__}" for name, package in packages.items() if package]
    device = jax.local_devices()[0].device_kind
    cpu = models[0] if models else platform.processor()
    return f"{cpu}, {_cpus()} cores, JAX on {device}; {', '.join(versions)}"


def _others_seconds() -> float:
    """CPU seconds that all other programs have taken since the machine's start; on Linux only."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return math.nan
    user, nice, system = map(int, stat.read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - time.process_time()


def keep_heap() -> None:
    """Has glibc reuse memory, large or small, instead of fetching it anew at each call.

    Starts the program again if need be: the settings are read at its start.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    if any(os.environ.get(name) != value for name, value in _HEAP.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | _HEAP)
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    block = libc.malloc(_HEAP_BYTES)
    ctypes.memset(block, 1, _HEAP_BYTES)
    libc.free(block)


def _shape(size: str) -> tuple[int, ...]:
    try:
        shape = tuple(map(int, size.split("x")))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise app.UsageError(f"--sizes are shapes such as 512x512, got {size!r}")
    return shape


def main(argv: list[str]) -> None:
    """Measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    keep_heap()
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    shapes = [_shape(size) for size in SIZES.value]
    if wrong := set(DTYPES.value) - {"float32", "bfloat16"}:
        raise app.UsageError(f"--dtypes are float32 and bfloat16, got {', '.join(sorted(wrong))}")
    began, others = time.perf_counter(), _others_seconds()
    gpu = jax.default_backend() == "gpu"
    clock = Clock(launches=20 if gpu else 1)
    jax_only = jax_peers(say)
    peers: list[Peer] = [*jax_only, *other_peers(say)]
    say(machine())
    rates = ((0.1, False), (0.5, False), (0.1, True))
    rows = itertools.product(shapes, DTYPES.value, rates)
    cases = [Case(shape, dtype, rate, traced) for shape, dtype, (rate, traced) in rows]

    for block in forward_tables(peers, {c: run_forward(c, peers, clock) for c in cases}):
        say(block)
    for block in training_tables(peers, {c: run_training(c, peers, clock) for c in cases}):
        say(block)
    say(memory_table(peers, DTYPES.value))
    rows = [row for dtype in DTYPES.value for row in run_keys(dtype, clock)]
    head = ["256x1024 at 0.5, forward", "dtype", "ms, one key", "ms, a key an example", "ratio"]
    say(table("A key an example under vmap", head, rows))
    if gpu:
        rows = [row for dtype in DTYPES.value for row in run_gpu(dtype, jax_only, clock)]
        head = ["2**28 at 0.1", "dtype", "x * 1.5, GB/s", "forward", "keeping", "backward"]
        say(table("Share of the bandwidth of x * 1.5: median (quartiles)", head, rows))
    say(
        f"\n'-': it takes no traced rate, or has none (eager). {clock.faults / clock.calls:.2g} "
        f"page faults in a timed call, with {' '.join(f'{k}={v}' for k, v in _HEAP.items())}."
    )
    load = (_others_seconds() - others) / (time.perf_counter() - began)
    say(f"Meanwhile other programs kept {load:.2f} of {_cpus()} CPUs busy.")
    if OUT.value:
        Path(OUT.value).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    app.run(main)
