"""The flags of training. Each is declared once, as a field of `Flags`; all else follows from that:
absl's flag and its help, what the recorded command says, what a resumed run compares, which flags
--grid sweeps, and what the id of an ablation's cell is made of.
"""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from absl import flags

from dropjax import data, models, schemes
from dropjax.core.literals import parse_call
from experiments.experiment import Experiment

flags.disclaim_key_flags()  # --help lists them as those of the module that is run

_FIRST = (0, 5, 2)
"""The version whose flags are in the id of a cell whatever their values are."""


@dataclasses.dataclass(frozen=True)
class Declared:
    """What a flag is, besides its name, its type and its default.

    Args:
      help: for --help; {datasets} stands for the experiment's.
      since: the first version that has it. A flag that came after 0.5.2 is left out of the id of an
        ablation's cell while it has its default, and a run of an older version has that default.
      least, most: of a number.
      choices: of a text; None for any.
      parser: absl's, for what is no text and no number.
      lane: whether cells of an ablation that differ in its number alone are trained side by side,
        in one program. At its default it is off, which is another program.
      sweep: "--grid" if that sweeps it, the flag of scripts.ablate that lists its values, or "" if
        all cells of an ablation must have one value.
      resumed: what its value may be when a run is resumed: the "same"; a "larger" one; another
        "place", as results do not depend on it; another "file" of one's own with the same content;
        or any, where the "scheme", the resolved text of --dropout, has it.
      meaning: of a value: equal for two texts that mean the same.
    """

    help: str
    since: tuple[int, ...]
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] | None = None
    parser: flags.ArgumentParser | None = None
    lane: bool = False
    sweep: str = "--grid"
    resumed: Literal["same", "larger", "place", "file", "scheme"] = "same"
    meaning: Callable[[Any], Any] = lambda value: value


def _flag(default: Any, help: str, *, since: tuple[int, ...] = (0, 5), **facts: Any) -> Any:
    return dataclasses.field(default=default, metadata={"declared": Declared(help, since, **facts)})


class _CountOrShare(flags.ArgumentParser):
    """Integers, and numbers between 0 and 1."""

    syntactic_help = "an integer, or a number below 1"

    def parse(self, argument: Any) -> int | float:
        """The value of a text."""
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                value = kind(str(argument))
                if kind is int or value == 0 or 0 < value < 1:
                    return value or 0  # 0.0 too: no share, but none
        raise ValueError(
            f"must be a count such as 100, or a share between 0 and 1 such as 0.2, got {argument!r}"
        )

    def flag_type(self) -> str:
        """What --help calls it."""
        return "count or share"


class _NumberOrSchedule(flags.ArgumentParser):
    """Numbers, and texts of schedules."""

    syntactic_help = "a number, or a schedule"

    def parse(self, argument: Any) -> float | str:
        """The value of a text."""
        with contextlib.suppress(ValueError):
            return float(argument)
        parse_call(str(argument))
        return str(argument)

    def flag_type(self) -> str:
        """What --help calls it."""
        return "number or schedule"


def _schedule(text: str) -> Any:
    """What a number or a text means: a number, or a name with arguments."""
    with contextlib.suppress(ValueError):
        return float(text)
    return parse_call(text)


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags that say what is computed. None stands for the data set's default.

    `validation` and `test` are counts, or as floats below 1 shares.
    """

    dropout: str = _flag(
        "bernoulli",
        f"The dropout scheme: a name ({', '.join(schemes.names())}), a name with arguments such as "
        "'bernoulli(rate=0.2,at=\"input\")', or several joined by |. A scheme of your own: "
        "mymodule:MyScheme. help: lists the arguments of all.",
        sweep="--dropout",
    )
    rate: float | None = _flag(
        None,
        "Probability of dropping, in [0, 1], for each scheme in --dropout that names none.",
        sweep="--rate",
        resumed="scheme",
    )
    model: str = _flag(
        "auto",
        f"The model: {', '.join(models.names())}, or one with arguments such as "
        "'mlp(widths=(800,800))', 'rnn(cell=\"gru\",width=256)' or, with a dense layer after the "
        "last output, 'rnn(width=64,dense=(32,))'. auto: the one that the scheme was made for. "
        "help: lists the arguments of all.",
        sweep="",
    )
    dataset: str = _flag(
        "auto",
        "The data: {datasets}, or the path of an .npz file of yours with x_train, y_train, x_test, "
        "y_test, or with x and y (see --test). auto: MNIST if it can be had, else the digits of "
        "scikit-learn.",
        sweep="",
        resumed="file",
    )
    data_dir: str | None = _flag(
        None,
        "Folder with the original files of --dataset, or with what tensorflow-datasets has "
        "prepared. Default: where that keeps its data, then a cache, to which they are downloaded.",
        sweep="",
        resumed="place",
    )
    task: str = _flag(
        "auto",
        "What the y of an .npz file is for. auto: what it looks like.",
        choices=("auto", *data.TASKS),
        sweep="",
    )
    validation: int | float | None = _flag(
        None,
        "Examples cut from the training data for validation, or below 1 the share of them, such as "
        "0.2; 0 for none. Default: for a file of yours a tenth",
        parser=_CountOrShare(),
        sweep="",
    )
    test: int | float | None = _flag(
        None,
        "Examples that are cut for the test data from an .npz file with x and y, or below 1 the "
        "share of them. Default: a fifth, at most 10,000.",
        since=(0, 6),
        parser=_CountOrShare(),
        sweep="",
    )
    train_examples: int | None = _flag(
        None,
        "Train on so many of the training examples only: a subset by class, drawn by --seed, of "
        "those that are not for validation. Default: all.",
        least=1,
    )
    seed: int = _flag(
        0,
        "Seed of everything random: initial weights, order of the data, noise.",
        least=0,
        most=2**31 - 1,
        sweep="--seeds",
    )
    epochs: int | None = _flag(
        None,
        "Passes over the training data. Default: 10, with less than 10,000 examples 50",
        least=1,
        resumed="larger",
    )
    batch_size: int | None = _flag(
        None,
        "Examples in a step, over all devices. Default: 128, with less than 10,000 examples 32",
        least=1,
    )
    optimizer: str = _flag(
        "adam",
        "An optax optimiser, with arguments if need be: adam, 'adamw(weight_decay=0.01)', "
        "'sgd(momentum=0.9,nesterov=True)'. What a scheme learns is left out of weight decay.",
        meaning=parse_call,
    )
    learning_rate: float | str | None = _flag(
        None,
        "The optimiser's learning rate: a number; 'cosine(peak=0.001,warmup=0.05)' or linear(...), "
        "which rise in the first share of the steps and then fall to 0 (end=0); or an optax "
        "schedule over steps. Default: 0.001",
        parser=_NumberOrSchedule(),
        lane=True,
        meaning=_schedule,
    )
    clip: float | None = _flag(
        None,
        "The largest norm of the gradient of all parameters: a longer one is scaled to it. "
        "Default: no limit.",
        since=(0, 6),
        lane=True,
    )
    l1: float = _flag(
        0.0,
        "This times the sum of absolute weights is added to the loss. Weights are those of "
        "kernels: no biases, norms or tables.",
        since=(0, 6),
        least=0,
        lane=True,
    )
    l2: float = _flag(
        0.0,
        "This times the sum of squared weights is added to the loss. It is no weight decay, which "
        "Adam needs apart from the gradient: --optimizer='adamw(weight_decay=0.01)'.",
        since=(0, 6),
        least=0,
        lane=True,
    )
    max_norm: float | None = _flag(
        None,
        "The largest norm of the weights that enter a unit: after each step longer ones are scaled "
        "to it. Default: no limit.",
        since=(0, 6),
        lane=True,
    )
    label_smoothing: float = _flag(
        0.0,
        "This share of each label is spread over all classes, in the loss of training.",
        since=(0, 6),
        least=0,
        lane=True,
    )
    augment: str = _flag(
        "none",
        "Random changes of the images of training, joined by |, each by the example's own key: "
        "shift(pixels=2), which is padding and cropping; flip; rotate(degrees=10.0); "
        "scale(factor=1.2). For noise and erased parts there are the schemes gaussian_noise, "
        "cutout and random_erasing.",
        since=(0, 6),
    )
    mix: str = _flag(
        "none",
        "How examples of training are mixed with others: none, 'mixup(alpha=0.2)', or "
        "'cutmix(alpha=1.0)' for images.",
        since=(0, 6),
        meaning=parse_call,
    )
    average: str = _flag(
        "none",
        "Which average of the weights over training is evaluated: none, 'ema(decay=0.999)', an "
        "exponential moving average; or 'last(share=0.25)', the mean over this last share of the "
        "steps.",
        since=(0, 6),
        meaning=parse_call,
    )
    patience: int | None = _flag(
        None,
        "Training stops after so many epochs in a row without a gain on the validation data, and "
        "the weights of the best epoch are evaluated and kept. Default: it does not stop.",
        since=(0, 6),
        least=1,
    )
    min_gain: float = _flag(
        0.0,
        "With --patience: by how much an epoch must be better than the best one so far.",
        since=(0, 6),
        least=0,
    )
    monitor: str = _flag(
        "loss",
        "With --patience: what is looked at, of the validation data: the loss; the accuracy; or, "
        "in regression, the RMSE.",
        since=(0, 6),
        choices=("loss", "accuracy", "rmse"),
    )
    strength: str = _flag(
        "1",
        "Multiplies every rate, in [0, 1]: a number; an optax schedule over steps such as "
        "'linear_schedule(init_value=0.0,end_value=1.0,transition_steps=1000)'; or annealed, "
        "curriculum, early, late or scheduled_drop_path, for example 'early(steps=1000)'.",
        meaning=_schedule,
    )
    penalty: str = _flag(
        "1",
        "Multiplies the penalty of a scheme that learns: a number, or an optax schedule over "
        "steps, as for --strength, to warm it up. 1 is the evidence lower bound (ELBO), for every "
        "task: for regression, whose loss is the squared error of standardised targets, with a "
        "variance of 1.",
        meaning=_schedule,
    )
    mc_samples: int | None = _flag(
        None,
        "Draws for the Monte-Carlo results on the test data; 0 for none. Default: 20, without "
        "dropout 0.",
        least=0,
    )


def _filled() -> Any:
    """A field without a default."""
    return dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class Config(Flags):
    """The flags with every default filled in and every text in its full form.

    `dropout` has the rate in its text; `rate` repeats it where there is a single one. `test` is
    None where the data came with a test split. Named here are the flags that are no longer None.
    """

    validation: int = _filled()
    test: int | None = _filled()
    epochs: int = _filled()
    batch_size: int = _filled()
    learning_rate: float | str = _filled()
    mc_samples: int = _filled()

    def as_flags(self, **changes: Any) -> Flags:
        """The flags that give this configuration, and with `changes` another."""
        return flags_of(vars(self), **changes)


DECLARED: Mapping[str, Declared] = types.MappingProxyType(
    {field.name: field.metadata["declared"] for field in dataclasses.fields(Flags)}
)
"""What is known of each flag, by its name, in the order of `Flags`."""


def flags_of(config: Mapping[str, Any], **changes: Any) -> Flags:
    """The flags that give a configuration, which a run may have recorded.

    Args:
      config: the values of flags, by name, and whatever else. One that is missing has its default;
        one that the text of --dropout has is left out.
      **changes: flags that are to have other values.
    """
    own = {k: v for k, v in config.items() if k in DECLARED and DECLARED[k].resumed != "scheme"}
    return Flags(**own | changes)


def may_be(*resumed: str) -> tuple[str, ...]:
    """The names of the flags that may be so when a run is resumed; see `Declared`."""
    return tuple(name for name, declared in DECLARED.items() if declared.resumed in resumed)


def means(name: str, value: Any) -> Any:
    """What a flag's value means: equal for two texts that mean the same."""
    return DECLARED[name].meaning(value)


def in_command(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of resolved flags those that a command which repeats them has.

    A flag that came after 0.5.2 is left out at its default.

    Args:
      config: the values, by name.
    """
    defaults = vars(Flags())
    return {
        name: value
        for name, value in config.items()
        if value is not None
        and DECLARED[name].resumed != "scheme"
        and _is_said(name, value, defaults)
    }


def in_id(config: Config, filled: Mapping[str, Any]) -> dict[str, Any]:
    """Of resolved flags those that the id of a cell is made of.

    Args:
      config: the flags.
      filled: the defaults that the data set has for some.
    """
    defaults = vars(Flags()) | dict(filled)
    return {
        name: value
        for name, value in vars(config).items()
        if DECLARED[name].resumed != "place" and _is_said(name, value, defaults)
    }


def _is_said(name: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether a flag is named: one that came after 0.5.2 only where it is not at its default."""
    return DECLARED[name].since <= _FIRST or value != defaults[name]


def type_of(name: str) -> type:
    """The type of a flag's values, None apart; of two the first."""
    hint = typing.get_type_hints(Flags)[name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next(option for option in options if option is not types.NoneType)


def define(
    experiment: Experiment,
    values: flags.FlagValues = flags.FLAGS,
    *,
    names: Collection[str] = tuple(DECLARED),
) -> None:
    """Defines absl's flags.

    Args:
      experiment: whose data sets and defaults the help names.
      values: where they are defined.
      names: which of them.
    """
    for name in names:
        declared, default = DECLARED[name], getattr(Flags, name)
        # The last words of a default that the data set decides are the experiment's.
        text = declared.help.replace("{datasets}", ", ".join(experiment.datasets))
        if not text.endswith("."):
            text += "".join(f", for {words}" for words in experiment.defaults_in_words(name)) + "."
        least, most = declared.least, declared.most
        if declared.parser is not None:
            flags.DEFINE(declared.parser, name, default, text, values)
        elif declared.choices is not None:
            flags.DEFINE_enum(name, default, declared.choices, text, values)
        elif type_of(name) is str:
            flags.DEFINE_string(name, default, text, values)
        elif type_of(name) is bool:
            flags.DEFINE_bool(name, default, text, values)
        elif type_of(name) is int:
            flags.DEFINE_integer(name, default, text, least, most, values)
        else:
            flags.DEFINE_float(name, default, text, least, most, values)


def given(
    values: flags.FlagValues = flags.FLAGS, names: Collection[str] = tuple(DECLARED)
) -> dict[str, Any]:
    """What absl's flags were given, by name."""
    return {name: values[name].value for name in names}


def typed(values: flags.FlagValues = flags.FLAGS) -> set[str]:
    """The names of the flags of a run that stand in the command."""
    return {name for name in DECLARED if values[name].present}
