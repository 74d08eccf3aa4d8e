"""The flags that all experiments share."""

import os
import signal
import sys
from pathlib import Path

import jax
from absl import app, flags, logging

import experiments
from dropjax import data, models, schemes
from dropjax.train.checkpoint import CheckpointError
from dropjax.train.log import LogError
from experiments import run
from experiments.setup import Flags, LaunchError, jax_setting

DROPOUT = flags.DEFINE_string(
    "dropout",
    "bernoulli",
    f"The dropout scheme: a name ({', '.join(schemes.names())}), a name with arguments such as "
    "'bernoulli(rate=0.2,at=\"input\")', or several joined by |. A scheme of your own: "
    "mymodule:MyScheme. dropjax/schemes/README.md says what they are.",
)
RATE = flags.DEFINE_float(
    "rate",
    None,
    "Probability of dropping, in [0, 1], for each scheme in --dropout that names none.",
)
MODEL = flags.DEFINE_string(
    "model",
    "auto",
    f"The model: {', '.join(models.names())}, or one with arguments such as "
    "'mlp(widths=(800,800))' or 'rnn(cell=\"gru\",width=256)'. auto: the one that the scheme was "
    "made for.",
)
DATASET = flags.DEFINE_string(
    "dataset",
    "auto",
    f"The data: {', '.join(data.NAMES)}, or the path of an .npz file of yours with x_train, "
    "y_train, x_test, y_test. auto: MNIST if it can be had, else the digits of scikit-learn.",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder with the original files of --dataset, or with what tensorflow-datasets has prepared. "
    "Default: where that keeps its data, then a cache, to which they are downloaded.",
)
TASK = flags.DEFINE_enum(
    "task",
    "auto",
    ("auto", *data.TASKS),
    "What the y of an .npz file is for. auto: what it looks like.",
)
VALIDATION = flags.DEFINE_integer(
    "validation",
    None,
    "Examples cut from the training data for validation; 0 for none. Default: 5000, for the digits "
    "144, for a file of yours a tenth.",
)
SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed of everything random: initial weights, order of the data, noise.",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
EPOCHS = flags.DEFINE_integer(
    "epochs",
    None,
    "Passes over the training data. Default: 10, for the digits 100, for other data of less than "
    "10,000 examples 50.",
    lower_bound=1,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Examples in a step, over all devices. Default: 128, with less than 10,000 examples 32.",
    lower_bound=1,
)
OPTIMIZER = flags.DEFINE_string(
    "optimizer",
    "adam",
    "An optax optimiser, with arguments if need be: adam, 'adamw(weight_decay=0.01)', "
    "'sgd(momentum=0.9,nesterov=True)'.",
)
LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "The optimiser's learning rate. Default: 0.001, for the digits 0.003."
)
STRENGTH = flags.DEFINE_string(
    "strength",
    "1",
    "Multiplies every rate, in [0, 1]: a number; an optax schedule over steps such as "
    "'linear_schedule(init_value=0.0,end_value=1.0,transition_steps=1000)'; or annealed, "
    "curriculum, early, late or scheduled_drop_path, for example 'early(steps=1000)'.",
)
PENALTY = flags.DEFINE_string(
    "penalty",
    "1",
    "Multiplies the penalty of a scheme that learns: a number, or an optax schedule over steps, as "
    "for --strength, to warm it up.",
)
MC_SAMPLES = flags.DEFINE_integer(
    "mc_samples",
    None,
    "Draws for the Monte-Carlo results on the test data; 0 for none. Default: 20, without dropout "
    "0.",
    lower_bound=0,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. Default: runs/ and the experiment's name and the time."
)
RESUME = flags.DEFINE_bool("resume", False, "Continue the run in --workdir.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the run in --workdir.")


def main(experiment: str) -> None:
    """Runs an experiment with the flags of the command line, and exits.

    Args:
      experiment: its name.
    """

    def start(argv: list[str]) -> int:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # or every library's notes stand among ours
        _use_compilation_cache()
        workdir = None if WORKDIR.value is None else Path(WORKDIR.value)
        given = Flags(
            dropout=DROPOUT.value,
            rate=RATE.value,
            model=MODEL.value,
            dataset=DATASET.value,
            data_dir=DATA_DIR.value,
            task=TASK.value,
            validation=VALIDATION.value,
            seed=SEED.value,
            epochs=EPOCHS.value,
            batch_size=BATCH_SIZE.value,
            optimizer=OPTIMIZER.value,
            learning_rate=LEARNING_RATE.value,
            strength=STRENGTH.value,
            penalty=PENALTY.value,
            mc_samples=MC_SAMPLES.value,
        )
        try:
            return run.run(
                experiment,
                given,
                workdir,
                resume=RESUME.value,
                overwrite=OVERWRITE.value,
                began=experiments.STARTED,
            )
        except (LaunchError, CheckpointError, LogError) as error:
            print(f"{experiment}: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{experiment}: interrupted; --resume continues", file=sys.stderr)
            return 128 + signal.SIGINT

    app.run(start)


def _use_compilation_cache() -> None:
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
