"""Handwritten digits and Fashion-MNIST: trains a network with a dropout scheme and measures it.

  python -m experiments.mnist --dropout=variational --dataset=digits
      an LSTM on scikit-learn's digits, which are always there: a minute on 2 cores,
      98.33 % test accuracy.
  python -m experiments.mnist --dropout='bernoulli(rate=0.5)' --dataset=mnist --data_dir=DIR
      an MLP on MNIST, whose four original .gz files lie in DIR. Without --data_dir they are
      downloaded, also without --dataset, unless there is no network.
  python -m experiments.mnist --dropout='bernoulli(rate=0.1)' --dataset=mine.npz
      an MLP on data of one's own: x_train, y_train, x_test, y_test, or x and y, of which a test
      split is cut (--test). y may be text, the names of the classes.
  python -m experiments.mnist --dropout=word --model='transformer(vocabulary=50)' --dataset=mine.npz
      a transformer on tokens: x are integers (examples, time) from 0 to 49.
  python -m experiments.mnist --resume --workdir=DIR
      continues the run in DIR, which was stopped or killed, with the flags it was begun with.
      Any that is given must agree with them, but for a larger --epochs, which makes it longer.

Prints where the scheme acts, the progress, and accuracy, negative log-likelihood (NLL, nats) and
expected calibration error (ECE) on the test data, plain and averaged over draws of the noise
(Monte-Carlo). Writes a folder (--workdir) with config.json, which has the command that repeats the
run bit for bit, sites.txt, metrics.jsonl, timing.jsonl, result.json, curves.png and checkpoints/.

What is read back of a folder is checked by hashes; what is damaged is named and not used.

Exit status: 0 completed, 1 a flag cannot be parsed, 2 it could not start, or a file could not be
read or written, 3 the loss or the predictions became infinite or NaN, 130 or 143 stopped by SIGINT
or SIGTERM.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("mnist")

from experiments import run
from experiments.experiment import Experiment

_LARGE = {"validation": 5000, "epochs": 10, "batch_size": 128, "learning_rate": 1e-3}

EXPERIMENT = Experiment(
    name="mnist",
    defaults={
        "digits": {"validation": 144, "epochs": 100, "batch_size": 32, "learning_rate": 3e-3},
        "mnist": _LARGE,
        "fashion_mnist": _LARGE,
    },
    bright_on_dark=("digits", "mnist", "fashion_mnist"),
)

if __name__ == "__main__":
    run.main(EXPERIMENT)
