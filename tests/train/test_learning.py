"""Dropout does what it is for: on a small problem no dropout overfits, and dropout does so less."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax import evaluate, models
from dropjax.core import plan
from dropjax.core.draw import CLEAN, deterministic
from dropjax.schemes import parse
from dropjax.train import Examples, Problem, Program, chunks

INPUTS, TRAIN, TEST = 20, 40, 1000


def data():
    """A linear target of 3 of 20 inputs with noise of variance 0.25, and few examples of it."""
    key = jax.random.key(0)
    x = jax.random.normal(jax.random.fold_in(key, 0), (TRAIN + TEST, INPUTS))
    noise = 0.5 * jax.random.normal(jax.random.fold_in(key, 1), (TRAIN + TEST,))
    y = x[:, :3].sum(axis=1) + noise
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def train_and_test_error(text: str, seed: int) -> list[float]:
    x, y, x_test, y_test = data()
    model, scheme = models.parse("mlp(widths=(100,))", outputs=1), parse(text)

    def apply(params, x, draw):
        return model.apply({"params": params}, x, draw)[0]

    def metrics(output, y):
        return {"loss": (output - y) ** 2}

    key = jax.random.key(seed)
    params = model.init(key, x[0], CLEAN)["params"]
    sites = plan.record(lambda draw: apply(params, x[0], draw))
    problem = Problem(apply, metrics, scheme, optax.adam(1e-2), sites)
    program = Program(problem, Examples(x, y), key=key, batch_size=20, devices=jax.devices()[:1])
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
        *_, last = chunks(program, program.init(params), epochs=300)

    def predict(params, x):
        return apply(params, x, deterministic(scheme))

    trained = last.state.params["params"]
    return [
        float(jnp.mean((evaluate.map_examples(predict, trained, inputs) - targets) ** 2))
        for inputs, targets in ((x, y), (x_test, y_test))
    ]


def test_dropout_narrows_the_gap_between_training_and_test():
    plain = np.array([train_and_test_error("none", seed) for seed in range(3)])
    dropped = np.array([train_and_test_error("bernoulli(rate=0.5)", seed) for seed in range(3)])
    assert (plain[:, 0] < 0.01).all(), "the network can fit its training data, noise and all"
    assert (plain[:, 1] > 0.8).all(), "and overfits it: the noise alone is 0.25"
    assert (dropped[:, 0] > plain[:, 0]).all(), "dropout fits its training data less"
    assert (dropped[:, 1] < 0.85 * plain[:, 1]).all(), "and is better on new data, seed by seed"
