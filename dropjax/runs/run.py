"""The folder of a run as a value: its parameters, history, results and predictions."""

import contextlib
import dataclasses
import functools
import glob
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from numpy.typing import ArrayLike

from dropjax.core.draw import Draw, sampled
from dropjax.core.keys import Keys
from dropjax.core.noise import Arrays, arrays, select
from dropjax.core.plan import no_weights, record
from dropjax.core.scheme import Sites
from dropjax.core.strength import strength_at
from dropjax.disk import write_whole
from dropjax.evaluate.predict import sample_key_of
from dropjax.models.network import Network
from dropjax.ops.bernoulli import STREAM
from dropjax.runs import files
from dropjax.runs.sources import edited, sources
from dropjax.train import Best
from dropjax.train.checkpoint import CheckpointError, restore
from dropjax.train.keys import eval_key_of, steps_per_epoch
from dropjax.train.log import NOTHING
from dropjax.train.optax_spec import parse_strength
from dropjax.train.replay import Replay

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Where an exported model runs."""


class RunError(Exception):
    """A folder that holds no run, a damaged one, or one that this version cannot read."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run that an experiment has written. Made by `load`.

    Args:
      folder: where it is.
      config: config.json: the flags, the network, the environment.
      history: a dictionary an epoch, as in metrics.jsonl; of an unfinished run up to `step`.
      result: result.json; None while the run is not finished.
      values: what predictions depend on: "params", "mutable", "learned", "strength".
      step: the training steps behind them.
      network: the model with its scheme.
    """

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]
    result: dict[str, Any] | None
    values: dict[str, Any]
    step: int
    network: Network

    @property
    def params(self) -> Any:
        """The model's parameters, a tree of arrays."""
        return self.values["params"]

    def predict(
        self,
        xs: ArrayLike,
        *,
        samples: int | None = None,
        average: bool = True,
        batch_size: int = 1000,
    ) -> np.ndarray:
        """Predictions for examples like the run's own data, in the same units.

        Args:
          xs: (examples, ...), of the shape and dtype kind of the training data: pixels as they
            are in the file, say, not divided by 255; tokens as integers.
          samples: draws of the noise that are averaged; None for one pass without noise.
          average: False for the predictions of each draw, with a leading axis of samples.
          batch_size: examples computed at a time; bounds the memory.

        Returns:
          For classification probabilities (examples, classes), for a binary task those of label 1
          (examples,), for regression numbers (examples, targets), all float32; numbers float64
          where float32 would cut the training targets.

        Raises:
          ValueError: xs are not such examples, samples is less than 1, or the scheme has no noise;
            average=False without samples.
        """
        xs = self._checked(xs)
        if samples is None and not average:
            raise ValueError("average=False needs draws of the noise: give samples=50, say")
        if samples is None:
            predictions = self.network.predictions(self.values, xs, batch_size=batch_size)
        elif not average:
            self._check_random(samples)
            each = self.network.samples(
                self.values, xs, self._key, samples=samples, batch_size=batch_size
            )
            return self._from_origin(self._public(np.asarray(each), lambda p: p))
        else:
            self._check_random(samples)
            predictions = self.network.monte_carlo(
                self.values, xs, self._key, samples=samples, batch_size=batch_size
            )
        return self._from_origin(self._public(np.asarray(predictions), np.exp))

    def predict_with_spread(
        self, xs: ArrayLike, *, samples: int = 20, batch_size: int = 1000
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions as `predict` returns them, and their standard deviations over draws.

        Raises:
          ValueError: as `predict`; samples is less than 2.
        """
        xs = self._checked(xs)
        self._check_random(samples)
        moments = self.network.moments(
            self.values, xs, self._key, samples=samples, batch_size=batch_size
        )
        mean, spread = (self._public(np.asarray(part), lambda p: p) for part in moments)
        return self._from_origin(mean), spread

    def export(self, path: str | Path) -> None:
        """Writes `predict` without noise as StableHLO, weights and all, for use without dropjax.

            f = jax.export.deserialize(bytearray(open(path, "rb").read()))
            f.call(xs)

        needs jax alone, takes any number of examples, and runs on `PLATFORMS`. It takes float64
        where float32 would cut the training data (config.json's network then has an "origin"), and
        returns float64 where it would cut the targets ("target_origin"): JAX needs
        `jax.config.update("jax_enable_x64", True)` for either.

        Args:
          path: a new file.

        Raises:
          FileExistsError: there is one already.
        """
        path = Path(path)
        if path.exists():
            raise FileExistsError(f"{path} exists; it is not overwritten")
        shape, dtype = self._example
        origin = np.asarray(self.network.origin)
        target_origin = np.asarray(self.network.target_origin)

        def predict_one(x: jax.Array) -> jax.Array:
            if origin.any():
                x = (x - origin).astype(dtype)
            prediction = self.network.prediction(self.values, x)
            if target_origin.any():
                return prediction.astype(jnp.float64) + target_origin
            return prediction

        def predict(xs: jax.Array) -> jax.Array:
            return self._public(jax.vmap(predict_one)(xs), jnp.exp)

        wide = bool(origin.any() or target_origin.any())
        with jax.enable_x64(wide or bool(jax.config.jax_enable_x64)):  # type: ignore[attr-defined]
            input_dtype = np.dtype(np.float64) if origin.any() else dtype
            input_shape = (*export.symbolic_shape("examples"), *shape)
            examples = jax.ShapeDtypeStruct(input_shape, input_dtype)
            exported = export.export(jax.jit(predict), platforms=PLATFORMS)(examples)
        write_whole(path, bytes(exported.serialize()))

    def replay(self, *, learned: Any = None, examples: int | None = None) -> Replay:
        """The batches and the noise of training, drawn again; see `train.Replay`. No data is read.

        A run that was stopped has later steps too, as they would have been.

        Args:
          learned: what a scheme that learns had learned before the step that is asked for. A run
            keeps only what was learned in the end: `run.values["learned"]`.
          examples: how many training examples there were, without those of validation; for runs
            whose config.json does not say it.

        Raises:
          RunError: the configuration does not say how many examples there were, nor is it given;
            or JAX would order them otherwise here.
        """
        flags = self.config["flags"]
        counted = self.config.get("train_examples")
        count = examples if counted is None else counted
        if count is None:
            raise RunError(
                f"{self.folder / 'config.json'} is of a version that did not write how many "
                "training examples there were: give replay(examples=...), without those of "
                "validation"
            )
        if None not in (examples, counted) and examples != counted:
            raise RunError(f"examples={examples}, but the run had {counted}")
        if not jax.config.jax_threefry_partitionable:  # type: ignore[attr-defined]
            raise RunError(
                "jax_threefry_partitionable=False orders examples as no run has them; unset it"
            )
        batch_size = flags["batch_size"]
        return Replay(
            self._run_key,
            count,
            batch_size,
            self.network.scheme,
            self.sites,
            parse_strength(flags["strength"]),
            learned,
            steps=flags["epochs"] * steps_per_epoch(count, batch_size),
        )

    def batch(self, step: int) -> np.ndarray:
        """The rows of the training data in the batch of a step; see `train.Replay.batch`."""
        return self._replay.batch(step)

    def draw(self, step: int, row: int) -> Draw:
        """The draw under which training saw a row in a step; see `train.Replay.draw`."""
        return self._replay.draw(step, row)

    def noise(self, step: int, rows: ArrayLike, *, at: str = "") -> Arrays:
        """The noise under which training saw rows in a step; see `train.Replay.noise`."""
        return self._replay.noise(step, rows, at=at)

    def draw_in_evaluation(self, sample: int, row: int) -> Draw:
        """The draw for `xs[row]` in `predict(xs, samples=...)` and in the run's own evaluation.

        Args:
          sample: the number of the Monte-Carlo sample, from 0.
          row: of the examples that are predicted.
        """
        keys = Keys.of(sample_key_of(self._key, sample), row, sample + 1)
        return sampled(self.network.scheme_in_evaluation(self.values), keys)

    def noise_in_evaluation(self, sample: int, rows: ArrayLike, *, at: str = "") -> Arrays:
        """The noise of `draw_in_evaluation`, in the form of `noise`."""
        scheme = self.network.scheme_in_evaluation(self.values)
        sites = select(scheme, self.sites, at)
        return arrays(scheme, sample_key_of(self._key, sample), rows, sites, sample + 1)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label; () if the run's data have none."""
        return self.network.classes

    @functools.cached_property
    def sites(self) -> Sites:
        """The sites of the run's network by name, each with the shape of its value."""
        shape, dtype = self._example
        params, mutable = self.params, self.values["mutable"]
        x = jnp.zeros(shape, dtype)
        return record(lambda draw: self.network.outputs(params, x, draw, mutable))

    @functools.cached_property
    def _replay(self) -> Replay:
        return self.replay()

    @property
    def _example(self) -> tuple[tuple[int, ...], np.dtype]:
        described = self.config["network"]
        return tuple(described["example_shape"]), np.dtype(described["example_dtype"])

    @property
    def _run_key(self) -> jax.Array:
        implementation = self.config.get("prng", {}).get("implementation")
        return jax.random.key(self.config["flags"]["seed"], impl=implementation)

    @property
    def _key(self) -> jax.Array:
        """The run's own key of Monte-Carlo evaluation."""
        return eval_key_of(self._run_key)

    def _public(self, predictions: Any, exp: Callable[[Any], Any]) -> Any:
        """What `predict` returns for a network's predictions."""
        if self.network.task == "regression":
            return predictions
        probabilities = exp(predictions)
        return probabilities[..., 1] if self.network.task == "binary" else probabilities

    def _from_origin(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions in the units of the data."""
        origin = np.asarray(self.network.target_origin)
        return predictions + origin if origin.any() else predictions

    def _checked(self, xs: ArrayLike) -> np.ndarray:
        xs, (shape, dtype) = np.asarray(xs), self._example
        if xs.shape[1:] != shape or not len(xs):
            raise ValueError(
                f"xs must be examples of shape {shape}, so of shape (examples, "
                f"{', '.join(map(str, shape))}); got {xs.shape}"
            )
        if xs.dtype.kind not in "uif":
            raise ValueError(f"xs must be numbers, got {xs.dtype}")
        if self.network.vocabulary:
            last = self.network.vocabulary - 1
            if not (xs.min() >= 0 and xs.max() <= last and (xs == np.round(xs)).all()):
                raise ValueError(
                    f"xs must be tokens, integers from 0 to {last}, got values in [{xs.min():g}, "
                    f"{xs.max():g}]"
                )
            return xs.astype(dtype)
        if dtype == np.uint8:
            # Written so that NaN, which compares with nothing, is out of range.
            top = float(self.network.scale)  # type: ignore[arg-type]
            if not (xs.min() >= 0 and xs.max() <= top):
                raise ValueError(
                    f"xs must be pixels in [0, {top:g}], got values in [{xs.min():g}, {xs.max():g}]"
                )
            if not (xs == np.round(xs)).all():
                raise ValueError(
                    "xs must be pixels, whole numbers, as they are in the data's files"
                )
            return xs.astype(np.uint8)
        with np.errstate(over="ignore"):
            origin = np.asarray(self.network.origin)
            xs = (xs - origin if origin.any() else xs).astype(np.float32)
        if not np.isfinite(xs).all():
            raise ValueError("xs holds NaN or infinite values (as float32)")
        return xs

    def _check_random(self, samples: int) -> None:
        if not self.network.scheme.is_random_in_evaluation():
            raise ValueError(
                f"samples={samples} would do nothing: {self.network.scheme} has no noise in "
                "evaluation"
            )


def load(folder: str | Path) -> Run:
    """Reads a run, with the parameters of its newest good checkpoint. Nothing is written.

    A scheme or model of your own is imported under the name that config.json has for it. Its file
    must be as it was when the run was begun; versions before 0.6 did not record that. All that is
    read is checked by the hashes that the run wrote; versions before 0.6 wrote none, and a warning
    says so. If the newest checkpoint is damaged, the one before it is taken, with a warning. `step`
    says which one was taken.

    Args:
      folder: the run's folder.

    Raises:
      RunError: there is no run; a file of it is damaged, which the message names; no checkpoint is
        good; the file of its own scheme or model was edited; or it was made under another mask
        stream, or by a version whose folders have another form.
    """
    folder = Path(folder)
    with _reading():
        config, sealed = files.read_config(folder)
        result = files.read_result(folder, config)
    if not sealed:
        warnings.warn(f"{folder}: {_unsealed(config)}", stacklevel=2)
    if config["mask_stream"] != STREAM:
        raise RunError(
            f"{folder} was made under mask stream {config['mask_stream']}, this version has "
            f"{STREAM}: its noise could not be drawn again. Install the version that it names: "
            f"dropjax {config.get('environment', {}).get('dropjax')}"
        )
    flags = config["flags"]
    try:
        network = Network.rebuild(flags["model"], flags["dropout"], config["network"])
        strength = parse_strength(flags["strength"])
        jax.random.key(flags["seed"])
        shape, dtype = config["network"]["example_shape"], config["network"]["example_dtype"]
        template = jax.eval_shape(
            lambda: _template(network, jnp.zeros(shape, dtype), flags)  # no weight is computed
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{folder / 'config.json'} does not describe a network: {error!r}"
        ) from error
    if why := edited(config.get("sources", {}), sources(network)):
        raise RunError(
            f"{folder}: {why}. Put it back as it was; else noise and predictions would not be the "
            "run's"
        )
    warnings_of_checkpoints: list[str] = []
    try:
        restored = restore(
            folder / "checkpoints",
            jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template),
            warn=warnings_of_checkpoints.append,
            whole=False,
        )
    except CheckpointError as error:
        why = "; ".join(warnings_of_checkpoints)
        raise RunError(f"{error}: {why}; put back a copy of one") from error
    for warning in warnings_of_checkpoints:
        warnings.warn(f"{folder}: {warning}; an older one is", stacklevel=2)
    if restored is None:
        raise RunError(f"{folder} has no checkpoint: {_why_none(folder, config, result)}")
    state, extra = restored
    with _reading():
        history = files.read_history(
            folder, extra.get("metrics", NOTHING), whole=result is not None
        )
    step = evaluated = int(state["step"])
    values = state.get("average") or state["params"] | {"mutable": state["mutable"]}
    if "best" in state and int(state["best"].step):
        values, evaluated = state["best"].weights, int(state["best"].step)
    values |= {"strength": strength_at(strength, jnp.int32(max(evaluated - 1, 0)))}
    return Run(folder, config, history, result, values, step, network)


def read(pattern: str | Path) -> list[dict[str, Any]]:
    """The flags and results of several runs, a row each, for `pandas.DataFrame(rows)`.

    Args:
      pattern: folders, with wildcards: "runs/*". Folders without a run are left out.

    Returns:
      A dictionary a run, in the order of the folders' names: "folder", "status" ("completed",
      "diverged", "unfinished" or "damaged"), "mask_stream", the flags, and the results if there are
      any. A damaged run has an "error" instead of them, a diverged one has it besides. Checkpoints
      are not read.

    Raises:
      RunError: none of the folders holds a run.
    """
    folders = [Path(name) for name in sorted(glob.glob(str(pattern)))]
    runs = [folder for folder in folders if (folder / "config.json").exists()]
    if not runs:
        raise RunError(f"no run in {pattern}: no folder there has a config.json")
    rows, unsealed = [], []
    for folder in runs:
        try:
            config, sealed = files.read_config(folder)
            result = files.read_result(folder, config) or {"status": "unfinished"}
        except files.RecordError as error:
            rows.append({"folder": str(folder), "status": "damaged", "error": str(error)})
            continue
        row = {"folder": str(folder), "status": result["status"]}
        rows.append(row | {"mask_stream": config["mask_stream"]} | config["flags"] | result)
        unsealed += [] if sealed else [f"{folder}: {_unsealed(config)}"]
    if unsealed:
        more = f"; {len(unsealed) - 1} more runs likewise" if len(unsealed) > 1 else ""
        warnings.warn(unsealed[0] + more, stacklevel=2)
    return rows


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except files.RecordError as error:
        raise RunError(str(error)) from error


def _why_none(folder: Path, config: dict[str, Any], result: dict[str, Any] | None) -> str:
    """Why a run has no checkpoint, and the command that makes one."""
    if result is None:
        return "the run was stopped before it wrote one"
    why = "what it had was removed"
    if (folder / "timing.json").exists():  # that of cells alone
        why = "a cell of an ablation that was trained in lanes keeps results, not parameters"
    return f"{why}. This makes the run with both: {config.get('command')}"


def _unsealed(config: dict[str, Any]) -> str:
    return (
        f"version {files.version_of(config)} wrote no hashes, so a change in its config.json and "
        "result.json would not be noticed"
    )


def _template(network: Network, x: Any, flags: dict[str, Any]) -> dict[str, Any]:
    """The part of what a checkpoint holds that predictions depend on."""
    params, mutable = network.init(jax.random.key(0), x)
    sites = record(lambda draw: network.outputs(params, x, draw, mutable))
    learned = network.scheme.init_learned(jax.random.key(0), sites, no_weights(sites))
    both = {"params": params, "learned": learned}
    step = jnp.zeros((), jnp.int32)
    template = {"params": both, "mutable": mutable, "step": step}
    weights = both | {"mutable": mutable}
    if flags.get("average", "none") != "none":
        template["average"] = weights
    if flags.get("patience") is not None:
        template["best"] = Best(weights, step.astype(jnp.float32), step, step, step)
    return template
