"""From flags to what will run. All that can be wrong at launch is found here."""

import contextlib
import dataclasses
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
from dropjax.core.strength import Strength, check_strength, strength_at
from dropjax.models.network import vocabulary_of
from dropjax.runs import Network
from dropjax.runs.sources import source_file as source_file
from dropjax.runs.sources import sources as sources
from dropjax.train import Examples, Problem, Program, State
from dropjax.train.devices import check_batch_size
from dropjax.train.keys import eval_key_of, init_key_of, steps_per_epoch
from dropjax.train.objectives import OBJECTIVES
from dropjax.train.optax_spec import parse_optimizer, parse_strength

Array = jax.Array


class LaunchError(Exception):
    """A run that cannot start: a flag, the data or the folder is wrong."""


@contextlib.contextmanager
def launching() -> Iterator[None]:
    """Turns what is wrong with a flag or the data into a `LaunchError`."""
    try:
        yield
    except (ValueError, TypeError, data.DataError) as error:
        raise LaunchError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags that say what is computed. None stands for the data set's default.

    `validation` and `test` are counts, or as floats below 1 shares.
    """

    dropout: str = "bernoulli"
    rate: float | None = None
    model: str = "auto"
    dataset: str = "auto"
    data_dir: str | None = None
    task: str = "auto"
    validation: int | float | None = None
    test: int | float | None = None
    train_examples: int | None = None
    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: str = "adam"
    learning_rate: float | None = None
    strength: str = "1"
    penalty: str = "1"
    mc_samples: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags with every default filled in and every text in its full form.

    `dropout` has the rate in its text; `rate` repeats it where there is a single one. `test` is
    None where the data came with a test split.
    """

    dropout: str
    rate: float | None
    model: str
    dataset: str
    data_dir: str | None
    task: str
    validation: int
    test: int | None
    train_examples: int | None
    seed: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    strength: str
    penalty: str
    mc_samples: int


_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"validation": 144, "epochs": 100, "batch_size": 32, "learning_rate": 3e-3},
    "mnist": {"validation": 5000, "epochs": 10, "batch_size": 128, "learning_rate": 1e-3},
    "fashion_mnist": {"validation": 5000, "epochs": 10, "batch_size": 128, "learning_rate": 1e-3},
}
_FEW = 10_000
_MC_SAMPLES = 20


def _defaults(dataset: data.Dataset) -> dict[str, Any]:
    if dataset.name in _DEFAULTS:
        return _DEFAULTS[dataset.name]
    few = len(dataset.y_train) < _FEW
    return {
        "validation": data.default_validation(dataset),
        "epochs": 50 if few else 10,
        "batch_size": min(32 if few else 128, len(dataset.y_train)),
        "learning_rate": 1e-3,
    }


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Flags with every default filled in and every text understood; nothing is traced yet.

    Args:
      config: what is run.
      dataset: loaded and split.
      whole: the same before a part of its training examples was taken.
      rows: which part: rows of `whole`; None for all.
      network: the model with its scheme.
      strength: multiplies every rate.
      penalty: multiplies the penalty of a scheme that learns.
    """

    config: Config
    dataset: data.Dataset
    whole: data.Dataset
    rows: np.ndarray | None
    network: Network
    strength: Strength
    penalty: Strength

    @property
    def key(self) -> Array:
        """The run's key."""
        return jax.random.key(self.config.seed)

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
        """What is trained.

        Args:
          sites: of the network.
          mutable: whether it has mutable variables.
        """
        config = self.config
        return Problem(
            self.network.forward,
            OBJECTIVES[self.dataset.task],
            self.network.scheme,
            parse_optimizer(config.optimizer, config.learning_rate),
            sites,
            self.strength,
            self.penalty,
            stateful=mutable,
        )


@dataclasses.dataclass(frozen=True)
class Setup:
    """An experiment that is ready to run.

    Args:
      config: what is run.
      dataset: loaded and split.
      network: the model with its scheme.
      program: compiled on first use.
      params: the model's initial parameters.
      mutable: its initial mutable variables; None if it has none.
      strength: multiplies every rate.
      site_table: as text.
      eval_key: for Monte-Carlo.
    """

    config: Config
    dataset: data.Dataset
    network: Network
    program: Program
    params: Any
    mutable: Any
    strength: Strength
    site_table: str
    eval_key: Array

    def values(self, state: State, step: int) -> dict[str, Any]:
        """What a prediction depends on after `step` steps; see `values_of`."""
        return values_of(state, self.strength, step)


def values_of(state: State, strength: Strength, step: int) -> dict[str, Any]:
    """What a prediction depends on after `step` steps: parameters, learned values, strength.

    The strength is the last step's: a scheme whose expectation depends on its rate is evaluated at
    the rate it was trained at last.
    """
    last = jnp.int32(max(step - 1, 0))
    return state.params | {"mutable": state.mutable, "strength": strength_at(strength, last)}


def resolve(
    flags: Flags,
    say: Callable[[str], None],
    load: Callable[..., data.Dataset] | None = None,
) -> Resolved:
    """Fills in defaults and reads the data.

    Args:
      flags: as given.
      say: is told what was chosen for the user.
      load: reads a data set, as `data.load` does, which it is by default.

    Raises:
      LaunchError: the run cannot start; the message says why and what would do.
    """
    with launching():
        _check_random_numbers(flags.seed)
        scheme = schemes.parse(flags.dropout, rate=flags.rate)
        strength = _strength(flags.strength, scheme)
        penalty = _penalty(flags.penalty, scheme)
        model_text = model_for(scheme) if flags.model == "auto" else flags.model
        # Texts first, data later: a typo should not wait.
        vocabulary = vocabulary_of(models.parse(model_text, outputs=1))
        parse_optimizer(flags.optimizer, flags.learning_rate or 0.0)
        if flags.data_dir == "":
            raise ValueError("data_dir is empty; leave it out or name a folder")
        # After "=" no shell puts the home folder for ~.
        folder = (
            None if flags.data_dir is None else Path(os.path.expanduser(flags.data_dir)).resolve()
        )
        dataset = (load or data.load)(flags.dataset, folder, say=say, task=flags.task)
        if vocabulary:
            dataset = dataset.as_tokens(vocabulary)
        dataset, test = _with_test(dataset, flags.test, say)
        given = dataclasses.asdict(flags)
        chosen = given | _defaults(dataset) | {k: v for k, v in given.items() if v is not None}
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
        resolved = {
            "dropout": str(scheme),
            "rate": getattr(scheme, "rate", None),
            "model": network.text(),
            "dataset": dataset.name,
            "task": dataset.task,
            "mc_samples": _mc_samples(flags.mc_samples, scheme),
            # With the digits it would do nothing, and is refused.
            "data_dir": None if folder is None or dataset.name == "digits" else str(folder),
        }
        config = Config(**chosen | resolved)
        if flags.model == "auto":
            say(f"model=auto: {config.model}")
        parse_optimizer(config.optimizer, config.learning_rate)
        check_batch_size(config.batch_size, jax.device_count())
        if config.batch_size > len(dataset.x_train):
            say(
                f"batch_size={config.batch_size}: each step is one full batch, as there are "
                f"{len(dataset.x_train)} training examples"
            )
        steps = config.epochs * steps_per_epoch(len(dataset.x_train), config.batch_size)
        check_strength(strength, steps)
        check_strength(penalty, steps, "penalty", at_most=math.inf)
        return Resolved(config, dataset, whole, rows, network, strength, penalty)


def traced(network: Network, key: Array, example: Any) -> tuple[Any, Any, Sites]:
    """A network's parameters and mutable variables, zeros of their shapes, and its sites.

    Nothing is computed.

    Args:
      network: the model with its scheme.
      key: of any initial parameters.
      example: of the data.
    """
    shapes = jax.eval_shape(lambda: network.init(key, example))
    params, mutable = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    sites = plan.record(lambda draw: network.outputs(params, example, draw, mutable))
    return params, mutable, sites


def set_up(
    flags: Flags,
    say: Callable[[str], None],
    load: Callable[..., data.Dataset] | None = None,
) -> Setup:
    """Makes an experiment ready to run.

    Args:
      flags: as given.
      say: is told what was chosen for the user.
      load: see `resolve`.

    Raises:
      LaunchError: the run cannot start; the message says why and what would do.
    """
    resolved = resolve(flags, say, load)
    config, dataset, network = resolved.config, resolved.dataset, resolved.network
    scheme, key = network.scheme, resolved.key
    with launching():
        model = model_for(scheme) if flags.model == "auto" else flags.model
        example = dataset.x_train[0]
        params, mutable = network.init(init_key_of(key), example)
        sites = plan.record(lambda draw: network.outputs(params, example, draw, mutable))
        plan.check(scheme, sites, model)
        program = Program(
            resolved.problem(sites, bool(mutable)),
            resolved.examples(),
            key=key,
            batch_size=config.batch_size,
        )
        try:
            program.check(params, mutable or None)
        except Exception as error:  # whatever a scheme of the user's own does wrong
            raise ValueError(
                f"{scheme} on {model} cannot be run: {type(error).__name__}: {error}"
            ) from error
    return Setup(
        config=config,
        dataset=dataset,
        network=network,
        program=program,
        params=params,
        mutable=mutable or None,
        strength=resolved.strength,
        site_table=plan.table(scheme, sites)
        + ("" if resolved.strength == 1.0 else f"every rate times strength={config.strength}\n"),
        eval_key=eval_key_of(key),
    )


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


def _strength(text: str, scheme: Scheme) -> Strength:
    strength = parse_strength(text)
    if strength != 1.0 and not any(rate_fields(type(link)) for link in scheme.links):
        raise ValueError(
            f"strength={text} would do nothing: {scheme} has no rate for it to multiply"
        )
    return strength


def _penalty(text: str, scheme: Scheme) -> Strength:
    penalty = parse_strength(text, "penalty")
    if penalty != 1.0 and not scheme.penalises:
        raise ValueError(f"penalty={text} would do nothing: {scheme} adds nothing to the loss")
    return penalty


def model_for(scheme: Scheme) -> str:
    """The model that a scheme was made for.

    Raises:
      ValueError: its links were made for different ones.
    """
    made_for = sorted({link.made_for for link in scheme.links} - {""})
    if len(made_for) > 1:
        raise ValueError(
            f"the links of {scheme} were made for {' and '.join(made_for)}: set --model"
        )
    return made_for[0] if made_for else "mlp"


def _mc_samples(samples: int | None, scheme: Scheme) -> int:
    if scheme.is_random_in_evaluation():
        return _MC_SAMPLES if samples is None else samples
    if samples:
        raise ValueError(
            f"mc_samples={samples} would do nothing: {scheme} has no noise in evaluation"
        )
    return 0


def _count(flag: str, given: int | float, of: int) -> int:
    """A count, or a share of some examples as one."""
    if isinstance(given, int) or given == 0:
        return int(given)
    count = round(given * of)
    if not 0 < given < 1 or not count:
        raise ValueError(
            f"{flag}={given} must be a count, or a share between 0 and 1 that is at least one of "
            f"the {of} examples"
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
    of = len(dataset.y_train)
    count = data.default_test(dataset) if given is None else _count("test", given, of)
    if given is None:
        say(f"test={count}: so many of the {of} examples are cut for the test data (--test)")
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
