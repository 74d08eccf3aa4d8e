"""From flags to a run that is ready to begin. All that can be wrong at launch is found here."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropjax import data, models, schemes
from dropjax.core import plan
from dropjax.core.scheme import Scheme, Sites, rate_fields
from dropjax.core.spec import lacks_rate
from dropjax.core.strength import Strength, check_strength, strength_at
from dropjax.models.network import vocabulary_of
from dropjax.runs import Network
from dropjax.train import (
    Examples,
    MaxNorm,
    Problem,
    Program,
    State,
    Stopping,
    WeightPenalty,
    augment,
)
from dropjax.train.devices import check_batch_size
from dropjax.train.keys import eval_key_of, init_key_of, steps_per_epoch
from dropjax.train.optax_spec import (
    parse_average,
    parse_learning_rate,
    parse_optimizer,
    parse_strength,
)
from experiments.experiment import Experiment
from experiments.flags import Config, Flags

Array = jax.Array


class LaunchError(Exception):
    """A run that cannot start: a flag, the data or the folder is wrong."""


@contextlib.contextmanager
def launching() -> Iterator[None]:
    """Turns errors in flags or in the data into a `LaunchError`."""
    try:
        yield
    except (ValueError, TypeError, data.DataError) as error:
        raise LaunchError(str(error)) from error


_MC_SAMPLES = 20
_UNUSED = {
    "strength": "has no rate for it to multiply",
    "penalty": "adds nothing to the loss",
    "mc_samples": "has no noise in evaluation",
}


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Flags with every default filled in and every text understood; nothing is traced yet.

    Args:
      experiment: which one.
      config: its flags.
      dataset: loaded and split.
      whole: the same before a part of its training examples was taken.
      rows: which part: rows of `whole`; None for all.
      network: the model with its scheme.
      strength: multiplies every rate.
      penalty: multiplies the penalty of a scheme that learns.
    """

    experiment: Experiment
    config: Config
    dataset: data.Dataset
    whole: data.Dataset
    rows: np.ndarray | None
    network: Network
    strength: Strength
    penalty: Strength

    @property
    def steps(self) -> int:
        """Of training, over all epochs."""
        return self.config.epochs * steps_per_epoch(
            len(self.dataset.x_train), self.config.batch_size
        )

    @property
    def learning_rate(self) -> Any:
        """A number, or a function of the step."""
        return parse_learning_rate(self.config.learning_rate, self.steps)

    @property
    def stopping(self) -> Stopping | None:
        """When training stops early; None if it does not."""
        config = self.config
        if config.patience is None:
            return None
        return Stopping(config.patience, config.min_gain, higher=config.monitor == "accuracy")

    @property
    def key(self) -> Array:
        """The run's key."""
        return jax.random.key(self.config.seed)

    @property
    def eval_key(self) -> Array:
        """The key of Monte-Carlo evaluation."""
        return eval_key_of(self.key)

    def init(self) -> tuple[Any, Any]:
        """The model's initial parameters and mutable variables."""
        return self.network.init(init_key_of(self.key), self.dataset.x_train[0])

    def traced(self) -> tuple[Any, Any, Sites]:
        """Zeros in the place of what `init` returns, and the network's sites.

        Nothing is computed.
        """
        params, mutable = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(self.init)
        )
        return params, mutable, self.sites(params, mutable)

    def sites(self, params: Any, mutable: Any) -> Sites:
        """The sites of the network with these parameters."""
        example = self.dataset.x_train[0]
        return plan.record(lambda draw: self.network.outputs(params, example, draw, mutable))

    def examples(self, dataset: data.Dataset | None = None) -> Examples:
        """Training data, in the form that the module learns to predict it.

        Args:
          dataset: whose; None for this run's own. Targets are standardised by the run's statistics
            in any case.
        """
        dataset, network = dataset or self.dataset, self.network
        y = dataset.y_train
        if dataset.task == "regression":
            y = (y - np.asarray(network.target_shift)) / np.asarray(network.target_scale)
        return Examples(dataset.x_train, y)

    def problem(self, sites: Sites | None = None, mutable: bool = False) -> Problem:
        """The problem that is trained.

        Args:
          sites: those of the network.
          mutable: whether the network has mutable variables.
        """
        config = self.config
        problem = Problem(
            self.network.forward,
            self.experiment.objective(self.dataset.task),
            self.network.scheme,
            parse_optimizer(config.optimizer, self.learning_rate, config.clip),
            sites,
            self.strength,
            self.penalty,
            augment=augment.parse(config.augment),
            mix=augment.parse_mix(config.mix),
            average=parse_average(config.average, self.steps),
            stateful=mutable,
        )
        return dataclasses.replace(problem, **self.parts())

    def parts(self) -> dict[str, Any]:
        """The parts of the problem that may differ in numbers between lanes, if flags have any."""
        config, parts = self.config, dict[str, Any]()
        if config.l1 or config.l2:
            parts["regularizer"] = WeightPenalty(config.l1, config.l2)
        if config.max_norm is not None:
            parts["project"] = MaxNorm(config.max_norm)
        if config.label_smoothing:
            objective = self.experiment.objective(self.dataset.task)
            parts["metrics"] = dataclasses.replace(objective, smoothing=config.label_smoothing)
        return parts


@dataclasses.dataclass(frozen=True)
class Setup(Resolved):
    """A run that is ready to begin.

    Args:
      program: compiled on first use.
      params: the model's initial parameters.
      mutable: its initial mutable variables; None if it has none.
      site_table: as text.
    """

    program: Program
    params: Any
    mutable: Any
    site_table: str

    def values(self, state: State, step: int) -> dict[str, Any]:
        """What a prediction depends on after `step` steps; see `values_of`."""
        return values_of(state.evaluated(), self.strength, step)


def values_of(weights: dict[str, Any], strength: Strength, step: Any) -> dict[str, Any]:
    """What a prediction depends on after `step` steps: parameters, learned values, strength.

    The strength is the last step's: a scheme whose expectation depends on its rate is evaluated at
    the rate it was trained at last.

    Args:
      weights: as `State.evaluated` returns them.
      strength: a number, or a function of the step.
      step: how many steps were done; of lanes that stopped early (lanes,).
    """
    last = jnp.maximum(jnp.asarray(step, jnp.int32) - 1, 0)
    return weights | {"strength": strength_at(strength, last)}


def resolve(
    experiment: Experiment,
    flags: Flags,
    say: Callable[[str], None],
    load: Callable[..., data.Dataset] | None = None,
) -> Resolved:
    """Fills in defaults and reads the data.

    Args:
      experiment: which one.
      flags: as given.
      say: is told what was chosen for the user.
      load: reads a data set; None for `experiment.load`.

    Raises:
      LaunchError: the run cannot start; the message says why and what would do.
    """
    with launching():
        _check_random_numbers(flags.seed)
        scheme = schemes.parse(flags.dropout, rate=flags.rate)
        strength, penalty = parse_strength(flags.strength), parse_strength(flags.penalty, "penalty")
        _check_used(flags, scheme, strength=strength != 1.0, penalty=penalty != 1.0)
        model_text = experiment.model_for(scheme) if flags.model == "auto" else flags.model
        # Texts first, data later: a typo should not wait.
        vocabulary = vocabulary_of(models.parse(model_text, outputs=1))
        parse_optimizer(flags.optimizer, 0.0)
        _check_stopping(flags)
        if flags.data_dir == "":
            raise ValueError("data_dir is empty; leave it out or name a folder")
        # After "=" no shell puts the home folder for ~.
        folder = (
            None if flags.data_dir is None else Path(os.path.expanduser(flags.data_dir)).resolve()
        )
        dataset = (load or experiment.load)(flags.dataset, folder, say=say, task=flags.task)
        if vocabulary:
            dataset = dataset.as_tokens(vocabulary)
        dataset, test = _with_test(dataset, flags.test, say)
        experiment.objective(dataset.task)  # it has one
        given = vars(flags)
        mc_samples = _MC_SAMPLES if is_used("mc_samples", flags.dropout, scheme) else 0
        chosen: dict[str, Any] = (
            given | {"mc_samples": mc_samples} | dict(experiment.defaults_for(dataset))
        )
        chosen |= {k: v for k, v in given.items() if v is not None}
        chosen |= {
            "test": test,
            "validation": _count("validation", chosen["validation"], len(dataset.y_train)),
        }
        _check_counts(chosen)
        dataset = whole = dataset.with_validation(chosen["validation"])
        rows = None
        if flags.train_examples is not None:
            rows = whole.train_rows(flags.train_examples, flags.seed)
            dataset = whole.with_train_examples(flags.train_examples, flags.seed)
        if dataset.name.endswith(".npz"):
            say(
                f"task={dataset.task}: {len(dataset.y_train)} training examples of shape "
                f"{dataset.x_train.shape[1:]}{', tokens' * bool(vocabulary)}, {dataset.outputs} "
                "outputs"
            )
        network = Network(
            models.parse(model_text, dataset.outputs),
            scheme,
            dataset.task,
            dataset.shift,
            dataset.scale,
            dataset.target_shift,
            dataset.target_scale,
            dataset.origin,
            dataset.target_origin,
            dataset.classes,
        )
        own = {
            "dropout": str(scheme),
            "rate": getattr(scheme, "rate", None),
            "model": network.text(),
            "dataset": dataset.name,
            "task": dataset.task,
            # With the digits it would do nothing, and is refused.
            "data_dir": None if folder is None or dataset.name == "digits" else str(folder),
        }
        config = Config(**chosen | own)
        if flags.model == "auto":
            say(f"model=auto: {config.model}")
        check_batch_size(config.batch_size, jax.device_count())
        if config.batch_size > len(dataset.x_train):
            say(
                f"batch_size={config.batch_size}: each step is one full batch, as there are "
                f"{len(dataset.x_train)} training examples"
            )
        steps = config.epochs * steps_per_epoch(len(dataset.x_train), config.batch_size)
        check_strength(strength, steps)
        check_strength(penalty, steps, "penalty", at_most=math.inf)
        resolved = Resolved(experiment, config, dataset, whole, rows, network, strength, penalty)
        resolved.problem()  # its parts can be made of the flags
        _check_augmented(resolved)
        _check_monitor(resolved)
        return resolved


def set_up(
    experiment: Experiment,
    flags: Flags,
    say: Callable[[str], None],
    load: Callable[..., data.Dataset] | None = None,
) -> Setup:
    """Makes a run ready to begin.

    Args:
      experiment: which one.
      flags: as given.
      say: is told what was chosen for the user.
      load: see `resolve`.

    Raises:
      LaunchError: the run cannot start; the message says why and what would do.
    """
    resolved = resolve(experiment, flags, say, load)
    config, scheme = resolved.config, resolved.network.scheme
    with launching():
        model = experiment.model_for(scheme) if flags.model == "auto" else flags.model
        params, mutable = resolved.init()
        sites = resolved.sites(params, mutable)
        plan.check(scheme, sites, model)
        program = Program(
            resolved.problem(sites, bool(mutable)),
            resolved.examples(),
            key=resolved.key,
            batch_size=config.batch_size,
        )
        with can_be_run(scheme, model):
            program.check(params, mutable or None)
    table = plan.table(scheme, sites)
    if resolved.strength != 1.0:
        table += f"every rate times strength={config.strength}\n"
    own = {field.name: getattr(resolved, field.name) for field in dataclasses.fields(Resolved)}
    return Setup(**own, program=program, params=params, mutable=mutable or None, site_table=table)


@contextlib.contextmanager
def can_be_run(scheme: Scheme, model: str) -> Iterator[None]:
    """Within, an error while scheme and model are traced is one that names them.

    Raises:
      ValueError: whatever was raised: a scheme of the user's own may raise anything.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{scheme} on {model} cannot be run: {type(error).__name__}: {error}"
        ) from error


def read_once(experiment: Experiment, say: Callable[[str], None]) -> Callable[..., data.Dataset]:
    """A function that reads the data sets of an experiment, each of them once.

    Args:
      experiment: which one.
      say: is told where they were found.
    """
    load = functools.cache(functools.partial(experiment.load, say=say))

    def read(name: str, folder: Path | None, *, say: Any, task: str) -> data.Dataset:
        del say
        return load(name, folder, task=task)

    return read


def jax_setting(name: str) -> Any:
    """The value of one of JAX's settings."""
    return getattr(jax.config, name)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless JAX was told where to keep them."""
    if jax_setting("jax_compilation_cache_dir"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(home, "dropjax", "xla")
    try:
        if folder.startswith("~"):
            raise OSError("this user has no home")
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return  # each run compiles anew
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def is_used(flag: str, dropout: str, scheme: Scheme) -> bool:
    """Whether a flag does something for a scheme.

    Args:
      flag: its name.
      dropout: the text of the scheme, as it was given.
      scheme: what the text means.
    """
    if flag == "rate":
        return lacks_rate(dropout)
    if flag == "strength":
        return any(rate_fields(type(link)) for link in scheme.links)
    if flag == "penalty":
        return scheme.penalises
    return flag != "mc_samples" or scheme.is_random_in_evaluation()


def _check_used(flags: Flags, scheme: Scheme, **given: bool) -> None:
    """Refuses flags that would do nothing for the scheme.

    Args:
      flags: as given.
      scheme: which.
      **given: whether a flag has a value that does something, as far as that is known already.
    """
    for flag, why in _UNUSED.items():
        value = getattr(flags, flag)
        if given.get(flag, value) and not is_used(flag, flags.dropout, scheme):
            raise ValueError(f"{flag}={value} would do nothing: {scheme} {why}")


def _check_stopping(flags: Flags) -> None:
    """Refuses flags of early stopping where training does not stop early."""
    if flags.patience is None:
        for name in ("min_gain", "monitor"):
            if (value := getattr(flags, name)) != getattr(Flags, name):
                raise ValueError(f"{name}={value} would do nothing without --patience")


def _check_monitor(resolved: Resolved) -> None:
    """Refuses early stopping without validation data, or by a measure that the task has not."""
    config, dataset = resolved.config, resolved.dataset
    if config.patience is None:
        return
    if not len(dataset.y_validation):
        raise ValueError(
            f"patience={config.patience} needs validation data, and there are none; hold some out: "
            "--validation=0.1"
        )
    watched = ("loss", "rmse" if dataset.task == "regression" else "accuracy")
    if config.monitor not in watched:
        raise ValueError(
            f"monitor={config.monitor}: in {dataset.task} it can be {' or '.join(watched)}"
        )
    _ = resolved.stopping  # it can be made of the flags


def _check_augmented(resolved: Resolved) -> None:
    """Refuses changes of images where there are none, and mixtures of tokens."""
    config, shape = resolved.config, resolved.dataset.x_train.shape[1:]
    for name in ("augment", "mix"):
        value = getattr(config, name)
        if value == "none":
            continue
        if name == "augment" or value.startswith("cutmix"):
            if len(shape) != 3:
                raise ValueError(f"{name}={value} is for images; the examples are of shape {shape}")
        elif resolved.network.vocabulary:
            raise ValueError(f"{name}={value}: tokens cannot be mixed")


def _count(flag: str, given: int | float, examples: int) -> int:
    """The count that was given, or that a share of some examples is."""
    if isinstance(given, int) or given == 0:
        return int(given)
    count = round(given * examples)
    if not 0 < given < 1 or not count:
        raise ValueError(
            f"{flag}={given} must be a count, or a share between 0 and 1 that is at least one of "
            f"the {examples} examples"
        )
    return count


def _with_test(
    dataset: data.Dataset, given: int | float | None, say: Callable[[str], None]
) -> tuple[data.Dataset, int | None]:
    """A data set with test data, and how many were cut for them; None if it has its own."""
    if len(dataset.y_test):
        if given is not None:
            raise ValueError(
                f"test={given} would do nothing: {dataset.name} has test data of its own; leave it "
                "out"
            )
        return dataset, None
    examples = len(dataset.y_train)
    count = data.default_test(dataset) if given is None else _count("test", given, examples)
    if given is None:
        say(f"test={count}: so many of the {examples} examples are cut for the test data (--test)")
    return dataset.with_test(count), count


def _check_counts(chosen: dict[str, Any]) -> None:
    for name, least in (("epochs", 1), ("mc_samples", 0)):
        if chosen[name] is not None and chosen[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {chosen[name]}")


def _check_random_numbers(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be in [0, 2**31), got {seed}")
    implementation = str(jax_setting("jax_default_prng_impl"))
    if "rbg" in implementation:
        raise ValueError(
            f"jax_default_prng_impl={implementation}: its numbers depend on batching and device, "
            "so no run could be repeated; use threefry2x32"
        )
    if not jax_setting("jax_threefry_partitionable"):
        raise ValueError(
            "jax_threefry_partitionable=False gives other masks than every other run has; unset it"
        )
