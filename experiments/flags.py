"""The flags that all experiments share."""

import dataclasses
import os
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

import experiments
from dropjax import schemes
from dropjax.train.checkpoint import CheckpointError
from dropjax.train.log import LogError
from experiments import arguments, program, run, settings
from experiments.setup import Flags, LaunchError, use_compilation_cache

flags.adopt_module_key_flags(settings)

DROPOUT = flags.DEFINE_string(
    "dropout",
    "bernoulli",
    f"The dropout scheme: a name ({', '.join(schemes.names())}), a name with arguments such as "
    "'bernoulli(rate=0.2,at=\"input\")', or several joined by |. A scheme of your own: "
    "mymodule:MyScheme. help: lists the arguments of all.",
)
RATE = flags.DEFINE_float(
    "rate",
    None,
    "Probability of dropping, in [0, 1], for each scheme in --dropout that names none.",
)
SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed of everything random: initial weights, order of the data, noise.",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. Default: runs/ and the experiment's name and the time."
)
RESUME = flags.DEFINE_bool(
    "resume",
    False,
    "Continue the run in --workdir: it says the other flags itself. With a larger --epochs it is "
    "made longer, also if it is complete.",
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the run in --workdir.")


def main(experiment: str) -> NoReturn:
    """Runs an experiment with the flags of the command line, and exits.

    Args:
      experiment: its name.
    """

    @program.guarded(experiment)
    def start(argv: list[str]) -> int:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        if help := arguments.help_on(DROPOUT.value, settings.MODEL.value):
            return program.deliver(experiment, help)
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # or every library's notes stand among ours
        use_compilation_cache()
        workdir = None if WORKDIR.value is None else Path(os.path.expanduser(WORKDIR.value))
        given = Flags(dropout=DROPOUT.value, rate=RATE.value, seed=SEED.value, **settings.values())
        try:
            return run.run(
                experiment,
                given,
                workdir,
                resume=RESUME.value,
                overwrite=OVERWRITE.value,
                typed=typed(),
                began=experiments.STARTED,
            )
        except CheckpointError as error:
            program.complain(
                f"{experiment}: {error}; put back a copy of one, or begin the run anew "
                "(--overwrite, without --resume)"
            )
            return 2
        except (LaunchError, LogError) as error:
            program.complain(f"{experiment}: {error}")
            return 2

    program.launch(experiment, start)


def typed() -> set[str]:
    """The names of the flags of a run that stand in the command."""
    return {field.name for field in dataclasses.fields(Flags) if flags.FLAGS[field.name].present}
