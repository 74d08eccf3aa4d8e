"""Stochastic depth, or drop path: drops whole residual branches.

Source: Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep Networks with Stochastic Depth"
(arXiv 1603.09382), section 3: the l-th of L branches is dropped at rate l / L of the last one's.

Differs: each example has a decision of its own, and what is kept is scaled in training, as vision
transformers have it; the paper drops a branch for the whole batch, which is `mode="batch"`, and
scales at test time, which is `scaling="test"`. To leave out its computation too there is
`dropjax.blocks.stochastic_depth`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import Mask, drop
from dropjax.ops.checks import as_rate, check_choice, check_floating, normalize_axes
from dropjax.schemes.bernoulli import dropout
from dropjax.schemes.bernoulli import expected as expected_dropout

Array = jax.Array

SCALINGS = ("train", "test", "none")


def drop_path(
    key: Array,
    x: ArrayLike,
    rate: ArrayLike,
    *,
    batch_axes: int | Sequence[int],
    scaling: Literal["train", "test", "none"] = "train",
) -> Array:
    """Drops the residual branch x of each example with probability `rate`.

    Args:
      key: PRNG key, typed or raw.
      x: the branch before it is added, floats of any shape.
      rate: probability of dropping, in [0, 1]; may be traced, or an array that broadcasts to the
        mask, which has size 1 along all but the batch axes. Typical: 0.5 for the last of many
        branches, growing linearly from 0.
      batch_axes: the axes that hold examples, 0 for an ordinary batch; () for a single example,
        under `jax.vmap` over keys. It has no default, as a wrong guess would not be noticed.
      scaling: "train" divides what is kept by 1 - rate; "test" does not, and
        `dropjax.expected.drop_path` multiplies by 1 - rate instead; "none" does neither, as in
        normaliser-free networks (Brock et al. 2021, arXiv 2102.06171), so that branches are
        larger in evaluation than on average in training.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no floats, or key is no PRNG key.
      ValueError: rate outside [0, 1] or of a shape that does not fit; a wrong axis or scaling.

    Cost: 32 random bits an example; about the time of reading x and writing the result: the branch
      has been computed. 8 bytes a key are kept for the backward pass, which draws the mask again.

    Source: Huang et al. 2016, section 3; one decision an example: Larsson et al. 2017 (arXiv
      1605.07648).

    Example:
      >>> import jax, jax.numpy as jnp, dropjax
      >>> dropjax.drop_path(jax.random.key(0), jnp.ones((3, 2)), 0.5, batch_axes=0)
      Array([[0., 0.],
             [0., 0.],
             [2., 2.]], dtype=float32)
    """
    x = check_floating(x)
    check_choice(scaling, SCALINGS, "scaling")
    own = normalize_axes(batch_axes, x.ndim, "batch_axes")
    shared = [axis for axis in range(x.ndim) if axis not in own]
    in_training = "train" if scaling == "train" else "test"
    return dropout(key, x, rate, shared_axes=shared, scaling=in_training)


def expected(
    x: ArrayLike, rate: ArrayLike, *, scaling: Literal["train", "test", "none"] = "train"
) -> Array:
    """What stands for `drop_path` in evaluation: x, or (1 - rate) * x if scaling is "test".

    It is the exact expectation, 0 at rate 1, except if scaling is "none": then it is x.

    Args:
      x: floats of any shape.
      rate: probability of dropping, in [0, 1].
      scaling: as `drop_path` was called.

    Returns:
      An array of the shape and dtype of x.

    Raises:
      TypeError: x holds no floats.
      ValueError: rate outside [0, 1]; a wrong scaling.

    Cost: no random bits; at most a product an element. Nothing but the rate is kept for the
      backward pass.
    """
    check_choice(scaling, SCALINGS, "scaling")
    if scaling == "none":
        x = check_floating(x)
        as_rate(rate, x.shape)
        return x
    return expected_dropout(x, rate, scaling=scaling)


@scheme
class StochasticDepth(Scheme):
    """Drops residual branches, deeper ones more often.

    Args:
      rate: the probability of dropping a branch, in [0, 1]; with `rule="linear"` that of the last
        branch.
      rule: "linear", the rate grows with depth from near 0 to `rate`; "constant", all branches have
        `rate`.
      mode: "example", one decision for each example; "batch", one for the whole batch of a step.
      scaling: "train" divides what is kept by 1 - rate, in training; "test" multiplies by 1 - rate
        in evaluation instead; "none" does neither.
    """

    rate: Rate = 0.5
    rule: Literal["linear", "constant"] = "linear"
    mode: Literal["example", "batch"] = "example"
    scaling: Literal["train", "test", "none"] = "train"

    acts_on: ClassVar = frozenset({Kind.BRANCH})
    made_for: ClassVar = "cnn(residual=True)"

    def rates_at(self, site: Site) -> dict[str, Any]:
        return {"rate": self._rate(site)}

    @property
    def expected_is_mean(self) -> bool:  # type: ignore[reportIncompatibleVariableOverride]
        return self.scaling != "none"

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Mask:
        key = keys.step if self.mode == "batch" else keys.example
        return Mask.of(key, self._rate(site), [1] * len(shape))

    def apply(self, noise: Mask, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self._rate(site), "train" if self.scaling == "train" else "test")

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected(x, self._rate(site), scaling=self.scaling)

    def _rate(self, site: Site) -> Any:
        return self.rate * site.depth if self.rule == "linear" else self.rate
