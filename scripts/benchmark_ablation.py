"""What an ablation of 100 cells takes: scripts.ablate, a process a cell, and a loop in PyTorch.

  python -m scripts.benchmark_ablation --torch_python=PATH

The cells: schemes none, bernoulli, gaussian and dropconnect, the last three at rates 0.1, 0.3 and
0.5, with 10 seeds, on mlp(widths=(256,)) and the digits of scikit-learn; 100 epochs of 41 steps,
batch 32, Adam at 0.003. Three ways:

  ablate: `python -m scripts.ablate`, which trains cells side by side, from its start to the end of
      the process with all tables, figures and folders; once with an empty compilation cache, once
      with what that left in it. The programs for training that it compiled are counted in the
      cache: one a scheme.
  processes: `python -m experiments.mnist` for each cell, one after another, each of which has run
      before, so that it finds its programs compiled.
  PyTorch: a loop over the cells in one process, on the CPU. scripts/ablation_peer.py has it, and
      what it leaves out. It uses one thread or all, and the fused or the foreach Adam, whichever
      was faster before the measurement. Its start, with the import and the data, is counted.

Of the last two ways --sample cells, spread evenly over the grid, are measured in turns; their mean
times the number of cells is an extrapolation (--sample=0 measures all, in some 40 minutes). PyTorch
is left out, with a line, where --torch_python cannot import it. It has the same data,
standardisation, shapes, noise, loss and optimiser, not the same random numbers; its median test
accuracy is printed beside that of the same cells here.

CPU seconds are of all threads. Other load on the machine lengthens seconds much and CPU seconds
little; both are printed, with the load. Ratios are of seconds, within this one run.

Takes some 4 minutes on 2 idle cores, twice that on busy ones. On AMD some of the distance to
PyTorch can be MKL's: see scripts/benchmark_training.py.
"""

import contextlib
import dataclasses
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from dropjax.runs import record
from experiments.ablation.grid import Grid, Planned, Reader, plan_cells
from experiments.mnist import EXPERIMENT
from scripts import ablation_peer
from scripts.ablation_peer import Cell, Work

SCHEMES = ("none", "bernoulli", "gaussian", "dropconnect")
RATES = (0.1, 0.3, 0.5)
HIDDEN = 256
_FIXED = {"model": f"mlp(widths=({HIDDEN},))", "dataset": "digits"}
_OTHERS = {"processes": ("processes", 3.0), "torch": ("PyTorch", 2.0)}
"""What the ablation is compared with: its title, and the ratio of seconds that was asked for."""
_ROOT = Path(__file__).resolve().parent.parent
_NAMES = 46  # characters


class Taken(NamedTuple):
    """What something took.

    Args:
      seconds: from start to end.
      cpu: seconds of CPU, over all threads.
    """

    seconds: float
    cpu: float


_NOTHING = Taken(0.0, 0.0)


class Row(NamedTuple):
    """A way to run the cells.

    Args:
      name: of it.
      taken: by all cells.
      note: what else is to be said.
    """

    name: str
    taken: Taken
    note: str = ""


class Target(NamedTuple):
    """What the benchmark was made to check.

    Args:
      name: of the quantity.
      found: its value.
      bound: of it.
      unit: of both.
      at_least: whether `bound` is the least that will do, or the most.
    """

    name: str
    found: float
    bound: float
    unit: str
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound


def spread(cells: Sequence[Any], sample: int) -> list[Any]:
    """So many of the cells, from the middles of equal parts of their list; all for 0."""
    if not 0 < sample < len(cells):
        return list(cells)
    return [cells[(2 * i + 1) * len(cells) // (2 * sample)] for i in range(sample)]


def extrapolated(taken: Sequence[Taken], cells: int, start: Taken = _NOTHING) -> Taken:
    """The mean of what some cells took, times the number of all, after a start."""
    seconds, cpu = (statistics.fmean(values) for values in zip(*taken, strict=True))
    return Taken(start.seconds + cells * seconds, start.cpu + cells * cpu)


def range_note(taken: Sequence[Taken], cells: int) -> str:
    """How many cells were measured, and what one took."""
    seconds = [one.seconds for one in taken]
    each = f"{statistics.fmean(seconds):.2f} s a cell ({min(seconds):.2f} to {max(seconds):.2f})"
    return f"{each}; {len(taken)} of {cells} cells" + ", extrapolated" * (len(taken) < cells)


def run_process(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Taken:
    """Runs a command from start to end.

    Args:
      command: the program and its arguments.
      environment: variables beside this process's.
      folder: where it runs.

    Raises:
      RuntimeError: its exit status is not 0; the message has its last lines.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | dict(environment), cwd=folder, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        tail = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{tail}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds, cpu)


def training_programs(cache: Path) -> int:
    """How many programs for training a compilation cache holds."""
    # Those of `parallel` have the name that jax.pmap gives them.
    return sum(path.name.startswith(("jit__fun-", "pmap_")) for path in cache.glob("*-cache"))


def write_data(path: Path, cell: Planned) -> None:
    """A cell's data as its model sees them, flattened, in a file for the peer."""
    dataset, arrays = cell.resolved.dataset, {}
    for part in ("train", "validation", "test"):
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        seen = (np.asarray(x, np.float32) - dataset.shift) / dataset.scale
        arrays |= {f"x_{part}": seen.astype(np.float32).reshape(len(y), -1), f"y_{part}": y}
    np.savez(path, **arrays)


class Loop:
    """The peer in its process.

    Args:
      name: with its version and how it was set.
      start: what it took until the data were in memory.
    """

    def __init__(self, name: str, start: Taken, process: Any, answer: Any) -> None:
        self.name, self.start, self._process, self._answer = name, start, process, answer

    def run(self, cell: Cell) -> dict[str, Any]:
        """What the peer says of a cell."""
        self._process.stdin.write(json.dumps(dataclasses.asdict(cell)) + "\n")
        self._process.stdin.flush()
        return self._answer()


@contextlib.contextmanager
def peer(python: str, work: Work) -> Iterator[Loop | None]:
    """PyTorch in another process, which lives inside the context.

    Args:
      python: the interpreter.
      work: for it.

    Yields:
      None, after a printed line, if the interpreter lacks PyTorch.
    """
    command = [python, ablation_peer.__file__, json.dumps(dataclasses.asdict(work))]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    began = time.perf_counter()
    # Leaving the context closes its stdin, which ends it.
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, env=environment, stderr=log, **pipes) as process,
    ):

        def answer() -> dict[str, Any]:
            assert process.stdout
            for line in process.stdout:
                if line.startswith("{"):  # else a library's own
                    return json.loads(line)
            log.seek(0)
            raise RuntimeError(f"PyTorch ended:\n{log.read()[-2000:]}")

        hello = answer()
        if "skipped" in hello:
            print(f"PyTorch is skipped: {hello['skipped']}; see --torch_python", flush=True)
            yield None
        else:
            start = Taken(time.perf_counter() - began, hello["cpu"])
            yield Loop(answer()["name"], start, process, answer)


def targets(rows: Mapping[str, Row]) -> list[Target]:
    """What was asked of the ablation, against what was found.

    Args:
      rows: "cold" and "warm" are the ablation's, "processes" and, if it ran, "torch".
    """
    found = [Target("ablate, empty cache", rows["cold"].taken.seconds, 120, " s", False)]
    for of, (title, bound) in _OTHERS.items():
        for way, when in (("cold", "empty"), ("warm", "filled")):
            if of in rows:
                ratio = rows[of].taken.seconds / rows[way].taken.seconds
                found.append(Target(f"{title} / ablate, {when} cache", ratio, bound, "", True))
    return found


def table(rows: Mapping[str, Row]) -> str:
    """The times, and how they compare with what was asked."""
    lines = [f"{'':<{_NAMES}}{'seconds':>9}{'CPU s':>9}"]
    for row in rows.values():
        numbers = f"{row.taken.seconds:9.1f}{row.taken.cpu:9.1f}"
        lines.append(f"{row.name:<{_NAMES}}{numbers}  {row.note}".rstrip())
    lines += ["", f"{'':<{_NAMES}}{'found':>9}  target"]
    for one in targets(rows):
        bound = f"{'at least' if one.at_least else 'at most'} {one.bound:g}{one.unit}"
        met = "met" if one.met else "NOT MET"
        lines.append(f"{one.name:<{_NAMES}}{one.found:9.2f}  {bound}: {met}")
    ours, others = rows["warm"].taken.cpu, [row for key, row in rows.items() if key in _OTHERS]
    cpus = [f"{row.name} {row.taken.cpu / ours:.1f}" for row in others]
    return "\n".join([*lines, "", f"CPU s / ablate's with the filled cache: {'; '.join(cpus)}"])


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    python = platform.python_version()
    return f"{cpu}, {_cpus()} CPUs; Python {python}, jax {jax.__version__} on the CPU"


def _load() -> str:
    return ", ".join(f"{load:.1f}" for load in os.getloadavg())


def define_flags() -> None:
    """Not at import: the tests import this module beside others that have such flags too."""
    what = "Cells measured in a process each and in PyTorch; 0 for all."
    flags.DEFINE_integer("sample", 8, what, lower_bound=0)
    flags.DEFINE_integer("seeds", 10, "Runs of each setting.", lower_bound=2)
    flags.DEFINE_integer("epochs", 100, "Passes over the training data.", lower_bound=1)
    what = "A Python interpreter that has torch and numpy. Default: this one."
    flags.DEFINE_string("torch_python", None, what)


def _ablate(folder: Path, environment: Mapping[str, str]) -> Taken:
    given = flags.FLAGS
    words = _FIXED | {
        "dropout": ",".join(SCHEMES),
        "rate": ",".join(map(str, RATES)),
        "seeds": given.seeds,
        "epochs": given.epochs,
        "workdir": folder,
    }
    command = [sys.executable, "-m", "scripts.ablate", *(f"--{k}={v}" for k, v in words.items())]
    return run_process(command, environment, _ROOT)


def _single(cell: Planned, folder: Path, environment: Mapping[str, str], *more: str) -> Taken:
    python, *words = shlex.split(cell.cell.command)
    assert python == "python"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        command = [sys.executable, *words, f"--workdir={name}/run", *more]
        return run_process(command, environment, _ROOT)


def _peer_cell(cell: Planned) -> Cell:
    config = cell.resolved.config
    return Cell(cell.cell.scheme, config.rate or 0.0, config.seed)


def _accuracies(cells: Sequence[Planned], folder: Path, peers: Sequence[dict[str, Any]]) -> str:
    def percent(results: Sequence[Mapping[str, Any]]) -> str:
        return f"{100 * statistics.median(result['test_accuracy'] for result in results):.1f} %"

    files = [folder / "cells" / cell.cell.id / "result.json" for cell in cells]
    ours = percent([record.read(file)[0] for file in files])
    theirs = f", PyTorch {percent(peers)}" if peers else ""
    return f"median test accuracy of the cells measured: ablate {ours}{theirs}"


def _measure(cells: Sequence[Planned], folder: Path) -> tuple[dict[str, Row], str]:
    given, cache, config = flags.FLAGS, folder / "xla", cells[0].resolved.config
    sample = spread(cells, given.sample)
    # As experiments.setup has it where no cache was named.
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    write_data(folder / "data.npz", cells[0])
    work = Work(
        str(folder / "data.npz"),
        HIDDEN,
        cells[0].resolved.dataset.outputs,
        config.epochs,
        config.batch_size,
        float(config.learning_rate),
        max(cell.resolved.config.mc_samples for cell in cells),
        _cpus(),
    )
    alone: list[Taken] = []
    found: list[dict[str, Any]] = []

    def ablate(name: str) -> Row:
        before = training_programs(cache)
        taken = _ablate(folder / name, environment)
        note = f"{training_programs(cache) - before} programs for training compiled"
        return Row(f"ablate, {name} compilation cache", taken, note)

    rows = {"cold": ablate("empty")}
    with peer(given.torch_python or sys.executable, work) as loop:
        for cell in sample:
            _single(cell, folder, environment, "--epochs=1")  # compiles
            alone.append(_single(cell, folder, environment))
            if loop is not None:
                found.append(loop.run(_peer_cell(cell)))
    rows["warm"] = ablate("filled")
    note = range_note(alone, len(cells))
    rows["processes"] = Row("a process a cell", extrapolated(alone, len(cells)), note)
    if loop is not None:
        own = [Taken(one["seconds"], one["cpu"]) for one in found]
        note = f"{range_note(own, len(cells))}; start {loop.start.seconds:.1f} s"
        rows["torch"] = Row(loop.name, extrapolated(own, len(cells), loop.start), note)
    return rows, _accuracies(sample, folder / "filled", found)


def main(argv: list[str]) -> None:
    """Measures and prints."""
    given = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    jax.config.update("jax_platforms", "cpu")
    fixed = _FIXED | {"epochs": given.epochs}
    grid = Grid(EXPERIMENT, SCHEMES, {"rate": RATES}, tuple(range(given.seeds)), fixed)
    cells = plan_cells(grid, Reader(EXPERIMENT, lambda line: None))
    config = cells[0].resolved.config
    print(
        f"{len(cells)} cells of {config.model} on {config.dataset}, {config.epochs} epochs\n"
        f"{_machine()}\nload before: {_load()}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        rows, accuracies = _measure(cells, Path(name))
    print(f"load after: {_load()}\n\n{table(rows)}\n{accuracies}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
