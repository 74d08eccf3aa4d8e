"""What a dropout scheme is: a frozen dataclass, a pytree, and two pure functions."""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core import literals
from dropjax.core.keys import Keys
from dropjax.core.registry import Registry
from dropjax.core.site import Kind, Site
from dropjax.ops.checks import (
    check_fixed_value,
    check_number_value,
    check_rate_value,
    check_spread_value,
)
from dropjax.ops.keys import derive
from dropjax.ops.lazy import is_lazy

Array = jax.Array
Noise: TypeAlias = Any
"""What `Scheme.sample` returned: arrays and masks that only the same scheme's methods read."""

Rate: TypeAlias = Annotated[float, "rate"]
"""A field of a scheme that is a probability of dropping: checked, scheduled and scaled."""

Spread: TypeAlias = Annotated[float, "spread"]
"""A field that is a standard deviation: checked to be 0 or more, scheduled and scaled as rates."""

Fixed: TypeAlias = Annotated[float, "fixed"]
"""A field that is a number, but structure: it decides about shapes, and so cannot be traced."""

Number: TypeAlias = Annotated[float, "number"]
"""A field that is a finite number, checked; it may be traced, but strength does not scale it."""

_CHECKS = {
    Rate: check_rate_value,
    Spread: check_spread_value,
    Fixed: check_fixed_value,
    Number: check_number_value,
}

Sites: TypeAlias = Mapping[str, tuple[Site, tuple[int, ...]]]
"""A model's sites by name, each with the shape of its value, as `core.plan.record` finds them."""

Weights: TypeAlias = Mapping[str, Array]
"""The weights at a model's LINEAR, WEIGHT and TABLE sites, as `core.plan.weights` finds them."""


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A dropout scheme: which sites it wants, and what it does there.

    A subclass is decorated with `scheme`, names the kinds it acts on, and defines `sample` and
    `apply`; `expected` too if its expectation is not the identity. All methods speak of one
    example. Fields that are floats (rates, learned arrays) are leaves of the pytree: they can be
    traced, scheduled and stacked without recompiling. All other fields are structure.

    Args:
      at: a regular expression. The scheme then acts on the sites in whose names the expression is
        found, of all kinds that it can act on. Empty: on all sites of the kinds that it takes by
        default.
      rate: the probability of dropping, in [0, 1]. A scheme that has one may say more of it.
    """

    at: str = dataclasses.field(default="", kw_only=True)

    acts_on: ClassVar[frozenset[Kind]] = frozenset()
    """Kinds of sites on which it acts where `at` is empty."""
    can_act_on: ClassVar[frozenset[Kind]] = frozenset()
    """Kinds on which it acts too, if `at` names such a site."""
    made_for: ClassVar[str] = ""
    """The model that `--model=auto` takes for it; empty if it suits any."""
    linear_in_x: ClassVar[bool] = True
    """For given noise `apply` is a x + b, where a and b do not depend on x."""
    gradient_is_factor: ClassVar[bool] = True
    """The gradient of `apply` is that a. If not, the paper replaces the gradient by another."""
    resizes: ClassVar[bool] = False
    """`apply` leaves out parts of x along its first axis. Otherwise it keeps the shape of x."""
    expected_is_mean: ClassVar[bool] = True
    """`expected` is the exact mean of `apply`. If not, it is x, as the paper evaluates."""
    train_only: ClassVar[bool] = False
    """It augments training data, as `cutout` does. Monte-Carlo evaluation leaves it out."""

    def __post_init__(self) -> None:
        for name, annotation in _annotations(type(self)).items():
            value = getattr(self, name)
            if annotation in _CHECKS:
                _CHECKS[annotation](value, name)
                if isinstance(value, (int, np.generic, np.ndarray)) and np.ndim(value) == 0:
                    object.__setattr__(self, name, float(value))
            elif name not in _leaves(type(self)):
                literals.check_type(value, annotation, name)
        try:
            re.compile(self.at)
        except re.error as error:
            raise ValueError(f"at={self.at!r} is not a regular expression: {error}") from None

    def __str__(self) -> str:
        """The text that `core.spec.parse` takes back to an equal scheme."""
        arguments = {}
        for field in sorted(dataclasses.fields(self), key=lambda f: f.name == "at"):
            value = getattr(self, field.name)
            if field.repr and (field.name in ("rate", "std") or value != field.default):
                arguments[field.name] = value
        return literals.format_call(SCHEMES.name_of(type(self)), arguments)

    def wants(self, site: Site) -> bool:
        """Whether the scheme acts on `site`."""
        if self.at:
            takes = self.acts_on | self.can_act_on
            return site.kind in takes and re.search(self.at, site.name) is not None
        return site.kind in self.acts_on

    def refuses(self, sites: Sequence[Site]) -> str | None:
        """Why the scheme cannot act as its name says on these sites; None if it can.

        Args:
          sites: those of a model that the scheme wants. `core.plan.check` turns an answer into an
            error at launch.
        """
        del sites
        return None

    def remark(self, site: Site, shape: Sequence[int]) -> str | None:
        """A warning for the site table, which is printed at launch; None if there is none.

        It says, for example, that the scheme is another, simpler one at this site.
        """
        del site, shape
        return None

    def rates_at(self, site: Site) -> dict[str, Any]:
        """The rates that apply at `site`, by the names of their fields."""
        del site
        return {name: getattr(self, name) for name in rate_fields(type(self))}

    def sample(self, keys: Keys, site: Site, shape: Sequence[int]) -> Noise:
        """Draws noise for one value of `shape` at `site`.

        Args:
          keys: the site's own keys; `keys.example` differs between examples, `keys.step` does not.
          site: where.
          shape: the value's shape, one axis for each of `site.axes`.

        Returns:
          Noise that broadcasts to `shape`, with size 1 along each axis along which it is shared:
          arrays, or a `Mask` or `Normal`, which cost no memory.
        """
        raise NotImplementedError

    def apply(self, noise: Noise, x: Array, site: Site, fallback: Array | None) -> Array:
        """Applies noise to `x`.

        Args:
          noise: from `sample`.
          x: the value at the site.
          site: where.
          fallback: what a dropped element becomes: None for 0, or the previous state.
        """
        raise NotImplementedError

    def expected(self, x: Array, site: Site, fallback: Array | None) -> Array:
        """The value at evaluation: the exact mean of `apply`, also at rate 1. By default `x`."""
        del site, fallback
        return x

    def linear(self, keys: Keys, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        """A dense layer at a LINEAR site: by default `x @ apply(sample, w) + b`."""
        return dense(x, self.apply(self.sample(keys, site, w.shape), w, site, None), b)

    def expected_linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        """The expectation of `linear`."""
        return dense(x, self.expected(w, site, None), b)

    def noise_shape(self, site: Site, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the noise for a value of `shape`, for the site table."""
        if type(self).sample is Scheme.sample:  # it perturbs what a dense layer returns
            return tuple(shape[-1:])
        noise = jax.eval_shape(lambda: self.sample(Keys.of(jax.random.key(0)), site, shape))
        shapes = (leaf.shape for leaf in jax.tree.leaves(noise, is_leaf=is_lazy))
        return max(shapes, key=len, default=())

    def scaled(self, strength: Any) -> Self:
        """The scheme with every rate multiplied by `strength`, in [0, 1]."""
        rates = {name: getattr(self, name) * strength for name in rate_fields(type(self))}
        return _rebuild(self, rates)

    @property
    def links(self) -> "tuple[Scheme, ...]":
        """The schemes that are applied one after another."""
        return (self,)

    @property
    def learns(self) -> bool:
        """Whether there is anything for the optimiser to train."""
        return any(isinstance(link, Learned) for link in self.links)

    @property
    def penalises(self) -> bool:
        """Whether it adds to the loss."""
        learned = [type(link) for link in self.links if isinstance(link, Learned)]
        return any(cls.penalty_at is not Learned.penalty_at for cls in learned)

    def in_evaluation(self) -> "Scheme":
        """The scheme for Monte-Carlo evaluation: without links that are for training only."""
        return Chain() if self.train_only else self

    def is_random_in_evaluation(self) -> bool:
        """Whether Monte-Carlo evaluation draws any noise."""
        return any(link.acts_on or link.can_act_on for link in self.in_evaluation().links)

    def init_learned(self, key: Array, sites: Sites, weights: Weights) -> Any:
        """Initial learned values, by site name; empty for most schemes.

        Args:
          key: PRNG key.
          sites: of the model.
          weights: at its LINEAR, WEIGHT and TABLE sites, initial.
        """
        del key, sites, weights
        return {}

    def trained(self, updates: Any) -> Any:
        """The optimiser's updates of the learned values, as they are to be added.

        A scheme that keeps values without training them, such as `mixout` the first weights,
        returns zeros for these.
        """
        return updates

    def bind(self, learned: Any) -> Self:
        """The scheme with these learned values in place."""
        if learned:
            raise ValueError(f"{type(self).__name__} learns nothing, got {learned}")
        return self

    def penalty(self, sites: Sites, weights: Weights) -> Array:
        """A term that is added to the loss summed over all training examples, in nats."""
        del sites, weights
        return jnp.zeros(())

    def report(self, sites: Sites, weights: Weights) -> dict[str, dict[str, Array]]:
        """Numbers that describe the learned values, such as a rate or a sparsity, by site name."""
        del sites, weights
        return {}


def dense(x: Array, w: Array, b: Array | None) -> Array:
    """`x @ w + b`, or `x @ w` if there is no bias."""
    y = x @ w
    return y if b is None else y + b.reshape((1,) * (y.ndim - b.ndim) + b.shape)


def check_shape(link: Scheme, method: str, site: Site, value: Any, shape: Sequence[int]) -> None:
    """Refuses what a method of a scheme returned if a model could not go on with it.

    Args:
      link: the scheme.
      method: its name, for the message.
      site: where.
      value: what was returned.
      shape: that it has to have. A scheme that `resizes` may return less along the first axis.

    Raises:
      ValueError: it has another shape. Without this, noise of a wrong shape may broadcast, and the
        error, if there is one, comes from a layer that knows nothing of the scheme.
    """
    returned, wanted = jnp.shape(value), tuple(shape)
    shrunk = link.resizes and len(returned) == len(wanted) > 0 and returned[1:] == wanted[1:]
    if returned != wanted and not (shrunk and returned[0] <= wanted[0]):
        raise ValueError(
            f"{link} at the site {site.name!r}: {method} returned an array of shape {returned}, "
            f"where the model needs {wanted}; axes of the site: {', '.join(site.axes)}. Let "
            "sample return noise that broadcasts to the value's shape, or leave such sites out of "
            "acts_on and can_act_on"
        )


class Learned(Scheme):
    """A scheme that trains values of its own: a set of arrays for each site it wants.

    A subclass adds a field `learned: dict | None = None` and defines `init` and, if it regularises
    the values, `penalty_at`. The optimiser trains the arrays together with the model's parameters.
    `bind` puts them in place before `sample`, which finds those of a site by `self.at_site(site)`.
    """

    learned: dict[str, Any] | None

    def init(self, key: Array, site: Site, shape: tuple[int, ...], w: Array | None) -> Any:
        """Initial arrays for one site.

        Args:
          key: PRNG key.
          site: where.
          shape: of the value there, or of the weights.
          w: the initial weights at a LINEAR, WEIGHT or TABLE site, else None.
        """
        raise NotImplementedError

    def penalty_at(self, site: Site, shape: tuple[int, ...], w: Array | None) -> Array:
        """The penalty of one site, with learned values bound; see `penalty`."""
        del site, shape, w
        return jnp.zeros(())

    def report_at(self, site: Site, w: Array | None) -> dict[str, Array]:
        """The report of one site, with learned values bound; see `report`."""
        del site, w
        return {}

    def init_learned(self, key: Array, sites: Sites, weights: Weights) -> Any:
        return {
            name: self.init(derive(key, name), site, shape, weights.get(name))
            for name, (site, shape) in sites.items()
            if self.wants(site)
        }

    def bind(self, learned: Any) -> Self:
        return _rebuild(self, {"learned": learned})

    def at_site(self, site: Site) -> Any:
        """The learned values of a site.

        Raises:
          ValueError: nothing is bound.
        """
        if self.learned is None:
            raise ValueError(f"{self} has no learned values: call bind(...) first")
        return self.learned[site.name]

    def penalty(self, sites: Sites, weights: Weights) -> Array:
        terms = [
            self.penalty_at(site, shape, weights.get(name))
            for name, (site, shape) in sites.items()
            if self.wants(site)
        ]
        return sum(terms, jnp.zeros(()))

    def report(self, sites: Sites, weights: Weights) -> dict[str, dict[str, Array]]:
        reports = {
            name: self.report_at(site, weights.get(name))
            for name, (site, _) in sites.items()
            if self.wants(site)
        }
        return {name: numbers for name, numbers in reports.items() if numbers}


SCHEMES: Registry[Scheme] = Registry(
    "dropjax.schemes",
    Scheme,
    "scheme",
    functions=("dropjax", "dropjax.blocks", "dropjax.train", "dropjax.evaluate"),
    flag="--dropout",
)

S = TypeVar("S", bound=Scheme)


@typing.dataclass_transform(frozen_default=True)
def scheme(cls: type[S]) -> type[S]:
    """Makes a class a frozen dataclass and a pytree: floats are leaves, the rest is structure."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    if hasattr(cls, "rate") and _annotations(cls).get("rate") not in (Rate, Fixed):
        raise TypeError(
            f"{cls.__name__}.rate must be annotated dropjax.schemes.Rate, or no schedule and no "
            "check would know that it is one"
        )
    leaves = _leaves(cls)
    static = tuple(f.name for f in dataclasses.fields(cls) if f.name not in leaves)

    def flatten(value: S) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(f), getattr(value, f)) for f in leaves]
        return children, tuple(getattr(value, f) for f in static)

    def unflatten(aux: tuple[Any, ...], children: Any) -> S:
        # Not by the constructor: a leaf may be a tracer, a spec or a placeholder, never a bad rate.
        value = object.__new__(cls)
        for name, child in zip((*leaves, *static), (*children, *aux), strict=True):
            object.__setattr__(value, name, child)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
    """Each dataclass field with its annotation."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


@functools.cache
def rate_fields(cls: type[Scheme]) -> tuple[str, ...]:
    """The fields of a scheme that strength multiplies: rates and standard deviations."""
    return tuple(name for name, note in _annotations(cls).items() if note in (Rate, Spread))


@functools.cache
def _leaves(cls: type) -> tuple[str, ...]:
    """The fields that are leaves: floats, arrays and whatever holds them."""
    return tuple(name for name, note in _annotations(cls).items() if not _is_structure(note))


def _is_structure(annotation: Any) -> bool:
    if annotation == Fixed:
        return True
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (tuple, typing.Union, types.UnionType):
        return all(_is_structure(arg) for arg in args if arg is not Ellipsis)
    return origin is typing.Literal or annotation in (str, bool, int, types.NoneType)


def _rebuild(value: S, changes: Mapping[str, Any]) -> S:
    """`dataclasses.replace` for values that are computed, and so not checked again."""
    new = object.__new__(type(value))
    for field in dataclasses.fields(value):
        object.__setattr__(new, field.name, changes.get(field.name, getattr(value, field.name)))
    return new


@scheme
class Chain(Scheme):
    """Schemes applied one after another; each acts on the sites it wants.

    A link's position is part of its keys, so that equal links on one site draw different masks;
    the first link draws what the scheme draws alone.
    """

    schemes: tuple[Scheme, ...] = ()

    def __post_init__(self) -> None:
        if self.at:
            raise ValueError("a chain has no `at`; give it to the links")
        for part in self.schemes:
            if not isinstance(part, Scheme):
                raise TypeError(f"schemes must be schemes, got {part!r}")

    def __str__(self) -> str:
        return "|".join(map(str, self.schemes))

    @property
    def links(self) -> tuple[Scheme, ...]:
        return tuple(link for part in self.schemes for link in part.links)

    def wants(self, site: Site) -> bool:
        return any(link.wants(site) for link in self.schemes)

    def scaled(self, strength: Any) -> Self:
        return self._over(link.scaled(strength) for link in self.schemes)

    def in_evaluation(self) -> Scheme:
        return self._over(link.in_evaluation() for link in self.schemes)

    def init_learned(self, key: Array, sites: Sites, weights: Weights) -> Any:
        keys = [derive(key, f"link {i}") for i in range(len(self.schemes))]
        return [s.init_learned(k, sites, weights) for s, k in zip(self.schemes, keys, strict=True)]

    def trained(self, updates: Any) -> Any:
        return [s.trained(part) for s, part in zip(self.schemes, updates, strict=True)]

    def bind(self, learned: Any) -> Self:
        return self._over(s.bind(part) for s, part in zip(self.schemes, learned, strict=True))

    def penalty(self, sites: Sites, weights: Weights) -> Array:
        return sum((link.penalty(sites, weights) for link in self.schemes), jnp.zeros(()))

    def report(self, sites: Sites, weights: Weights) -> dict[str, dict[str, Array]]:
        reports: dict[str, dict[str, Array]] = {}
        for i, link in enumerate(self.schemes):
            for name, numbers in link.report(sites, weights).items():
                into = reports.setdefault(name, {})
                # Two links may learn at one site.
                into |= {k if k not in into else f"{k} ({i})": v for k, v in numbers.items()}
        return reports

    def _over(self, schemes: Iterable[Scheme]) -> Self:
        return _rebuild(self, {"schemes": tuple(schemes)})
