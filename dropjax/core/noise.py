"""The noise of a draw as plain arrays, site by site: which sub-network an example saw."""

import functools
import re
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dropjax.core.draw import acting, keys_at
from dropjax.core.keys import Keys
from dropjax.core.scheme import SCHEMES, Scheme, Sites
from dropjax.core.site import Kind, Site
from dropjax.ops.lazy import Lazy, is_lazy

Array = jax.Array
Arrays: TypeAlias = dict[str, tuple[Any, ...]]
"""By site name, the noise of each scheme that acts there: an array, or a tree of arrays."""


def select(scheme: Scheme, sites: Sites, at: str = "") -> Sites:
    """The sites that a scheme acts on.

    Args:
      scheme: a scheme or a chain.
      sites: of the model.
      at: a regular expression that is searched for in their names; empty for all.

    Raises:
      ValueError: `at` is given and finds none; or is no regular expression.
    """
    acted_on = {name: found for name, found in sites.items() if acting(scheme, found[0])}
    try:
        chosen = {name: found for name, found in acted_on.items() if re.search(at, name)}
    except re.error as error:
        raise ValueError(f"at={at!r} is not a regular expression: {error}") from None
    if at and not chosen:
        others = [name for name in sites if re.search(at, name)]
        raise ValueError(
            f"at={at!r} names no site that {scheme} acts on; those are "
            + (", ".join(acted_on) or "none")
            + (f". It does not act on {', '.join(others)}" if others else "")
        )
    return chosen


def arrays(
    scheme: Scheme, step_key: Array, rows: ArrayLike, sites: Sites, sample: int = 0
) -> Arrays:
    """The noise of examples in one step or one Monte-Carlo sample.

    Args:
      scheme: with its learned values bound and its rates scaled, if it has any.
      step_key: of that step or sample.
      rows: of one example, or (examples,).
      sites: those that the scheme acts on, of which noise is wanted; see `select`.
      sample: the number of the Monte-Carlo sample, from 1; 0 in training.

    Returns:
      NumPy arrays, for several examples with a leading axis of them, also where they share the
      noise. Of a scheme with masks they are booleans that are True where a value is kept; of one
      with normal numbers those numbers. They have size 1 along axes that the noise is shared over.

    Raises:
      ValueError: at a dense layer a scheme draws noise of its own form, which depends on the
        layer's input.
    """
    items = tuple(sites.values())
    of_one = _drawn if np.ndim(rows) == 0 else _drawn_each
    found = of_one(scheme, step_key, np.asarray(rows, np.uint32), np.uint32(sample), items)
    return jax.tree.map(np.asarray, found)


@functools.partial(jax.jit, static_argnums=4)
def _drawn(scheme: Scheme, step_key: Array, row: Array, sample: Array, sites: Any) -> Arrays:
    return _at_sites(scheme, Keys.of(step_key, row, sample), sites)


@functools.partial(jax.jit, static_argnums=4)
def _drawn_each(scheme: Scheme, step_key: Array, rows: Array, sample: Array, sites: Any) -> Arrays:
    return jax.vmap(lambda row: _at_sites(scheme, Keys.of(step_key, row, sample), sites))(rows)


def _at_sites(
    scheme: Scheme, keys: Keys, sites: tuple[tuple[Site, tuple[int, ...]], ...]
) -> Arrays:
    return {
        site.name: tuple(
            _plain(_noise_of(link, keys_at(keys, site, number), site, shape))
            for number, link in acting(scheme, site)
        )
        for site, shape in sites
    }


def _plain(noise: Any) -> Any:
    return jax.tree.map(lambda n: n.drawn() if isinstance(n, Lazy) else n, noise, is_leaf=is_lazy)


def _noise_of(link: Scheme, keys: Keys, site: Site, shape: tuple[int, ...]) -> Any:
    if site.kind is not Kind.LINEAR or type(link).linear is Scheme.linear:
        return link.sample(keys, site, shape)
    # A layer of the scheme's own may draw a mask of its weights, as other schemes do, or not: what
    # it asks `sample` for while it runs says which.
    asked: list[Any] = []
    watched = jax.tree.map(lambda leaf: leaf, link)  # a copy

    def sample(*arguments: Any) -> Any:
        asked.append(link.sample(*arguments))
        return asked[-1]

    object.__setattr__(watched, "sample", sample)
    inputs, outputs = shape
    watched.linear(keys, jnp.zeros(inputs), jnp.zeros(shape), jnp.zeros(outputs), site)
    if len(asked) != 1:
        raise ValueError(
            f"{SCHEMES.name_of(type(link))} has no noise of its own at {site.name!r}: there it "
            "perturbs what the dense layer returns, by noise that depends on the layer's input. "
            "Call linear(...) of the draw instead"
        )
    return asked[0]
