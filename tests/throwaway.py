"""Schemes that exist only to prove that the frame holds them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from dropjax.core.keys import Keys
from dropjax.core.scheme import Learned, Rate, Scheme, dense, scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import drop, expected_drop, keep_mask
from dropjax.ops.keys import derive

Array = jax.Array


@scheme
class LearnedRate(Learned):
    """Units scaled by 1 +- a learned spread; the penalty pulls each site's spread up."""

    rate: Rate = 0.1
    weight: float = 1.0
    learned: dict[str, Any] | None = None

    acts_on: ClassVar = frozenset({Kind.HIDDEN})
    can_act_on: ClassVar = frozenset({Kind.INPUT})

    def init(
        self, key: Array, site: Site, shape: tuple[int, ...], w: Array | None
    ) -> dict[str, Array]:
        return {"logit": jnp.full((), -2.0) + 0.01 * jax.random.normal(key)}

    def penalty_at(self, site: Site, shape: tuple[int, ...], w: Array | None) -> Array:
        return -self.weight * jax.nn.sigmoid(self.at_site(site)["logit"])

    def report_at(self, site: Site, w: Array | None) -> dict[str, Array]:
        return {"spread": jax.nn.sigmoid(self.at_site(site)["logit"])}

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        spread = self.rate * jax.nn.sigmoid(self.at_site(site)["logit"])
        return 1 + spread * jax.random.rademacher(keys.example, tuple(shape), jnp.float32)

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return (x.astype(jnp.float32) * noise).astype(x.dtype)


@scheme
class KeptRate(LearnedRate):
    """As `LearnedRate`, but what it has learned is only kept, never trained."""

    learned: dict[str, Any] | None = None

    def trained(self, updates: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, updates)


@scheme
class FailsInTraining(LearnedRate):
    """A mistake that is noticed late: its penalty cannot be computed."""

    learned: dict[str, Any] | None = None

    def penalty_at(self, site: Site, shape: tuple[int, ...], w: Array | None) -> Array:
        raise RuntimeError("no penalty\nand more about it")


@scheme
class WrongShape(Scheme):
    """A mistake: its mask does not fit the value."""

    rate: Rate = 0.1

    acts_on: ClassVar = frozenset({Kind.HIDDEN})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        return jnp.ones((7,))

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return x * noise


@scheme
class PreActivation(Scheme):
    """Gaussian noise on pre-activations with the variance of dropped weights."""

    rate: Rate = 0.2

    acts_on: ClassVar = frozenset({Kind.LINEAR})

    def noise_shape(self, site: Site, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[-1],)

    def linear(self, keys: Keys, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        mean = dense(x, w, b)
        alpha = self.rate / (1 - self.rate)
        variance = jnp.square(x) @ jnp.square(w)
        noise = jax.random.normal(keys.example, mean.shape, mean.dtype)
        return mean + jnp.sqrt(alpha * variance + 1e-12) * noise


@scheme
class WholeBatch(Scheme):
    """Drops a whole site for all examples of a step."""

    rate: Rate = 0.5

    acts_on: ClassVar = frozenset({Kind.HIDDEN})

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Array:
        return keep_mask(derive(keys.step, "all"), self.rate, [1] * len(shape))

    def apply(self, noise: Array, x: Array, site: Site, fallback: Array | None) -> Array:
        return drop(noise, x, self.rate)

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        return expected_drop(x, self.rate)
