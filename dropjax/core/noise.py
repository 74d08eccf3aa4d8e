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
      ValueError: `at` matches none of them, or is no regular expression.
    """
    acted_on = {name: entry for name, entry in sites.items() if acting(scheme, entry[0])}
    try:
        chosen = {name: entry for name, entry in acted_on.items() if re.search(at, name)}
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
      rows: in the data set: of one example, (), or of several, (examples,).
      sites: where noise is wanted. The scheme has to act on each; see `select`.
      sample: the number of the Monte-Carlo sample, from 1; 0 in training.

    Returns:
      NumPy arrays. Several examples are their first axis, also where all share the noise. A mask
      is boolean, True where a value is kept; normal noise is its numbers. An axis along which the
      noise is shared has size 1.

    Raises:
      ValueError: a scheme at a dense layer has noise that depends on the layer's input, which is
        not known here.
    """
    items = tuple(sites.values())
    draw = _drawn if np.ndim(rows) == 0 else _drawn_each
    noise = draw(scheme, step_key, np.asarray(rows, np.uint32), np.uint32(sample), items)
    return jax.tree.map(np.asarray, noise)


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
    # The scheme has a `linear` of its own. It may call `sample` for a mask of the weights, as the
    # default does, or draw something else. So it is run, and its calls of `sample` are noted.
    samples: list[Any] = []
    watched = jax.tree.map(lambda leaf: leaf, link)  # a copy

    def sample(*arguments: Any) -> Any:
        samples.append(link.sample(*arguments))
        return samples[-1]

    object.__setattr__(watched, "sample", sample)
    inputs, outputs = shape
    watched.linear(keys, jnp.zeros(inputs), jnp.zeros(shape), jnp.zeros(outputs), site)
    if len(samples) != 1:
        raise ValueError(
            f"{SCHEMES.name_of(type(link))} has no noise of its own at {site.name!r}: there it "
            "perturbs what the dense layer returns, by noise that depends on the layer's input. "
            "Call linear(...) of the draw instead"
        )
    return samples[0]
