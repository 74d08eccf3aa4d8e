"""A scheme at one place of a model that knows nothing of sites: for the layers of frameworks."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Self

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dropjax.core.keys import Keys
from dropjax.core.scheme import Learned, Scheme
from dropjax.core.site import Kind, Site
from dropjax.core.spec import parse
from dropjax.ops.bits import sharding_like
from dropjax.ops.checks import check_floating

Array = jax.Array

# What a value in the middle of a model can be taken for; the first that the scheme takes.
_KINDS = (
    *(Kind.HIDDEN, Kind.FEATURE_MAP, Kind.INPUT, Kind.EMBED, Kind.BRANCH, Kind.ATTENTION),
    *(Kind.RECURRENT, Kind.UPDATE, Kind.READOUT, Kind.HEADS, Kind.TOKENS),
)
_AXES = ("time", "depth", "height", "width", "feature", "gate", "head", "query", "key")
_NEEDS = {
    Kind.STATE: "the previous state; in your cell call dropjax.zoneout(key, x, rate, previous=...)",
    Kind.LAYER: "what the layer was given; call dropjax.layer_drop(key, x, rate, previous=...)",
    Kind.LINEAR: "weights; call dropjax.dropconnect(key, w, rate) where the layer uses them",
    Kind.WEIGHT: "weights; call dropjax.weight_drop(key, params, rate, match=...) before the model",
    Kind.TABLE: "the table; call dropjax.embedding_dropout(key, w, rate) before looking up tokens",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """One place and what happens there. Made by `of`.

    Args:
      links: each link of the scheme with the site that it is shown.
      axes: how many axes an example has.
    """

    links: tuple[tuple[Scheme, Site], ...]
    axes: int

    @classmethod
    def of(cls, scheme: Scheme | str, axes: str | Sequence[str], depth: float = 1.0) -> Self:
        """A place whose values have these axes last.

        Raises:
          ValueError, TypeError: the scheme cannot act on a value alone, names sites by `at`, or
            has no use for these axes; or its text is wrong.
        """
        names = (axes,) if isinstance(axes, str) else tuple(axes)
        if not names or not set(names) <= set(_AXES) or len(set(names)) != len(names):
            # Any other name would silently be taken for a spatial axis.
            raise ValueError(
                f"axes must be different names out of {', '.join(_AXES)}; got {axes!r}"
            )
        scheme = parse(scheme) if isinstance(scheme, str) else scheme
        if not isinstance(scheme, Scheme):
            raise TypeError(
                f'scheme must be a scheme or its text such as "bernoulli(rate=0.5)", got {scheme!r}'
            )
        links = scheme.links
        acting = [link for link in links if link.acts_on | link.can_act_on]  # all but `none`
        return cls(tuple((link, _site(link, names, depth)) for link in acting), len(names))

    def sampled(self, key: Array, x: Array) -> Array:
        """`x` with noise; each member of the batch has its own."""

        def one(x: Array, number: Array) -> Array:
            for i, (link, site) in enumerate(self.links):
                keys = Keys.of(key, number).within(f"link {i}")
                x = link.apply(link.sample(keys, site, x.shape), x, site, None)
            return x

        return self._over_batch(one, x)

    def expected(self, x: Array) -> Array:
        """`x` at the scheme's expectation."""

        def one(x: Array, number: Array) -> Array:
            del number
            for link, site in self.links:
                x = link.expected(x, site, None)
            return x

        return self._over_batch(one, x)

    def _over_batch(self, one: Callable[[Array, Array], Array], x: Array) -> Array:
        x = check_floating(x)
        if x.ndim < self.axes:
            raise ValueError(
                f"x has {x.ndim} axes, but {self.axes} are named; its shape: {x.shape}"
            )
        batch = x.shape[: x.ndim - self.axes]
        numbers = jnp.arange(math.prod(batch)).reshape(batch)
        if sharding := sharding_like(x, x.shape):
            spec = PartitionSpec(*sharding.spec[: len(batch)])
            numbers = jax.sharding.reshard(numbers, NamedSharding(sharding.mesh, spec))
        for _ in batch:
            one = jax.vmap(one)
        return one(x, numbers)


def _site(link: Scheme, axes: tuple[str, ...], depth: float) -> Site:
    name = str(link)
    if link.at:
        raise ValueError(f"{name}: at would do nothing here, where there are no named sites")
    if isinstance(link, Learned):
        raise ValueError(
            f"{name} learns values of its own: give the model sites and train it with dropjax.train"
        )
    kinds = link.acts_on | link.can_act_on
    kind = next((kind for kind in _KINDS if kind in kinds), None)
    if kind is None:
        need = next(text for kind, text in _NEEDS.items() if kind in kinds)
        raise ValueError(f"{name} needs {need}")
    site = Site("drop", kind, axes, depth)
    if reason := link.refuses([site]):
        raise ValueError(f"{name} with axes={axes}: {reason}")
    return site
