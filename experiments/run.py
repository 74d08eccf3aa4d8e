"""One run: trains, evaluates, and leaves a folder from which it can be repeated bit for bit."""

import os
import shlex
import signal
import time
from collections.abc import Collection
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, logging
from absl import flags as absl_flags

import experiments
from dropjax.disk import write_whole
from dropjax.runs import files
from dropjax.train import Chunk, State, chunks
from dropjax.train.checkpoint import CheckpointError, restore, save
from dropjax.train.log import NOTHING, JsonLines, LogError
from dropjax.train.stopping import Best, step_of, weights_of
from dropjax.train.stopping import stopped as stopped_early
from experiments import arguments, flags, folder, program, report, results, resume
from experiments.console import Console, say
from experiments.experiment import Experiment
from experiments.flags import Config, Flags
from experiments.setup import LaunchError, Setup, read_once, set_up, use_compilation_cache

absl_flags.disclaim_key_flags()  # --help lists them as those of the module that is run

DIVERGED = 3
"""Exit status of a run whose loss or predictions became infinite or NaN."""


def define_flags(
    experiment: Experiment, values: absl_flags.FlagValues = absl_flags.FLAGS
) -> absl_flags.FlagValues:
    """Defines the flags of an experiment's command: those of training, and of the run's folder.

    Args:
      experiment: which.
      values: where they are defined.
    """
    flags.define(experiment, values)
    absl_flags.DEFINE_string(
        "workdir",
        None,
        "The run's folder. Default: runs/ and the experiment's name and the time.",
        values,
    )
    absl_flags.DEFINE_bool(
        "resume",
        False,
        "Continue the run in --workdir, with the flags that it was begun with. A larger --epochs "
        "makes it longer, also if it is complete.",
        values,
    )
    absl_flags.DEFINE_bool("overwrite", False, "Replace the run in --workdir.", values)
    return values


def main(experiment: Experiment, values: absl_flags.FlagValues = absl_flags.FLAGS) -> NoReturn:
    """Runs an experiment with the flags of the command line, and exits."""
    define_flags(experiment, values)

    @program.guarded(experiment.name)
    def start(argv: list[str]) -> int:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        given = Flags(**flags.given(values))
        if text := arguments.help_on(given.dropout, given.model):
            return program.deliver(experiment.name, text)
        if not absl_flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # or every library's notes stand among ours
        use_compilation_cache()
        try:
            return run(
                experiment,
                given,
                None if values.workdir is None else Path(os.path.expanduser(values.workdir)),
                resume=values.resume,
                overwrite=values.overwrite,
                typed=flags.typed(values),
                began=experiments.STARTED,
            )
        except CheckpointError as error:
            program.complain(
                f"{experiment.name}: {error}; put back a copy of one, or begin the run anew "
                "(--overwrite, without --resume)"
            )
            return 2
        except (LaunchError, LogError) as error:
            program.complain(f"{experiment.name}: {error}")
            return 2

    program.launch(experiment.name, start)


def run(
    experiment: Experiment,
    flags: Flags,
    workdir: Path | None,
    *,
    resume: bool,
    overwrite: bool,
    typed: Collection[str] | None = None,
    began: float | None = None,
) -> int:
    """Runs an experiment.

    Args:
      experiment: which.
      flags: what to compute.
      workdir: the run's folder; None for a new one below runs/.
      resume: continue the run in `workdir`, to more epochs if `flags` has more.
      overwrite: replace the run in `workdir`.
      typed: with `resume` the names of the flags that somebody gave, which must agree with the
        run's record; it says the others. None for all that are not None.
      began: when the program was started, by `time.perf_counter`; None for now.

    Returns:
      The exit status: 0, `DIVERGED`, or 128 and the number of the signal that stopped it.

    Raises:
      LaunchError: it cannot start.
      OSError: a file cannot be read or written; it is named. What was written before is intact.
    """
    began = time.perf_counter() if began is None else began
    if resume and overwrite:
        raise LaunchError("--resume and --overwrite contradict each other")
    if workdir is not None and not workdir.name:
        raise LaunchError(f"--workdir must name a folder for this run alone, got {workdir}")
    if workdir is None and (resume or overwrite):
        flag = "resume" if resume else "overwrite"
        raise LaunchError(f"--{flag} needs --workdir: which run?")
    path = workdir or folder.default_folder(experiment.name)
    if resume:
        return _continue(experiment, flags, typed, path, began)
    setup = set_up(experiment, flags, say)
    config = folder.describe(setup)
    with folder.locked(path):
        program.say_if_stopped(lambda: _what_continues(experiment, path))
        folder.claim(path, config, resume=False, overwrite=overwrite)
        return _Run(setup, path, config, began).go(resume=False)


def _continue(
    experiment: Experiment, flags: Flags, typed: Collection[str] | None, path: Path, began: float
) -> int:
    """As `run`, of a run that is there."""
    record = folder.recorded(path)
    program.say_if_stopped(lambda: _what_continues(experiment, path))
    resume.check_experiment(experiment, record)
    flags = resume.flags_of(flags, typed, record)
    resume.check_file(flags)
    load = read_once(experiment, say)
    resume.check_agreement(experiment, flags, record, load)
    setup = set_up(experiment, flags, say, load)
    more = setup.config.epochs > record["flags"]["epochs"]
    # The texts of the record, which mean the same, though a later version may write them otherwise.
    config = folder.describe(setup, record["flags"] | resume.changed(setup.config))
    notes = resume.check_sources(record, config["sources"])
    if note := folder.note_of_seal(path):
        notes.append(note)
    with folder.locked(path):
        if folder.recorded(path) != record:
            raise LaunchError(f"the run in {path} was changed by another process; try again")
        changes = folder.claim(path, config, resume=True, overwrite=False)
        result, damage = folder.completed(path)
        if result and not more:
            program.say_if_stopped("the run is complete")
            folder.drop_old_results(path)
            for line in (*notes, "the run is complete; nothing is left to do"):
                say(line)
            say(f"\n{report.table(result)}")
            if not (path / "curves.png").exists():
                _draw(setup.config, path)
            return 0
        if result and result.get("stopped_at") is not None:
            raise LaunchError(
                f"--epochs: the run in {path} stopped early, at step {result['stopped_at']}: more "
                "epochs would change nothing"
            )
        if more and folder.completed(path, "diverged")[0]:
            raise LaunchError(
                f"--epochs: the run in {path} diverged, and would not be another one with more"
            )
        if damage:
            notes.append(damage)
        resume.check_numbers(path, record, setup)
        if changes:
            notes += ["ENVIRONMENT CHANGED, results may differ in rounding:", *changes]
        if notes:
            say("\n".join(notes))
        return _Run(setup, path, config, began).go(resume=True)


def _what_continues(experiment: Experiment, path: Path) -> str:
    """What is said of a run that has begun and not ended."""
    if not (path / "config.json").exists():
        return f"there is no run in {path}"
    workdir = shlex.quote(str(path))
    return f"{experiment.command} --resume --workdir={workdir} continues it"


class _Run:
    def __init__(self, setup: Setup, path: Path, config: dict[str, Any], began: float) -> None:
        self.setup, self.path, self.config, self.began = setup, path, config, began
        self.metrics = JsonLines(path / "metrics.jsonl", _warn)
        self.timing = JsonLines(path / "timing.jsonl", _warn)
        self.files: dict[Path, bytes] = {}
        self.checkpoints = path / "checkpoints"
        self.saved_at, self.save_seconds = time.perf_counter(), 0.0
        self.warm_steps, self.warm_seconds = 0, 0.0
        self.resumed_from: int | None = None
        self.stopping = setup.stopping
        self.best: Best | None = None

    def go(self, *, resume: bool) -> int:
        table = self.setup.site_table
        write_whole(self.path / "sites.txt", table.encode("utf-8", "backslashreplace"))
        say(f"run folder: {self.path}\n\n{table}")
        epochs = self.setup.config.epochs
        state, total = self._start(resume), epochs * self.setup.program.steps_per_epoch
        stopped = step = 0
        with ExitStack() as stack:
            console = stack.enter_context(closing(Console(total, int(state.step))))
            signalled = lambda: 0  # noqa: E731
            # A run that was killed after its last save may have stopped early already.
            rest = () if self._is_over() else chunks(self.setup.program, state, epochs=epochs)
            for number, chunk in enumerate(rest):
                if number == 0:
                    # Before, a checkpoint has all, and a signal need not wait for the compiler.
                    signalled = stack.enter_context(program.held())
                state, step = chunk.state, chunk.step
                self._note_time(chunk, first=number == 0)
                console.advance(chunk.steps, state.means())
                if results.diverged(state):
                    return self._finish(state, {}, broken=True)
                if chunk.ends_epoch:
                    record = self._epoch_record(state, step, chunk.epoch + 1)
                    self.metrics.append(results.finite(record))
                    console.epoch(record, epochs)
                    if self.best is not None and self.stopping is not None:
                        value = record[f"validation_{self.setup.config.monitor}"]
                        self.best = self.stopping.look(self.best, state, value)
                stopped = signalled()
                over = step == total or self._is_over()
                if stopped or over or self._saving_is_due():
                    self._save(state, step)
                if stopped or over:
                    break
            stopped = stopped or signalled()  # also one that came while the last state was saved
        if stopped:
            name = signal.Signals(stopped).name
            say(f"{name}: stopped at step {step} of {total}; {program.message_if_stopped()}")
            return 128 + stopped
        best = self._best(state)
        return self._finish(state, self._all_predictions(best), broken=False)

    def _is_over(self) -> bool:
        """Whether training has stopped early."""
        return self.best is not None and bool(stopped_early(self.best))

    def _best(self, state: State) -> State:
        """The last state with the weights that are evaluated."""
        return state.with_weights(weights_of(self.best, state))

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
        self.best = self.stopping and self.stopping.begin(state)
        found = restore(self.checkpoints, self._kept(state), warn=_warn) if resume else None
        if found is None:
            self.metrics.rewind(NOTHING)
            if resume:
                self._begin_session(0)
                say("there is no checkpoint: starting anew")
            self._keep_files()
            self._save(state, 0)
            return state
        kept, extra = found
        self.metrics.rewind(extra["metrics"])
        if self.best is not None:
            self.best = jax.tree.map(jnp.asarray, kept.pop("best"))
        state = self.setup.program.place(State(**kept))
        self._begin_session(int(state.step))
        self._keep_files()
        say(f"resuming from step {self.resumed_from}")
        return state

    def _begin_session(self, step: int) -> None:
        folder.begin_session(self.path, self.config, step)
        self.resumed_from = step

    def _keep_files(self) -> None:
        """Remembers what is written once, for `_put_back_files`."""
        files = [self.path / name for name in ("config.json", "sites.txt")]
        self.files = {file: file.read_bytes() for file in files}

    def _put_back_files(self) -> None:
        """Writes again what of the run was removed or changed while it went on."""
        for file, data in self.files.items():
            if not file.exists() or file.read_bytes() != data:
                _warn(f"{file} was changed or removed; it is written again as it was")
                write_whole(file, data)
        self.metrics.mark()

    def _saving_is_due(self) -> bool:
        """After every chunk, unless saving would take over a twentieth of the time."""
        return time.perf_counter() - self.saved_at > 20 * self.save_seconds

    def _save(self, state: State, step: int) -> None:
        began = time.perf_counter()
        save(self.checkpoints, self._kept(state), step, metrics=self.metrics.mark())
        self.saved_at = time.perf_counter()
        self.save_seconds = self.saved_at - began

    def _kept(self, state: State) -> dict[str, Any]:
        """What a checkpoint has: the state and, with early stopping, the best epoch so far."""
        return vars(state) | ({} if self.best is None else {"best": self.best})

    def _epoch_record(self, state: State, step: int, epoch: int) -> dict[str, Any]:
        dataset, validation = self.setup.dataset, None
        if len(dataset.y_validation):
            validation = self._predictions(state, step, dataset.x_validation)
        return results.epoch_record(dataset, step, epoch, state.means(), validation)

    def _predictions(self, state: State, step: int, x: np.ndarray) -> jax.Array:
        return self.setup.network.predictions(self.setup.values(state, step), x)

    def _all_predictions(self, state: State) -> dict[str, Any]:
        setup, predictions = self.setup, {}
        step = int(step_of(self.best, state))
        for part in results.PARTS:
            if len(x := getattr(setup.dataset, f"x_{part}")):
                predictions[part] = self._predictions(state, step, x)
        if setup.config.mc_samples:
            predictions["mc_test"] = setup.network.monte_carlo(
                setup.values(state, step),
                setup.dataset.x_test,
                setup.eval_key,
                samples=setup.config.mc_samples,
                # What fits in training fits here, however large the noise of an example is.
                batch_size=setup.config.batch_size,
            )
        return predictions

    def _finish(self, state: State, predictions: dict[str, Any], *, broken: bool) -> int:
        """Writes the result.

        Args:
          state: the last one.
          predictions: by part of the data; none of a run that is broken.
          broken: whether its loss or its parameters are not finite.
        """
        setup, step, last = self.setup, int(state.step), state
        state = last if broken else self._best(last)
        status = results.status(setup, state, predictions, broken=broken)
        completed = status["status"] == "completed"
        names = ("dataset", "model", "dropout", "strength", "penalty", "seed", "mc_samples")
        result = results.finite(
            status
            | {name: getattr(setup.config, name) for name in names}
            | results.trained(setup, state, setup.program.report(state))
            | {"resumed_from_step": self.resumed_from}
            | results.stopped(self.best)
            | results.measures(setup, predictions if completed else {})
            | self._cost()
        )
        self._put_back_files()
        if completed and not (self.checkpoints / f"{step:010d}").is_dir():
            self._save(last, step)
        files.write_result(self.path, result)
        if not completed:
            program.say_if_stopped("the run has ended")
            say(f"DIVERGED: {status['error']}; the newest checkpoint is kept")
            return DIVERGED
        program.say_if_stopped("the run is complete")
        _draw(setup.config, self.path)
        say(f"\n{report.table(result)}\n\nin {result['seconds']:.1f} s; folder {self.path}")
        folder.drop_old_results(self.path)
        return 0

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


def _warn(message: str) -> None:
    say(f"WARNING: {message}")
