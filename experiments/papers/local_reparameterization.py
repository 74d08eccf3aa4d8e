"""Local reparameterisation and variational dropout on MNIST: less noise in gradients.

  python -m experiments.papers.local_reparameterization --data_dir=DIR
      the variance of the gradient: table 1, about half an hour on 2 cores.
  python -m experiments.papers.local_reparameterization --data_dir=DIR --variances=False --errors
      test errors of a small network: figure 1, about as long.

Source: Kingma, Salimans, Welling 2015 (arXiv 1506.02557), table 1 and figure 1. Three hidden ReLU
layers, Adam, alpha from the rates 0.2 for the input and 0.5 for hidden units.

Table 1: the variance of the first (bottom) and last (top) layer's gradient, with noise that is
drawn on outputs (local), on weights for each example (separate) or for the batch (single), and
without noise. The ratios are 1.8 to 2.3 (separate to local) and 3.0 to 6.3 (single to local). The
one independent replication found the same order, other magnitudes. Gradients are those of batches
of 1000, as in the paper: with one noise for all, only a part of their variance falls with the
batch, so that in batches of 200 "single" is no worse than "separate" yet. Ours has 500 units, and
the noise of Gaussian dropout at fixed alpha.

Figure 1, 100 units a layer: 1.42 % error with learned alpha (variational, type A), 2.40 % with the
same noise at a fixed alpha, 1.44 % without dropout.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax.core.draw import CLEAN, sampled
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.evaluate.predict import map_examples
from dropjax.ops.gaussian import Normal, multiply
from dropjax.ops.keys import derive
from dropjax.schemes import Rate
from dropjax.schemes.variational_gaussian import VariationalGaussian
from dropjax.train import Problem, fit
from dropjax.train.objectives import classification
from experiments.papers import common
from experiments.papers.common import Target

Array = jax.Array
Data = tuple[np.ndarray, np.ndarray]

BATCH = 200  # of training
PART = 100
FIRST = common.layer_name(0)


@scheme
class WeightNoise(Scheme):
    """Gaussian noise on the weights themselves: what local reparameterisation stands for."""

    rate: Rate = 0.5
    draws: Literal["step", "example"] = "example"

    acts_on: ClassVar = frozenset({Kind.LINEAR})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Normal:
        return Normal.of(keys.step if self.draws == "step" else keys.example, shape)

    def apply(self, noise: Normal, x: Array, site: Site, fallback: Array | None) -> Array:
        return multiply(noise, x, self.rate)


@scheme
class Frozen(VariationalGaussian):
    """The noise of variational dropout with an alpha that stays, and so without its penalty."""

    learned: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    def trained(self, updates: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, updates)

    def penalty_at(self, site: Site, shape: tuple[int, ...], w: Array | None) -> Array:
        return jnp.zeros(())


def by_depth(make: Callable[[float, str], Scheme]) -> Scheme:
    """A scheme with rate 0.2 on the first layer's weights and 0.5 on the others'."""
    return Chain((make(0.2, f"^{FIRST}"), make(0.5, f"^(?!{FIRST})")))


FIXED = by_depth(lambda rate, at: Frozen(initial=rate, at=at))
SCHEMES = {
    "none": Chain(),
    "local": FIXED,
    "separate": by_depth(lambda rate, at: WeightNoise(rate=rate, at=at)),
    "single": by_depth(lambda rate, at: WeightNoise(rate=rate, draws="step", at=at)),
}
LEARNED = by_depth(lambda rate, at: VariationalGaussian(initial=rate, at=at))


def train(
    training: Data, scheme: Scheme, *, width: int, epochs: int, seed: int
) -> tuple[common.Params, Any]:
    """A trained network's parameters and what its scheme has learned."""
    key = jax.random.key(seed)
    init = jax.nn.initializers.he_normal()
    sizes = [int(np.prod(training[0].shape[1:])), width, width, width, 10]
    params = common.dense_params(derive(key, "weights"), sizes, init)
    problem = Problem(common.network, classification, scheme, optax.adam(1e-3))
    fitted = fit(
        problem, params, *training, key=derive(key, "run"), epochs=epochs, batch_size=BATCH
    )
    return fitted.params, fitted.learned


def gradient_variances(
    params: common.Params, scheme: Scheme, training: Data, *, batch: int, draws: int, seed: int
) -> dict[str, float]:
    """The mean variance of a batch's gradient, of the likelihood of all the training data.

    Args:
      params: of the network.
      scheme: with its learned values bound.
      training: what batches are drawn from.
      batch: examples in each, a multiple of 100 or less.
      draws: gradients, each of another batch and other noise.
      seed: of both, the same for all schemes.
    """
    x, y = (jnp.asarray(part) for part in training)
    total = len(y)

    def loss(params: common.Params, rows: Array, key: Array) -> Array:
        def one(row: Array) -> Array:
            draw = sampled(scheme, Keys.of(key, row))
            return classification(common.network(params, x[row], draw), y[row])["loss"]

        return total / batch * jnp.sum(jax.vmap(one)(rows))

    @jax.jit
    def ends(number: Array) -> tuple[Array, Array]:
        key = derive(jax.random.key(seed), "gradients", number)
        rows = jax.random.randint(derive(key, "rows"), (batch,), 0, total)
        noise = derive(key, "noise")
        # A part of the batch at a time: weights of its own for each example need much memory.
        parts = rows.reshape(-1, min(batch, PART))
        gradient = jax.tree.map(jnp.zeros_like, params)
        gradient, _ = jax.lax.scan(
            lambda sums, part: (
                jax.tree.map(jnp.add, sums, jax.grad(loss)(params, part, noise)),
                None,
            ),
            gradient,
            parts,
        )
        return gradient[0]["w"], gradient[-1]["w"]

    sums = None
    for number in range(draws):
        now = [np.asarray(g, np.float64) for g in ends(jnp.uint32(number))]
        parts = [np.stack([g, g**2]) for g in now]
        sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
    assert sums is not None
    bottom, top = (
        float(np.mean(square / draws - (mean / draws) ** 2) * draws / (draws - 1))
        for mean, square in sums
    )
    return {"bottom": bottom, "top": top}


def measure_variances(
    training: Data, *, width: int, epochs: int, batch: int, draws: int, seed: int
) -> list[Target]:
    """Table 1."""
    params, learned = train(training, FIXED, width=width, epochs=epochs, seed=seed)
    found = {}
    for name, noise in SCHEMES.items():
        bound = noise.bind(learned) if noise.learns else noise
        found[name] = gradient_variances(
            params, bound, training, batch=batch, draws=draws, seed=seed
        )
        print(f"{name}: " + ", ".join(f"{k} {v:.3g}" for k, v in found[name].items()), flush=True)
    made = []
    for end, separate, single in (
        ("top", "1.8 to 2.2", "3.6 to 6.3"),
        ("bottom", "2.3", "3 to 4.5"),
    ):
        local, order = found["local"][end], [of[end] for of in found.values()]
        rises = all(a < b for a, b in itertools.pairwise(order))
        made += [
            common.holds(f"{end} layer, none < local < separate < single", "it is", rises),
            Target(
                f"{end} layer, separate / local", separate, 1.5, 3, found["separate"][end] / local
            ),
            Target(f"{end} layer, single / local", single, 2.5, 7, found["single"][end] / local),
        ]
    return made


def measure_errors(
    training: Data, testing: Data, *, width: int, epochs: int, seed: int
) -> list[Target]:
    """Figure 1 at its smallest width."""
    found = {}
    for name, of in {"none": Chain(), "fixed": FIXED, "variational": LEARNED}.items():
        params, _ = train(training, of, width=width, epochs=epochs, seed=seed)
        # Deterministic, and so the plain network under each of them.
        logits = map_examples(
            lambda params, x: common.network(params, x, CLEAN), params, testing[0]
        )
        found[name] = 100 * float(np.mean(np.argmax(np.asarray(logits), axis=1) != testing[1]))
        print(f"{name}: {found[name]:.2f} % error", flush=True)
    return [
        Target(
            "variational / fixed alpha, errors",
            "1.42 / 2.40",
            -math.inf,
            0.75,
            found["variational"] / found["fixed"],
        ),
        Target(
            "variational / no dropout, errors",
            "1.42 / 1.44",
            0.9,
            1.1,
            found["variational"] / found["none"],
        ),
    ]


def targets(
    *,
    data_dir: str | None = None,
    variances: bool = True,
    width: int = 500,
    epochs: int = 10,
    batch: int = 1000,
    draws: int = 100,
    errors: bool = False,
    small_width: int = 100,
    small_epochs: int = 100,
    examples: int | None = None,
    seed: int = 0,
) -> list[Target]:
    """Measures variances, errors or both.

    Args:
      data_dir: the folder of MNIST's files; they are downloaded without it.
      variances: measure the variances of table 1.
      width: hidden units for table 1.
      epochs: passes over the data before variances are measured.
      batch: examples that a gradient is taken of, a multiple of 100 or less.
      draws: gradients that a variance is taken of.
      errors: measure the errors of figure 1.
      small_width: hidden units for figure 1.
      small_epochs: passes over the data for figure 1.
      examples: train on the first so many only.
      seed: of weights, data order and noise.
    """
    if batch < 1 or (batch > PART and batch % PART):
        raise ValueError(f"batch must be a multiple of {PART}, or less; got {batch}")
    training, testing = common.mnist(data_dir)
    training = common.shorten(training, examples)
    found = []
    if variances:
        found += measure_variances(
            training, width=width, epochs=epochs, batch=batch, draws=draws, seed=seed
        )
    if errors:
        found += measure_errors(
            training, testing, width=small_width, epochs=small_epochs, seed=seed
        )
    return found


if __name__ == "__main__":
    common.main(targets)
