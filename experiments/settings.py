"""The flags that say how networks are trained, whatever the scheme: shared with the scripts."""

from typing import Any

from absl import flags

from dropjax import data, models


class _CountOrShare(flags.ArgumentParser):
    """Integers, and numbers between 0 and 1."""

    syntactic_help = "an integer, or a number below 1"

    def parse(self, argument: Any) -> int | float:
        """The value of a text."""
        if isinstance(argument, str):
            try:
                argument = int(argument)
            except ValueError:
                try:
                    argument = float(argument)
                except ValueError:
                    argument = repr(argument)
        if argument == 0:
            return 0  # 0.0 too: no share, but none
        if isinstance(argument, str) or (isinstance(argument, float) and not 0 < argument < 1):
            raise ValueError(
                "must be a count such as 100, or a share between 0 and 1 such as 0.2, got "
                f"{argument}"
            )
        return argument

    def flag_type(self) -> str:
        """What --help calls it."""
        return "count or share"


MODEL = flags.DEFINE_string(
    "model",
    "auto",
    f"The model: {', '.join(models.names())}, or one with arguments such as "
    "'mlp(widths=(800,800))', 'rnn(cell=\"gru\",width=256)' or, with a dense layer after the last "
    "output, 'rnn(width=64,dense=(32,))'. auto: the one that the scheme was made for. "
    "help: lists the arguments of all.",
)
DATASET = flags.DEFINE_string(
    "dataset",
    "auto",
    f"The data: {', '.join(data.NAMES)}, or the path of an .npz file of yours with x_train, "
    "y_train, x_test, y_test, or with x and y (see --test). auto: MNIST if it can be had, else the "
    "digits of scikit-learn.",
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
VALIDATION = flags.DEFINE(
    _CountOrShare(),
    "validation",
    None,
    "Examples cut from the training data for validation, or below 1 the share of them, such as "
    "0.2; 0 for none. Default: 5000, for the digits 144, for a file of yours a tenth.",
)
TEST = flags.DEFINE(
    _CountOrShare(),
    "test",
    None,
    "Examples that are cut for the test data from an .npz file with x and y, or below 1 the share "
    "of them. Default: a fifth, at most 10,000.",
)
TRAIN_EXAMPLES = flags.DEFINE_integer(
    "train_examples",
    None,
    "Train on so many of the training examples only: a subset by class, drawn by --seed, of those "
    "that are not for validation. Default: all.",
    lower_bound=1,
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
    "'sgd(momentum=0.9,nesterov=True)'. What a scheme learns is left out of weight decay.",
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
    "for --strength, to warm it up. 1 is the evidence lower bound (ELBO), for every task: for "
    "regression, whose loss is the squared error of standardised targets, with a variance of 1.",
)
MC_SAMPLES = flags.DEFINE_integer(
    "mc_samples",
    None,
    "Draws for the Monte-Carlo results on the test data; 0 for none. Default: 20, without dropout "
    "0.",
    lower_bound=0,
)


def values() -> dict[str, Any]:
    """What was given, by the names of the flags."""
    holders = (MODEL, DATASET, DATA_DIR, TASK, VALIDATION, TEST, TRAIN_EXAMPLES)
    holders += (EPOCHS, BATCH_SIZE, OPTIMIZER, LEARNING_RATE, STRENGTH, PENALTY, MC_SAMPLES)
    return {holder.name: holder.value for holder in holders}
