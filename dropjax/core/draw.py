"""A draw: one realisation of a scheme, carried through a model's call.

Training, deterministic evaluation and Monte-Carlo are three ways of making a draw. A model never
asks which one it was given.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax

from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain, Scheme, check_shape, dense
from dropjax.core.site import Site
from dropjax.ops.lazy import Lazy, is_lazy

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draw:
    """What a model does at its sites. Made by `sampled`, `deterministic`, or `CLEAN`.

    Args:
      scheme: a scheme or a chain.
      prefix: the scope that the names of sites are given in.
      weight: of the example in its batch, for `core.batch.mean_over_batch`: 1, or 0 if it only
        fills up an epoch's last, smaller batch. None outside of training, and where no batch has
        to be filled up.
    """

    scheme: Scheme
    prefix: str = dataclasses.field(default="", metadata={"static": True}, kw_only=True)
    weight: Array | None = dataclasses.field(default=None, kw_only=True)

    def __call__(self, x: Array, site: Site, fallback: Array | None = None) -> Array:
        """`x` with noise: `noise` and `apply` at once."""
        return self.apply(self.noise(site, x.shape), x, site, fallback)

    def noise(self, site: Site, shape: Sequence[int]) -> Any:
        """Noise for a value of `shape`, for `apply`.

        Call it before a scan, not inside: the noise depends on the site's name, so a call inside
        would make the same noise in every step.
        """
        raise NotImplementedError

    def at(self, noise: Any, t: Array) -> Any:
        """Row `t` of noise, inside a scan. The first axis of the site has to be time."""
        raise NotImplementedError

    def apply(self, noise: Any, x: Array, site: Site, fallback: Array | None = None) -> Array:
        """`x` under noise from `noise`.

        Args:
          noise: from `noise` or `at`, at the same site.
          x: the value.
          site: where.
          fallback: what a dropped element becomes: None for 0, or the previous state.
        """
        raise NotImplementedError

    def linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        """A dense layer `x @ w + b` whose weights or pre-activations may be noisy.

        Args:
          x: (..., inputs).
          w: (inputs, outputs).
          b: (outputs,) or None.
          site: of kind LINEAR.
        """
        raise NotImplementedError

    def scope(self, name: str) -> Self:
        """The same draw for a part of the model: sites are named `name/...`."""
        return dataclasses.replace(self, prefix=f"{self.prefix}{name}/")

    def fork(self, number: int) -> Self:
        """An independent draw of the same scheme, for objectives that take several."""
        del number
        return self


def acting(scheme: Scheme, site: Site) -> list[tuple[int, Scheme]]:
    """The links that act on a site, with their numbers in the chain."""
    return [(number, link) for number, link in enumerate(scheme.links) if link.wants(site)]


def keys_at(keys: Keys, site: Site, number: int) -> Keys:
    """The keys of one link of a chain at a site.

    Args:
      keys: of the example.
      site: with its whole name, scopes included.
      number: of the link in the chain.
    """
    # With the link's number two equal links at one site draw different masks. The number is part
    # of a name because the schemes' own labels on this level of the tree are names.
    at_site = keys.within(site.name)
    return at_site.within(f"link {number}") if number else at_site


def _only(scheme: Scheme, site: Site) -> tuple[int, Scheme | None]:
    """The one link that acts on a linear site, with its number in the chain; or None."""
    links = acting(scheme, site)
    if len(links) > 1:
        raise ValueError(
            f"{len(links)} schemes act on the linear site {site.name!r}, which takes one"
        )
    return links[0] if links else (0, None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampled(Draw):
    """Noise is sampled: training and Monte-Carlo."""

    keys: Keys

    def noise(self, site: Site, shape: Sequence[int]) -> Any:
        site = site.within(self.prefix)
        return tuple(
            link.sample(keys_at(self.keys, site, number), site, tuple(shape))
            for number, link in acting(self.scheme, site)
        )

    def at(self, noise: Any, t: Array) -> Any:
        def row(leaf: Lazy | Array) -> Lazy | Array:
            if isinstance(leaf, Lazy):
                return leaf.row(t)
            if leaf.shape[0] == 1:  # shared over time
                return leaf[0]
            return jax.lax.dynamic_index_in_dim(leaf, t, 0, keepdims=False)

        return jax.tree.map(row, noise, is_leaf=is_lazy)

    def apply(self, noise: Any, x: Array, site: Site, fallback: Array | None = None) -> Array:
        site = site.within(self.prefix)
        for (_, link), part in zip(acting(self.scheme, site), noise, strict=True):
            y = link.apply(part, x, site, fallback)
            check_shape(link, "apply", site, y, x.shape)
            x = y
        return x

    def linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        site = site.within(self.prefix)
        number, link = _only(self.scheme, site)
        if link is None:
            return dense(x, w, b)
        y = link.linear(keys_at(self.keys, site, number), x, w, b, site)
        check_shape(link, "linear", site, y, (*x.shape[:-1], w.shape[-1]))
        return y

    def fork(self, number: int) -> Self:
        return dataclasses.replace(self, keys=self.keys.within(f"fork {number}"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Deterministic(Draw):
    """Each site's expectation instead of a sample: deterministic evaluation."""

    def noise(self, site: Site, shape: Sequence[int]) -> Any:
        del site, shape
        return ()

    def at(self, noise: Any, t: Array) -> Any:
        del t
        return noise

    def apply(self, noise: Any, x: Array, site: Site, fallback: Array | None = None) -> Array:
        del noise
        site = site.within(self.prefix)
        for _, link in acting(self.scheme, site):
            y = link.expected(x, site, fallback)
            check_shape(link, "expected", site, y, x.shape)
            x = y
        return x

    def linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        site = site.within(self.prefix)
        _, link = _only(self.scheme, site)
        return dense(x, w, b) if link is None else link.expected_linear(x, w, b, site)


def sampled(scheme: Scheme, keys: Keys | Array, *, weight: Array | None = None) -> Draw:
    """A draw with fresh noise.

    Args:
      scheme: with its learned values bound and its rates scaled, if it has any.
      keys: of one example in one step; or a plain key, where nothing is shared between examples.
      weight: see `Draw`.
    """
    keys = keys if isinstance(keys, Keys) else Keys.of(keys)
    return Sampled(scheme, keys, weight=weight)


def deterministic(scheme: Scheme) -> Draw:
    """A draw without randomness, every site at its expectation: for evaluation.

    Args:
      scheme: with its learned values bound and its rates scaled, if it has any.
    """
    return Deterministic(scheme)


CLEAN: Draw = Deterministic(Chain())
"""No scheme at all: for initialisation. To evaluate under a scheme use `deterministic`."""
