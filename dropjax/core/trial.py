"""A scheme tried at one site, by one program that computes all that the laws look at."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core.draw import Draw, deterministic, keys_at, sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import no_weights
from dropjax.core.scheme import Chain, Learned, Scheme, rate_fields
from dropjax.core.site import KINDS, Kind, Site

Array = jax.Array

IN_A_HURRY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Options of `jax.stages.Lowered.compile` for a large program that runs once."""

SIGMAS = 5.0
"""A mean that is further off, in standard errors, is taken for a wrong one."""
DRAWS, DRAWS_AT_EDGES = 4000, 2000
RATES = np.array([0, 2**-24, 0.5, 1 - 2**-5, 1], np.float32)
"""Rates at which values of size 1 are tried."""

# One small pool of shapes: each new one is a compilation.
_SHAPES = {1: (12,), 2: (4, 6), 3: (2, 3, 4)}


def shape_of(site: Site) -> tuple[int, ...]:
    """The shape of the value with which schemes are tried at a site.

    Raises:
      KeyError: no shape of so many axes is there; the message says where to add one.
    """
    axes = len(site.axes)
    if axes not in _SHAPES:
        raise KeyError(
            f"{site.kind} has {axes} axes: add a shape to _SHAPES in dropjax/core/trial.py"
        )
    return _SHAPES[axes]


def _edges(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    one_axis = [(*shape[:axis], 1, *shape[axis + 1 :]) for axis in range(len(shape))]
    return list(dict.fromkeys([*one_axis, (1,) * len(shape)]))


def site_of(kind: Kind) -> Site:
    """A site of that kind, as a model might declare it."""
    return Site(f"here/{kind.value}", kind, KINDS[kind].axes, 0.5)


def sigmas_off(samples: Any, expected: Any, allowed: float = SIGMAS) -> float:
    """How far the mean over axis 0 is from `expected`, in standard errors of these samples.

    The largest over all elements; infinite where there is a NaN. Rounding is allowed for: what does
    not vary is within `allowed` if it is right to 1e-6.
    """
    samples, expected = np.asarray(samples, np.float64), np.asarray(expected, np.float64)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    gap = np.abs(samples.mean(axis=0) - expected)
    off = gap / (allowed * error + 1e-6 * (1 + np.abs(expected))) * allowed
    return float(np.max(np.where(np.isnan(off), np.inf, off), initial=0.0))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays have one dtype, one shape and the same bits."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A scheme at a site that it acts on, with a value of one shape.

    Args:
      scheme: with its learned values bound, if it has any.
      site: where.
      shape: of the value there.
      shared: whether all examples of a step are meant to have the same noise; None if either will
        do.
      whole: the trial whose edge this is, if it is one.
    """

    scheme: Scheme
    site: Site
    shape: tuple[int, ...]
    shared: bool | None = None
    whole: "Trial | None" = None

    @classmethod
    def of(
        cls,
        scheme: Scheme,
        site: Site,
        shape: Sequence[int] | None = None,
        shared: bool | None = None,
    ) -> Self:
        """The trial of a scheme that is made to act there and given initial learned values."""
        shape = shape_of(site) if shape is None else tuple(shape)
        here = dataclasses.replace(scheme, at=f"^{site.name}$")
        sites = {site.name: (site, shape)}
        learned = here.init_learned(jax.random.key(300), sites, no_weights(sites))
        return cls(here.bind(learned), site, shape, shared)

    def __str__(self) -> str:
        learns = isinstance(self.scheme, Learned)
        return f"{self.scheme.bind(None) if learns else self.scheme}@{self.site.kind.name}"

    @functools.cached_property
    def edges(self) -> "tuple[Trial, ...]":
        """The same with values of size 1 along one axis, each in turn, and along all."""
        edges = [self.of(self.scheme, self.site, shape, None) for shape in _edges(self.shape)]
        return tuple(dataclasses.replace(edge, whole=self) for edge in edges)

    @property
    def rated(self) -> bool:
        """Whether strength scales anything of the scheme."""
        return bool(rate_fields(type(self.scheme)))

    @property
    def samples(self) -> bool:
        """Whether it draws noise for a value; others act on a dense layer as a whole."""
        return type(self.scheme).sample is not Scheme.sample

    @property
    def x(self) -> np.ndarray:
        return normal(100, self.shape)

    @property
    def previous(self) -> np.ndarray:
        return normal(200, self.shape)

    def keys(self, number: int = 0) -> Keys:
        return Keys.of(jax.random.key(number))

    def at_rate(self, rate: Any) -> Scheme:
        """The scheme with all its rates, or standard deviations, set to one number."""
        return dataclasses.replace(
            self.scheme, **dict.fromkeys(rate_fields(type(self.scheme)), rate)
        )

    def through(self, draw: Draw, x: Array, previous: Array) -> Array:
        """What a draw makes of x; for a scheme of dense layers alone x is a layer's weights."""
        if self.samples:
            return draw(x, self.site, previous)
        return draw.linear(jnp.eye(len(x), dtype=x.dtype), x, None, self.site)

    def eager(self, keys: Keys, scheme: Scheme | None = None) -> np.ndarray:
        """x with noise, computed operation by operation."""
        draw = sampled(self.scheme if scheme is None else scheme, keys)
        return np.asarray(self.through(draw, jnp.asarray(self.x), jnp.asarray(self.previous)))

    def evaluated(self, scheme: Scheme | None = None) -> np.ndarray:
        """What stands for x at evaluation, computed operation by operation."""
        draw = deterministic(self.scheme if scheme is None else scheme)
        return np.asarray(self.through(draw, jnp.asarray(self.x), jnp.asarray(self.previous)))

    def realised(self, scheme: Scheme, keys: Keys, x: Array, previous: Array) -> Array:
        """x with noise, from the keys of the site itself."""
        if self.samples:
            noise = scheme.sample(keys, self.site, self.shape)
            return scheme.apply(noise, x, self.site, previous)
        return scheme.linear(keys, jnp.eye(len(x), dtype=x.dtype), x, None, self.site)

    def expected(self, scheme: Scheme, x: Array, previous: Array) -> Array:
        if self.samples:
            return scheme.expected(x, self.site, previous)
        return scheme.expected_linear(jnp.eye(len(x), dtype=x.dtype), x, None, self.site)

    @property
    def computed(self) -> "dict[str, Computed]":
        """All that the laws look at, by the names of `_asked`: computed by one program."""
        return _computed(self)

    @property
    def at_rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Of ones, at each of `RATES`: many draws, and what stands for them at evaluation."""
        together = (self,) if self.whole is None else self.whole.edges
        try:
            return _at_rates(together)[together.index(self)]
        except Exception:  # may be that of another edge
            return _at_rates((self,))[0]

    @property
    def is_something_left_at_rate_1(self) -> bool:
        """Whether another x gives another result at rate 1."""
        first, second = self.computed["rate 1"].y, self.computed["rate 1, x + 1"].y
        return any(not same_bits(a, b) for a, b in zip(first, second, strict=True))


@functools.cache
def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 numbers."""
    # Flat, as the numbers are the same in any shape, and each shape would be compiled.
    flat = jax.random.normal(jax.random.key(seed), (math.prod(shape),))
    return np.asarray(flat).reshape(shape)


class Computed(NamedTuple):
    """Some rows of the program of a trial.

    Args:
      y: (rows, ...), x with noise.
      gradient: (rows, ...), by x, of 3 times the sum of y.
      by_rates: for each rate of the scheme (rows,), the same by the rate.
      tangent: (rows, ...), of y, along `_direction`; empty if the scheme is linear in x.
    """

    y: Any
    gradient: Any
    by_rates: list[Any]
    tangent: Any


class _Rows(NamedTuple):
    """Rows that the laws ask for, of one rate and one x.

    Args:
      keys: of each row, above the site.
      scheme: makes it of the trial.
      x: makes it of the trial.
    """

    keys: Keys
    scheme: Callable[[Trial], Scheme]
    x: Callable[[Trial], np.ndarray]


WIDTH = 2e-3  # of the step along which a slope is measured
COTANGENT = 3.0
LANES = (0.1, 0.6)
FINITE_AT = (0.0, 0.5, 1.0)


def _direction(trial: Trial) -> np.ndarray:
    return normal(5, trial.shape)


def _stacked(keys: Sequence[Keys]) -> Keys:
    return jax.tree.map(lambda *parts: jnp.stack([jnp.asarray(part) for part in parts]), *keys)


@functools.cache
def _asked() -> dict[str, _Rows]:
    """The rows of the one program of a trial."""
    many = jax.vmap(lambda i: Keys.of(jax.random.key(i)))(jnp.arange(DRAWS))

    def first(number: int) -> Keys:
        return jax.tree.map(lambda leaf: leaf[:number], many)

    def at(rate: float) -> Callable[[Trial], Scheme]:
        return lambda trial: trial.at_rate(rate)

    def own(trial: Trial) -> Scheme:
        return trial.scheme

    def x(trial: Trial) -> np.ndarray:
        return trial.x

    def plus(number: float) -> Callable[[Trial], np.ndarray]:
        return lambda trial: trial.x + np.float32(number)

    def along(step: float) -> Callable[[Trial], np.ndarray]:
        return lambda trial: trial.x + np.float32(step) * _direction(trial)

    examples = jax.vmap(lambda row: Keys.of(jax.random.key(7), row))(jnp.arange(3))
    draw: Any = sampled(Chain(), Keys.of(jax.random.key(0)))
    forks = _stacked([draw.fork(i).keys for i in range(8)])
    return {
        "own": _Rows(many, own, x),
        "rate 0": _Rows(first(1), at(0.0), x),
        "strength 0": _Rows(first(1), lambda trial: trial.scheme.scaled(0.0), x),
        "rate 1": _Rows(first(4), at(1.0), x),
        "rate 1, x + 1": _Rows(first(4), at(1.0), plus(1)),
        "x + 1": _Rows(first(1), own, plus(1)),
        "ones": _Rows(first(32), own, lambda trial: np.ones_like(trial.x)),
        "zeros": _Rows(first(32), own, lambda trial: np.zeros_like(trial.x)),
        "forward": _Rows(first(1), own, along(WIDTH)),
        "backward": _Rows(first(1), own, along(-WIDTH)),
        **{f"finite at {rate}": _Rows(first(1), at(rate), x) for rate in FINITE_AT},
        **{f"lane {rate}": _Rows(first(1), at(rate), x) for rate in LANES},
        "examples": _Rows(examples, own, x),
        "forks": _Rows(forks, own, x),
    }


@functools.lru_cache(maxsize=64)
def keys_at_site(site: Site) -> Keys:
    """The keys of all rows at a site."""
    keys = [rows.keys for rows in _asked().values()]
    together = jax.tree.map(lambda *parts: jnp.concatenate(parts), *keys)
    return jax.vmap(lambda keys: keys_at(keys, site, 0))(together)


_programs: dict[str, Any] = {}


def run_compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """The results of a function, as NumPy arrays. Equal programs are compiled once.

    A scheme does the same at many kinds of sites, where its program differs in the keys alone.
    """
    leaves, structure = jax.tree.flatten(arguments)

    def of_leaves(*leaves: Array) -> Any:
        return function(*jax.tree.unflatten(structure, leaves))

    # All arguments are kept: two programs that use different ones may else look the same.
    lowered = jax.jit(of_leaves, keep_unused=True).lower(*leaves)
    text = lowered.as_text()
    if text not in _programs:
        _programs[text] = lowered.compile(IN_A_HURRY)
    results = jax.tree.leaves(_programs[text](*leaves))
    return jax.tree.unflatten(lowered.out_tree, map(np.asarray, results))


def _repeated(tree: Any, number: int) -> Any:
    def repeated(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf, jnp.result_type(leaf))
        return np.broadcast_to(leaf, (number, *leaf.shape))

    return jax.tree.map(repeated, tree)


@functools.lru_cache(maxsize=1)
def _computed(trial: Trial) -> dict[str, Computed]:
    asked = _asked()
    sizes = [len(rows.keys.example) for rows in asked.values()]
    schemes = [
        _repeated(rows.scheme(trial), size)
        for rows, size in zip(asked.values(), sizes, strict=True)
    ]
    xs = [_repeated(rows.x(trial), size) for rows, size in zip(asked.values(), sizes, strict=True)]
    paths = jax.tree_util.tree_leaves_with_path(trial.scheme)
    rates = [
        i
        for i, (path, _) in enumerate(paths)
        if getattr(path[0], "name", None) in rate_fields(type(trial.scheme))
    ]
    direction, linear = _direction(trial), trial.scheme.linear_in_x

    def one(scheme: Scheme, keys: Keys, x: Array, previous: Array) -> Computed:
        leaves, structure = jax.tree.flatten(scheme)

        def value(rates_here: list[Array], x: Array) -> Array:
            with_rates = list(leaves)
            for i, rate in zip(rates, rates_here, strict=True):
                with_rates[i] = rate
            return trial.realised(jax.tree.unflatten(structure, with_rates), keys, x, previous)

        own = [leaves[i] for i in rates]
        y, pullback = jax.vjp(value, own, x)
        by_rates, gradient = pullback(jnp.full(y.shape, COTANGENT, y.dtype))
        tangent: Any = ()
        if not linear:
            _, tangent = jax.jvp(functools.partial(value, own), (x,), (jnp.asarray(direction),))
        return Computed(y, gradient, by_rates, tangent)

    arguments = (
        jax.tree.map(lambda *parts: np.concatenate(parts), *schemes),
        keys_at_site(trial.site),
        np.concatenate(xs),
        trial.previous,
    )
    computed = run_compiled(jax.vmap(one, in_axes=(0, 0, 0, None)), *arguments)
    ends = np.cumsum(sizes)
    return {
        name: jax.tree.map(lambda leaf, start=end - size, end=end: leaf[start:end], computed)
        for name, size, end in zip(asked, sizes, ends, strict=True)
    }


@functools.lru_cache(maxsize=64)
def _edge_keys_at(site: Site) -> Keys:
    def one(i: Array) -> Keys:
        return keys_at(Keys.of(jax.random.fold_in(jax.random.key(3), i)), site, 0)

    return jax.vmap(one)(jnp.arange(DRAWS_AT_EDGES))


@functools.lru_cache(maxsize=1)
def _at_rates(trials: tuple[Trial, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """`Trial.at_rates` of several, by one program."""
    rates = RATES if trials[0].rated else RATES[:1]

    def of(trial: Trial) -> Any:
        each = [_repeated(trial.at_rate(float(rate)), 1) for rate in rates]
        schemes = jax.tree.map(lambda *parts: np.concatenate(parts), *each)
        return (
            schemes,
            _edge_keys_at(trial.site),
            np.ones(trial.shape, np.float32),
            np.full(trial.shape, -3, np.float32),
        )

    def at(trial: Trial, scheme: Scheme, keys: Keys, x: Array, previous: Array) -> Any:
        draws = jax.vmap(lambda keys: trial.realised(scheme, keys, x, previous))(keys)
        return draws, trial.expected(scheme, x, previous)

    def of_all(arguments: list[Any]) -> Any:
        axes, size = (0, None, None, None), len(rates)
        return [
            jax.vmap(functools.partial(at, trial), in_axes=axes, axis_size=size)(*own)
            for trial, own in zip(trials, arguments, strict=True)
        ]

    arguments = [of(trial) for trial in trials]
    return run_compiled(of_all, arguments)
