"""From flags to what will run. All that can be wrong at launch is found here."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from dropjax import data, models, schemes
from dropjax.core import plan
from dropjax.core.draw import CLEAN, Draw, expected, sampled
from dropjax.core.keys import Keys
from dropjax.core.literals import format_call
from dropjax.core.scheme import Scheme
from dropjax.core.strength import Strength, check_strength, strength_at
from dropjax.ops.keys import derive
from dropjax.train import Examples, Problem, Program
from dropjax.train.objectives import classification
from dropjax.train.optax_spec import parse_optimizer, parse_strength

Array = jax.Array


class LaunchError(Exception):
    """A run that cannot start: a flag, the data or the folder is wrong."""


@contextlib.contextmanager
def _launching() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, data.DataError) as error:
        raise LaunchError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags that say what is computed. None stands for the data set's default."""

    dropout: str = "bernoulli"
    rate: float | None = None
    model: str = "auto"
    dataset: str = "auto"
    data_dir: str | None = None
    validation: int | None = None
    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    strength: str = "1"
    mc_samples: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags with every default filled in and every text in its full form.

    `dropout` has the rate in its text; `rate` repeats it where there is a single one.
    """

    dropout: str
    rate: float | None
    model: str
    dataset: str
    data_dir: str | None
    validation: int
    seed: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    strength: str
    mc_samples: int


_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"validation": 144, "epochs": 60, "batch_size": 32},
    "mnist": {"validation": 5000, "epochs": 10, "batch_size": 128},
    "fashion_mnist": {"validation": 5000, "epochs": 10, "batch_size": 128},
}
_MC_SAMPLES = 20


@dataclasses.dataclass(frozen=True)
class Setup:
    """A resolved experiment.

    Args:
      config: what is run.
      dataset: loaded and split.
      program: compiled on first use.
      params: the model's initial parameters.
      log_probabilities: (state's params and strength, x) -> (classes,), deterministic.
      sampled_log_probabilities: the same with noise: (..., x, keys).
      site_table: as text.
      eval_key: for Monte-Carlo.
    """

    config: Config
    dataset: data.Dataset
    program: Program
    params: Any
    log_probabilities: Callable[[Any, Array], Array]
    sampled_log_probabilities: Callable[[Any, Array, Keys], Array]
    strength: Strength
    site_table: str
    eval_key: Array


def set_up(flags: Flags, say: Callable[[str], None]) -> Setup:
    """Resolves flags.

    Args:
      flags: as given.
      say: is told what was chosen for the user.

    Raises:
      LaunchError: the run cannot start; the message says why and what would do.
    """
    with _launching():
        _check_random_numbers()
        scheme = schemes.parse(flags.dropout, rate=flags.rate)
        model_name = _model_for(scheme) if flags.model == "auto" else flags.model
        optimizer = parse_optimizer(flags.optimizer, flags.learning_rate)
        strength = parse_strength(flags.strength)
        mc_samples = _mc_samples(flags.mc_samples, scheme)
        if strength != 1.0 and not _is_random(scheme):
            raise ValueError(f"strength={flags.strength} would do nothing: {scheme} has no rate")
        folder = None if flags.data_dir is None else Path(flags.data_dir)
        models.parse(model_name, outputs=1)  # before the data is read: a typo should not wait
        dataset = data.load(flags.dataset, folder, say=say)
        given = dataclasses.asdict(flags)
        chosen = {k: v for k, v in given.items() if v is not None}
        chosen = given | _DEFAULTS[dataset.name] | chosen
        dataset = dataset.with_validation(chosen["validation"])
        model = models.parse(model_name, outputs=dataset.classes)
        if flags.model == "auto":
            say(f"model=auto: {_model_text(model)}")

        def apply(params: Any, x: Array, draw: Draw) -> Array:
            pixels = jnp.asarray(x).astype(jnp.float32) / dataset.max_value
            return cast(Array, model.apply({"params": params}, pixels, draw))

        key = jax.random.key(flags.seed)
        example = dataset.x_train[0]
        # Compiled: op by op, initialisation is several times slower.
        init = jax.jit(lambda key: model.init(key, example.astype("float32"), CLEAN)["params"])
        params = init(derive(key, "init"))
        sites = plan.record(lambda draw: apply(params, example, draw))
        plan.check(scheme, sites, model_name)
        program = Program(
            Problem(apply, classification, scheme, sites, optimizer, strength),
            Examples(dataset.x_train, dataset.y_train),
            key=key,
            batch_size=chosen["batch_size"],
        )
        check_strength(strength, chosen["epochs"] * program.steps_per_epoch)

    def log_probabilities(values: Any, x: Array) -> Array:
        return jax.nn.log_softmax(apply(values["params"], x, expected(_bound(scheme, values))))

    def sampled_log_probabilities(values: Any, x: Array, keys: Keys) -> Array:
        return jax.nn.log_softmax(apply(values["params"], x, sampled(_bound(scheme, values), keys)))

    resolved = chosen | {
        "dropout": str(scheme),
        "rate": getattr(scheme, "rate", None),
        "model": _model_text(model),
        "dataset": dataset.name,
        "mc_samples": mc_samples,
    }
    return Setup(
        config=Config(**resolved),
        dataset=dataset,
        program=program,
        params=params,
        log_probabilities=log_probabilities,
        sampled_log_probabilities=sampled_log_probabilities,
        strength=strength,
        site_table=plan.table(scheme, sites),
        eval_key=derive(key, "eval"),
    )


def values_after(setup: Setup, state: Any, step: int) -> dict[str, Any]:
    """What a prediction depends on after `step` steps: parameters, learned values, strength.

    The strength is the last step's: a scheme whose expectation depends on its rate is evaluated
    at the rate it was trained at last.
    """
    return state.params | {"strength": strength_at(setup.strength, jnp.int32(max(step - 1, 0)))}


def jax_setting(name: str) -> Any:
    """The value of one of JAX's settings."""
    return getattr(jax.config, name)


def _bound(scheme: Scheme, values: Any) -> Scheme:
    return scheme.scaled(values["strength"]).bind(values["learned"])


def _is_random(scheme: Scheme) -> bool:
    return any(link.acts_on or link.can_act_on for link in scheme.links)


def _model_for(scheme: Scheme) -> str:
    made_for = sorted({link.made_for for link in scheme.links} - {""})
    if len(made_for) > 1:
        raise ValueError(
            f"the links of {scheme} were made for {' and '.join(made_for)}: set --model"
        )
    return made_for[0] if made_for else "mlp"


def _mc_samples(samples: int | None, scheme: Scheme) -> int:
    if _is_random(scheme):
        return _MC_SAMPLES if samples is None else samples
    if samples:
        raise ValueError(f"mc_samples={samples} would do nothing: {scheme} has no noise")
    return 0


def _model_text(model: Any) -> str:
    fields = [f.name for f in dataclasses.fields(model) if f.init and f.repr]
    hidden = ("outputs", "parent", "name")
    name = models.MODELS.name_of(type(model))
    return format_call(name, {f: getattr(model, f) for f in fields if f not in hidden})


def _check_random_numbers() -> None:
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
