"""One run: trains, evaluates, and leaves a folder from which it can be repeated bit for bit."""

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.runs import files
from dropjax.train import Chunk, State, chunks
from dropjax.train.checkpoint import restore, save, tree_hash
from dropjax.train.log import NOTHING, JsonLines
from experiments import folder, report
from experiments.console import Console, say
from experiments.measure import finite, losses, measures, undefined, why_diverged
from experiments.setup import Config, Flags, Setup, set_up

DIVERGED = 3
"""Exit status of a run whose loss or predictions became infinite or NaN."""


def run(
    experiment: str,
    flags: Flags,
    workdir: Path | None,
    *,
    resume: bool,
    overwrite: bool,
    began: float | None = None,
) -> int:
    """Runs an experiment.

    Args:
      experiment: its name.
      flags: what to compute.
      workdir: the run's folder; None for a new one below runs/.
      resume: continue the run in `workdir`.
      overwrite: replace the run in `workdir`.
      began: when the program was started, by `time.perf_counter`; None for now.

    Returns:
      The exit status: 0, `DIVERGED`, or 128 and the number of the signal that stopped it.

    Raises:
      LaunchError: it cannot start.
    """
    began = time.perf_counter() if began is None else began
    if resume and overwrite:
        raise folder.LaunchError("--resume and --overwrite contradict each other")
    if workdir is not None and not workdir.name:
        raise folder.LaunchError(f"--workdir must name a folder for this run alone, got {workdir}")
    if workdir is None and (resume or overwrite):
        flag = "resume" if resume else "overwrite"
        raise folder.LaunchError(f"--{flag} needs --workdir: which run?")
    path = workdir or folder.default_folder(experiment)
    setup = set_up(flags, say)
    config = folder.describe(
        dataclasses.asdict(setup.config),
        setup.dataset.sha256(),
        experiment,
        setup.network.describe(setup.dataset.x_train[0]),
        len(setup.dataset.x_train),
    )
    with folder.locked(path):
        changes = folder.claim(path, config, resume=resume, overwrite=overwrite)
        if changes:
            say("\n".join(["ENVIRONMENT CHANGED, results may differ in rounding:", *changes]))
        result, damage = folder.completed(path) if resume else (None, "")
        if damage:
            say(f"{damage}. The run goes on from its newest checkpoint")
        if result:
            say(f"the run is complete; nothing is left to do\n\n{report.table(result)}")
            if not (path / "curves.png").exists():
                _draw(setup.config, path)
            return 0
        (path / "sites.txt").write_text(setup.site_table)
        say(f"run folder: {path}\n\n{setup.site_table}")
        return _Run(setup, path, began).go(resume)


class _Run:
    def __init__(self, setup: Setup, path: Path, began: float) -> None:
        self.setup, self.path, self.began = setup, path, began
        self.metrics = JsonLines(path / "metrics.jsonl")
        self.timing = JsonLines(path / "timing.jsonl")
        self.checkpoints = path / "checkpoints"
        self.saved_at, self.save_seconds = time.perf_counter(), 0.0
        self.warm_steps, self.warm_seconds = 0, 0.0
        self.resumed_from: int | None = None

    def go(self, resume: bool) -> int:
        program, epochs = self.setup.program, self.setup.config.epochs
        state, total = self._start(resume), epochs * program.steps_per_epoch
        with closing(Console(total, int(state.step))) as console, _stop_signals() as stop:
            for number, chunk in enumerate(chunks(program, state, epochs=epochs)):
                state = chunk.state
                self._note_time(chunk, first=number == 0)
                console.advance(chunk.steps, state.means())
                if _diverged(state):
                    return self._end_diverged(state, [])
                if chunk.ends_epoch:
                    record = self._epoch_record(state, chunk.step, chunk.epoch + 1)
                    self.metrics.append(finite(record))
                    console.epoch(record, epochs)
                last = chunk.step == total
                if stop or last or self._saving_is_due():
                    self._save(state, chunk.step)
                if stop:
                    name = signal.Signals(stop[0]).name
                    say(f"{name}: stopped at step {chunk.step} of {total}; --resume continues")
                    return 128 + stop[0]
        return self._finish(state, total)

    def _note_time(self, chunk: Chunk, *, first: bool) -> None:
        self.timing.append({"step": chunk.step, "steps": chunk.steps, "seconds": chunk.seconds})
        if first:
            # Compilation is in it.
            self.timing.append({"first_step_after_seconds": time.perf_counter() - self.began})
        else:
            self.warm_steps += chunk.steps
            self.warm_seconds += chunk.seconds

    def _start(self, resume: bool) -> State:
        state = self.setup.program.init(self.setup.params, self.setup.mutable)
        found = (
            restore(self.checkpoints, state, warn=lambda m: say(f"WARNING: {m}"))
            if resume
            else None
        )
        if found is None:
            self.metrics.rewind(NOTHING)
            self._save(state, 0)
            if resume:
                self.resumed_from = 0
                say("no checkpoint was written before the run stopped: starting anew")
            return state
        restored, extra = found
        self.metrics.rewind(extra["metrics"])
        state = self.setup.program.place(restored)
        self.resumed_from = int(state.step)
        say(f"resuming from step {self.resumed_from}")
        return state

    def _saving_is_due(self) -> bool:
        """After every chunk, unless saving would take over a twentieth of the time."""
        return time.perf_counter() - self.saved_at > 20 * self.save_seconds

    def _save(self, state: State, step: int) -> None:
        began = time.perf_counter()
        save(self.checkpoints, state, step, metrics=self.metrics.mark())
        self.saved_at = time.perf_counter()
        self.save_seconds = self.saved_at - began

    def _epoch_record(self, state: State, step: int, epoch: int) -> dict[str, Any]:
        record: dict[str, Any] = {"step": step, "epoch": epoch}
        record |= {f"train_{name}": value for name, value in state.means().items()}
        dataset = self.setup.dataset
        if len(dataset.y_validation):
            predictions = self._predictions(state, step, dataset.x_validation)
            record |= losses(dataset, predictions)
        return record

    def _predictions(self, state: State, step: int, x: np.ndarray) -> jax.Array:
        return self.setup.network.predictions(self.setup.values(state, step), x)

    def _finish(self, state: State, step: int) -> int:
        setup, dataset = self.setup, self.setup.dataset
        predictions: dict[str, Any] = {}
        for part in ("train", "validation", "test"):
            if len(x := getattr(dataset, f"x_{part}")):
                predictions[part] = self._predictions(state, step, x)
        if setup.config.mc_samples:
            predictions["mc_test"] = setup.network.monte_carlo(
                setup.values(state, step),
                dataset.x_test,
                setup.eval_key,
                samples=setup.config.mc_samples,
                # What fits in training fits here, however large the noise of an example is.
                batch_size=setup.config.batch_size,
            )
        targets, task = self._targets(), dataset.task
        broken = [part for part, of in predictions.items() if undefined(task, of, targets[part])]
        if broken:
            return self._end_diverged(state, broken)
        result: dict[str, Any] = {"status": "completed", **self._common(state)}
        for part, y in targets.items():
            result |= measures(task, f"{part}_", predictions.get(part), y)
        result = finite(result | self._cost())
        files.write_result(self.path, result)
        _draw(setup.config, self.path)
        say(f"\n{report.table(result)}\n\nin {result['seconds']:.1f} s; folder {self.path}")
        return 0

    def _targets(self) -> dict[str, Any]:
        """What is right, by the parts of the data that are measured."""
        dataset = self.setup.dataset
        parts = {part: getattr(dataset, f"y_{part}") for part in ("train", "validation", "test")}
        return parts | {"mc_test": dataset.y_test}

    def _end_diverged(self, state: State, broken: list[str]) -> int:
        """Ends a run whose loss, parameters or predictions for some parts are not finite."""
        step = int(state.diverged_at)
        why = why_diverged(step, int(state.step) - 1, broken)
        nothing: dict[str, Any] = {}
        for part, y in self._targets().items():
            nothing |= measures(self.setup.dataset.task, f"{part}_", None, y)
        result = {"status": "diverged", "diverged_at": step, "error": why}
        result |= self._common(state) | nothing | self._cost()
        files.write_result(self.path, finite(result))
        say(f"DIVERGED: {why}; the newest checkpoint is kept")
        return DIVERGED

    def _common(self, state: State) -> dict[str, Any]:
        config = self.setup.config
        names = ("dataset", "model", "dropout", "strength", "penalty", "seed", "mc_samples")
        return {name: getattr(config, name) for name in names} | {
            "task": self.setup.dataset.task,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params["params"])),
            "param_hash": tree_hash(state.params),
            "learned": self.setup.program.report(state),
            "resumed_from_step": self.resumed_from,
        }

    def _cost(self) -> dict[str, Any]:
        program = self.setup.program
        examples = self.warm_steps * program.examples / program.steps_per_epoch
        return {
            "seconds": time.perf_counter() - self.began,
            "examples_per_second": examples / self.warm_seconds if self.warm_steps else None,
        }


def _draw(config: Config, path: Path) -> None:
    """Draws a finished run's curves. Whatever goes wrong with that, the run has its result."""
    strength = "" if config.strength == "1" else f" times {config.strength}"
    title = f"{config.dataset}, {config.model}, {config.dropout}{strength}, seed {config.seed}"
    target = path / "curves.png"
    try:
        report.draw_curves(JsonLines(path / "metrics.jsonl").read(), title, target)
    except Exception as error:  # of Matplotlib, of a font, of the disk
        say(f"WARNING: {target} was not drawn: {type(error).__name__}: {error}")


def _diverged(state: State) -> bool:
    """Whether a loss was not finite, or the last update left parameters that are not."""
    finite = jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), state.params)
    return int(state.diverged_at) >= 0 or not all(map(bool, jax.tree.leaves(finite)))


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT, to be acted on between chunks; a second one acts at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        for caught, handler in before.items():
            signal.signal(caught, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
