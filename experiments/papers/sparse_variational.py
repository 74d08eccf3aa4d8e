"""Sparse variational dropout on MNIST: nearly all weights of a network vanish.

  python -m experiments.papers.sparse_variational --data_dir=DIR

Source: Molchanov, Ashukha, Vetrov 2017 (arXiv 1701.05369), section 5.1, table 1, LeNet-300-100:
1.92 % error with 68 times fewer weights (1.64 % dense); 98.9, 97.2 and 62.0 % of the layers'
weights are 0. Protocol of the authors' code: Adam, batches of 100, 200 epochs, learning rate 1e-3
for half of them, then linearly to 0; weights from N(0, 0.01**2), log sigma**2 from -10; the
penalty's weight 0 for 5 epochs, then linearly to 1 at epoch 20; all 60,000 training images. With
fewer --epochs that warm-up is shortened in proportion.

A control trains without the penalty, for --control_epochs; most of its weights must stay. It prunes
after training only. The protocol prunes in training too: then a small weight that noise carries
over the threshold once has no gradient any more, and half of the weights, which start small, end at
0 even without the penalty (51, 37 and 17 % of the layers' weights after 20 epochs).
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("sparse_variational", "nothing is kept")

import itertools
import math

import jax
import numpy as np
import optax

from dropjax.core.draw import deterministic
from dropjax.evaluate import accuracy, map_examples
from dropjax.ops.keys import derive
from dropjax.schemes import parse
from dropjax.schemes.sparse_variational import prune
from dropjax.train import Examples, Problem, Program, State, chunks
from dropjax.train.objectives import classification
from experiments.papers import common
from experiments.papers.common import Target

Array = jax.Array

BATCH = 100
NEVER = 9.0  # log alpha is kept between -8 and 8


def train(
    train_data: tuple[np.ndarray, np.ndarray],
    test_data: tuple[np.ndarray, np.ndarray],
    *,
    widths: tuple[int, ...],
    epochs: int,
    penalty: bool,
    seed: int,
    threshold: float = 3.0,
) -> dict[str, float]:
    """Trains, and returns the test error in %, the sparsity of each layer and the compression.

    Sparsity and compression are those of weights pruned at 3, whatever the threshold of training.
    """
    x, y = train_data
    key = jax.random.key(seed)
    scheme = parse(f"sparse_variational(threshold={threshold})")
    sizes = [int(np.prod(x.shape[1:])), *widths, 10]
    init = jax.nn.initializers.normal(0.01)
    params = common.dense_params(derive(key, "weights"), sizes, init)
    steps = epochs * -(-len(x) // BATCH)
    warm, full = round(steps * 5 / 200), round(steps * 20 / 200)
    ramp = optax.join_schedules(
        [optax.constant_schedule(0.0), optax.linear_schedule(0.0, 1.0, full - warm)], [warm]
    )
    rate = optax.join_schedules(
        [optax.constant_schedule(1e-3), optax.linear_schedule(1e-3, 0.0, steps - steps // 2)],
        [steps // 2],
    )
    problem = Problem(
        common.network, classification, scheme, optax.adam(rate), penalty=ramp if penalty else 0.0
    )
    program = Program(problem, Examples(x, y), key=derive(key, "run"), batch_size=BATCH)
    state = program.init(params)
    for chunk in chunks(program, state, epochs=epochs):
        state = chunk.state
        done = chunk.epoch + 1
        if chunk.ends_epoch and (done % 10 == 0 or done == epochs):
            _say(done, epochs, program, state)
    trained, learned = state.trained.params, state.trained.learned
    bound = scheme.bind(learned)
    logits = map_examples(
        lambda both, x: common.network(both[0], x, deterministic(both[1])),
        (trained, bound),
        test_data[0],
    )
    pruned = [
        prune(layer["w"], learned[common.layer_name(i)]["log_sigma2"])
        for i, layer in enumerate(trained)
    ]
    sparsity = [float(np.mean(np.asarray(w) == 0)) for w in pruned]
    weights = [layer["w"].size for layer in trained]
    left = sum(n * (1 - s) for n, s in zip(weights, sparsity, strict=True))
    return {
        "error": 100 * (1 - accuracy(logits, test_data[1])),
        "compression": sum(weights) / max(left, 1.0),
        "sparsity": 100 * (1 - left / sum(weights)),
        **{f"layer {i}": 100 * s for i, s in enumerate(sparsity)},
    }


def _say(epoch: int, epochs: int, program: Program, state: State) -> None:
    means = state.means()
    sparse = ", ".join(f"{100 * n['sparsity']:.1f}" for n in program.report(state).values())
    print(
        f"epoch {epoch}/{epochs}: loss {means['loss']:.4f}, accuracy {means['accuracy']:.4f}, "
        f"sparsity {sparse} %",
        flush=True,
    )


def targets(
    *,
    data_dir: str | None = None,
    epochs: int = 200,
    control_epochs: int = 20,
    examples: int | None = None,
    widths: tuple[int, ...] = (300, 100),
    seed: int = 0,
) -> list[Target]:
    """Trains with the penalty, and without it as a control.

    Args:
      data_dir: the folder of MNIST's files; without it they are downloaded.
      epochs: passes over the data.
      control_epochs: passes over the data without the penalty.
      examples: train on this many examples, the first ones; all by default.
      widths: units of the hidden layers.
      seed: of weights, data order and noise.
    """
    training, testing = common.mnist(data_dir, scale=256.0, centred=True)
    training = common.shorten(training, examples)
    same = {"widths": widths, "seed": seed}
    control = train(
        training, testing, epochs=control_epochs, penalty=False, threshold=NEVER, **same
    )
    result = train(training, testing, epochs=epochs, penalty=True, **same)
    print({name: round(value, 2) for name, value in result.items()})
    layers = [result[f"layer {i}"] for i in range(len(widths) + 1)]
    falls = all(a > b for a, b in itertools.pairwise(layers))
    return [
        Target("test error, %", "1.92", -math.inf, 2.1, result["error"]),
        Target("compression", "68", 50, math.inf, result["compression"]),
        common.holds("sparsity falls from layer to layer", "98.9, 97.2, 62.0 %", falls),
        Target("without the penalty, % of weights 0", "few", -math.inf, 20, control["sparsity"]),
    ]


if __name__ == "__main__":
    common.main(targets)
