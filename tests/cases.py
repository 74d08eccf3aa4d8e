"""Every scheme, in every variant of its structure, at a site of every kind it can act on."""

import dataclasses
import itertools
import typing
from typing import NamedTuple

import jax

from dropjax.core.keys import Keys
from dropjax.core.plan import no_weights
from dropjax.core.scheme import SCHEMES, Scheme, rate_fields
from dropjax.core.site import KINDS, Kind, Site
from tests.throwaway import LearnedRate, WholeBatch

_SHARED = {*map(SCHEMES.find, ("mixout", "targeted", "weight_drop")), WholeBatch}
"""Schemes without a `mode` whose noise all examples of a step share."""
_LEAVES_SOME = {
    *map(SCHEMES.find, ("head_drop", "shake_drop", "standout", "targeted")),
    LearnedRate,
}
"""Schemes whose rate is another than the probability that an element is dropped."""

# One small pool of shapes: each new one is a compilation.
_SHAPES = {1: (12,), 2: (4, 6), 3: (2, 3, 4)}
SITES = {kind: Site(f"here/{kind.value}", kind, KINDS[kind].axes, 0.5) for kind in Kind}
RATE = 0.3


def shape_of(site: Site) -> tuple[int, ...]:
    axes = len(site.axes)
    assert axes in _SHAPES, f"{site.kind} has {axes} axes: add a shape to _SHAPES in tests/cases.py"
    return _SHAPES[axes]


def variants(cls: type[Scheme]) -> list[Scheme]:
    """One scheme for each combination of the values of its `Literal` fields."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    choices = {
        n: typing.get_args(hints[n]) for n in names if typing.get_origin(hints[n]) is typing.Literal
    }
    rates = dict.fromkeys(rate_fields(cls), RATE)
    return [
        cls(**rates, **dict(zip(choices, values, strict=True)))
        for values in itertools.product(*choices.values())
    ]


SCHEME_CLASSES = [SCHEMES.find(name) for name in SCHEMES.names()]
_ALL_CLASSES = [*SCHEME_CLASSES, LearnedRate, WholeBatch]
SCHEME_VALUES = [v for cls in _ALL_CLASSES for v in variants(cls)]
FIRST_VARIANTS = [variants(cls)[0] for cls in _ALL_CLASSES]


class Case(NamedTuple):
    """A scheme at a site it acts on."""

    scheme: Scheme
    site: Site

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self.site)

    def keys(self, number: int = 0) -> Keys:
        return Keys.of(jax.random.key(number))

    def value(self, dtype="float32") -> jax.Array:
        return jax.random.normal(jax.random.key(100), self.shape).astype(dtype)

    def previous(self, dtype="float32") -> jax.Array:
        return jax.random.normal(jax.random.key(200), self.shape).astype(dtype)

    def at_rate(self, rate) -> Scheme:
        """The scheme with all its rates, or standard deviations, set to one number."""
        return dataclasses.replace(
            self.scheme, **dict.fromkeys(rate_fields(type(self.scheme)), rate)
        )

    @property
    def rated(self) -> bool:
        return bool(rate_fields(type(self.scheme)))

    @property
    def samples(self) -> bool:
        """Whether it draws noise for a value; others act on a dense layer as a whole."""
        return type(self.scheme).sample is not Scheme.sample

    @property
    def shared_by_the_batch(self) -> bool:
        """Whether all examples of a step have the same noise."""
        return getattr(self.scheme, "mode", None) == "batch" or type(self.scheme) in _SHARED

    @property
    def leaves_some_at_rate_1(self) -> bool:
        """Whether its rate is another than the probability that an element here is dropped."""
        rates = self.at_rate(1.0).rates_at(self.site)
        return rates != {"rate": 1.0} or type(self.scheme) in _LEAVES_SOME

    def __str__(self) -> str:
        return f"{self.scheme}@{self.site.kind.name}"


def _cases() -> list[Case]:
    """Each class at every kind of site, and each of its variants at one."""
    found = []
    for value in SCHEME_VALUES:
        kinds = sorted(value.acts_on, key=lambda kind: kind.value)
        if value in FIRST_VARIANTS:
            kinds += sorted(value.can_act_on - value.acts_on, key=lambda kind: kind.value)
        else:
            kinds = kinds[:1]
        for kind in kinds:
            site = SITES[kind]
            named = dataclasses.replace(value, at=f"^{site.name}$")
            shapes = {site.name: (site, shape_of(site))}
            learned = named.init_learned(jax.random.key(300), shapes, no_weights(shapes))
            found.append(Case(named.bind(learned), site))
    return found


CASES = _cases()
