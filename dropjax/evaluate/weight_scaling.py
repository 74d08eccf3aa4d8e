"""Weight scaling: test-time weights for a network trained with dropout that was not rescaled."""

from typing import Any

import jax
from jax.typing import ArrayLike

from dropjax.ops.bernoulli import expected_drop
from dropjax.ops.checks import check_floating
from dropjax.ops.trees import map_matching

Array = jax.Array


def weight_scaling(params: Any, rate: ArrayLike, *, match: str) -> Any:
    """The weights that read dropped units, multiplied by 1 - rate.

    For networks trained with the original dropout, which leaves scaling to test time, as
    `dropjax.dropout(..., scaling="test")` does; one trained with the default, which divides by
    1 - rate in training, is ready as it is. With `params` scaled the network without dropout is
    what `dropjax.core.draw.deterministic` makes of the unscaled one.

    For a single softmax layer this is exact in one sense: it gives the geometric mean, normalised,
    of the predictions under all masks, each weighted by its probability. For deeper networks it is
    an approximation; see `monte_carlo` and `moments`.

    Args:
      params: a tree of arrays, the parameters of a network of any framework.
      rate: the rate that the units were dropped at, in [0, 1].
      match: a regular expression that is searched for in paths such as "head/kernel". It has to
        find the kernels of the layers after dropout, and neither their biases nor the first layer,
        unless its input is dropped. Call once for each rate.

    Returns:
      The tree with the matching leaves scaled, all others untouched.

    Raises:
      TypeError: a matching leaf holds no floats.
      ValueError: match is no regular expression, or no path matches; rate outside [0, 1].

    Cost: no random bits; about that of reading the matching leaves and writing them, once. Nothing
      but the rate is kept for the backward pass.

    Source: Srivastava et al. 2014 (JMLR 15), section 4 and figure 2; for the geometric mean
      Goodfellow, Warde-Farley et al. 2013, "Maxout Networks" (arXiv 1302.4389), section 3.

    Example:
      >>> import jax.numpy as jnp
      >>> from dropjax.evaluate import weight_scaling
      >>> params = {"head": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}}
      >>> weight_scaling(params, 0.25, match="head/kernel")["head"]["kernel"]
      Array([0.75, 0.75], dtype=float32)
    """

    def scaled(path: str, leaf: Any) -> Array:
        return expected_drop(check_floating(leaf, path or "params"), rate, "test")

    return map_matching(scaled, params, match)
