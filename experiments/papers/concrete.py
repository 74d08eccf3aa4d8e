"""Concrete dropout on a line with noise: the fewer the examples, the higher the learned rates.

  python -m experiments.papers.concrete

Source: Gal, Hron, Kendall 2017 (arXiv 1705.07832), section 4.1, as in the authors' notebooks:
y = 2 x + 8 + e with x and e from N(0, 1); three hidden layers of 1024 ReLU units, and a head each
for the mean and the logarithm of the variance of y; concrete dropout before all five dense layers,
from rate 0.1; length scale 1e-4; Adam at 1e-3, batches of 20; 2000, 1000, 500, 200, 20 and 2
epochs for 10, 25, 50, 100, 1000 and 10000 examples.

The targets are the rates of the layers with 1024 inputs in the authors' Keras notebook. Their
PyTorch notebook agrees to 0.001 for up to 100 examples. The rates agree so well because they have
not converged: the entropy of 1024 masks pulls so hard that Adam moves the logit of each rate by
almost the learning rate in every step. So the rates count the updates. `--times=20` trains 20 times
as long and has no targets.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("concrete", "nothing is kept")

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax.core.draw import Draw, sampled
from dropjax.evaluate.predict import monte_carlo
from dropjax.ops.keys import derive
from dropjax.schemes import Scheme, parse
from dropjax.train import Problem, fit
from experiments.papers import common
from experiments.papers.common import Target

Array = jax.Array

EPOCHS = {10: 2000, 25: 1000, 50: 500, 100: 200, 1000: 20, 10000: 2}
KERAS = {
    10: (0.4038, 0.4036, 0.4035, 0.4039),
    25: (0.4036, 0.4034, 0.4031, 0.4039),
    50: (0.3256, 0.3255, 0.3253, 0.3259),
    100: (0.2360, 0.2359, 0.2358, 0.2363),
    1000: (0.2306, 0.2249, 0.2243, 0.2334),
    10000: (0.137, 0.127, 0.112, 0.169),
}
TOLERANCES = {1000: 0.02, 10000: 0.03}
TOLERANCE = 0.003  # where there are fewer examples
HEADS = ("mean", "log_variance")
SITES = [*map(common.layer_name, range(3)), *(f"{head}/linear" for head in HEADS)]


def apply(params: dict[str, common.Params], x: Array, draw: Draw) -> Array:
    """(mean, logarithm of the variance) of y at x (1,)."""
    for i, layer in enumerate(params["hidden"]):
        x = jax.nn.relu(common.layer(layer, x, draw, common.layer_name(i)))
    heads = [
        common.layer(layer, x, draw, f"{head}/linear")
        for head, layer in zip(HEADS, params["heads"], strict=True)
    ]
    return jnp.concatenate(heads)


def loss(outputs: Array, y: Array) -> dict[str, Array]:
    """Twice the negative log-likelihood, less a constant. So the penalty counts twice too."""
    mean, log_variance = outputs
    return {"loss": jnp.exp(-log_variance) * jnp.square(y - mean) + log_variance}


def noisy(both: tuple[dict[str, common.Params], Scheme], x: Array, key: Array) -> Array:
    params, scheme = both
    return apply(params, x, sampled(scheme, key))


def line(rng: np.random.Generator, examples: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(examples, 1)).astype(np.float32)
    noise = rng.normal(size=examples).astype(np.float32)
    return x, 2 * x[:, 0] + 8 + noise


def train(examples: int, *, width: int, epochs: int, seed: int) -> dict[str, float]:
    """The learned rates by site, and the standard deviations of the noise and between draws."""
    rng = np.random.default_rng([seed, examples])
    x, y = line(rng, examples)
    key = derive(jax.random.key(seed), examples)
    weights = derive(key, "weights")
    params = {
        "hidden": common.dense_params(derive(weights, "hidden"), [1, width, width, width]),
        "heads": [common.dense_params(derive(weights, head), [width, 1])[0] for head in HEADS],
    }
    scheme = parse("concrete(initial=0.1,temperature=0.1,length_scale=0.0001)")
    problem = Problem(apply, loss, scheme, optax.adam(1e-3), penalty=2.0)
    fitted = fit(problem, params, x, y, key=derive(key, "run"), epochs=epochs, batch_size=20)
    rates = {site: float(jax.nn.sigmoid(v["logit"])) for site, v in fitted.learned.items()}
    tests, _ = line(rng, 1000)
    both = (fitted.params, scheme.bind(fitted.learned))
    mean, spread = monte_carlo(noisy, both, tests, derive(key, "test"), samples=20)
    return rates | {
        "aleatoric": float(jnp.sqrt(jnp.mean(jnp.exp(mean[:, 1])))),
        "epistemic": float(jnp.sqrt(jnp.mean(jnp.square(spread[:, 0])))),
    }


def targets(
    *,
    examples: tuple[int, ...] = (10, 50, 100),
    times: float = 1.0,
    width: int = 1024,
    seed: int = 0,
) -> list[Target]:
    """Trains once for each size of the training set.

    Args:
      examples: sizes of the training set.
      times: multiplies the authors' epochs; the rates have targets for 1 only.
      width: units of the hidden layers.
      seed: of the data, weights, data order and noise.
    """
    unknown = [size for size in examples if size not in EPOCHS]
    if unknown:
        raise ValueError(f"examples must be of {', '.join(map(str, EPOCHS))}; got {unknown}")
    results = {}
    for size in sorted(examples):
        epochs = max(1, round(EPOCHS[size] * times))
        results[size] = train(size, width=width, epochs=epochs, seed=seed)
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in results[size].items())
        print(f"{size} examples, {epochs} epochs: {numbers}", flush=True)
    noise = [
        Target(f"{size} examples, noise's std", "1", 0.9, 1.4, result["aleatoric"])
        for size, result in results.items()
    ]
    return [*(_rates(results) if times == 1 else []), *noise]


def _rates(results: dict[int, dict[str, float]]) -> list[Target]:
    judged = []
    for size, rates in results.items():
        tolerance = TOLERANCES.get(size, TOLERANCE)
        for site, published in zip(SITES[1:], KERAS[size], strict=True):
            name = f"{size} examples, rate of {site}"
            judged.append(common.near(name, published, tolerance, rates[site]))
    means = [math.fsum(rates[site] for site in SITES[1:]) for rates in results.values()]
    if len(means) > 1:
        falls = all(a > b for a, b in itertools.pairwise(means))
        judged.append(common.holds("rates fall with the examples", "they do", falls))
    return judged


if __name__ == "__main__":
    common.main(targets)
