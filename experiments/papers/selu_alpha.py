"""Alpha dropout in a deep SELU network keeps mean 0 and variance 1; plain dropout does not.

  python -m experiments.papers.selu_alpha

Source: Klambauer, Unterthiner, Mayr, Hochreiter 2017 (arXiv 1706.02515), "New Dropout Technique":
32 layers of 784 SELU units, LeCun-normal weights, inputs of mean 0 and variance 1, rate 0.1. No
training: a few seconds.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("selu_alpha", "nothing is kept")

import math

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core.draw import Draw, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.ops.keys import derive
from dropjax.schemes import Scheme, parse
from experiments.papers import common
from experiments.papers.common import Target

Array = jax.Array


def apply(params: common.Params, x: Array, draw: Draw) -> Array:
    """SELU layers, each with a HIDDEN site, the last one too."""
    for i, weights in enumerate(params):
        x = jax.nn.selu(common.layer(weights, x, draw, common.layer_name(i)))
        x = draw(x, Site(f"layer_{i}/hidden", Kind.HIDDEN, ("feature",)))
    return x


def moments(
    scheme: Scheme, *, depth: int, width: int, examples: int, seed: int
) -> tuple[float, float]:
    """Mean and variance of the last layer's outputs, over units and examples."""
    key = jax.random.key(seed)
    init = jax.nn.initializers.lecun_normal()
    params = common.dense_params(derive(key, "weights"), [width] * (depth + 1), init)
    x = jax.random.normal(derive(key, "inputs"), (examples, width))

    @jax.jit
    def outputs(params: common.Params) -> Array:
        def one(row: Array, x: Array) -> Array:
            return apply(params, x, sampled(scheme, Keys.of(derive(key, "noise"), row)))

        return jax.vmap(one)(jnp.arange(examples), x)

    last = np.asarray(outputs(params), np.float64)
    return float(last.mean()), float(last.var())


def targets(
    *, depth: int = 32, width: int = 784, examples: int = 500, rate: float = 0.1, seed: int = 0
) -> list[Target]:
    """Compares alpha dropout with plain dropout.

    Args:
      depth: layers.
      width: units of each layer.
      examples: number of inputs, which are random.
      rate: of both schemes.
      seed: of inputs, weights and noise.
    """
    results = {}
    for name in ("alpha", "bernoulli"):
        scheme = parse(f"{name}(rate={rate})")
        results[name] = moments(scheme, depth=depth, width=width, examples=examples, seed=seed)
        print(f"{name}: mean {results[name][0]:.3f}, variance {results[name][1]:.3f}", flush=True)
    (mean, variance), (plain_mean, plain_variance) = results.values()
    drifts = plain_variance > 1.3 or abs(plain_mean) > 0.1
    return [
        Target("alpha dropout, |mean|", "0", -math.inf, 0.1, abs(mean)),
        Target("alpha dropout, variance", "1", 0.8, 1.2, variance),
        common.holds("plain dropout drifts: variance above 1.3 or |mean| above 0.1", "yes", drifts),
    ]


if __name__ == "__main__":
    common.main(targets)
