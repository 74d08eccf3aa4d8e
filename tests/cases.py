"""Every scheme, in every variant of its structure, at a site of every kind it can act on."""

import dataclasses
import itertools
import typing

from dropjax.core.scheme import SCHEMES, Scheme, rate_fields
from dropjax.core.site import Kind
from dropjax.core.trial import Trial, site_of
from tests.throwaway import LearnedRate, WholeBatch

_SHARED = {*map(SCHEMES.find, ("mixout", "targeted", "weight_drop")), WholeBatch}
"""Schemes without a `mode` whose noise all examples of a step share."""
LEAVE_SOME = {
    *map(SCHEMES.find, ("head_drop", "shake_drop", "standout", "targeted")),
    LearnedRate,
}
"""Schemes whose rate is another than the probability that an element is dropped."""

SITES = {kind: site_of(kind) for kind in Kind}
RATE = 0.3


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


def _shares_its_noise(value: Scheme) -> bool:
    """Whether all examples of a step have the same noise."""
    return getattr(value, "mode", None) == "batch" or type(value) in _SHARED


def leaves_some_at_rate_1(case: Trial) -> bool:
    """Whether its rate is another than the probability that an element here is dropped."""
    rates = case.at_rate(1.0).rates_at(case.site)
    return rates != {"rate": 1.0} or type(case.scheme) in LEAVE_SOME


def _cases() -> list[Trial]:
    """Each class at every kind of site, and each of its variants at one."""
    cases = []
    for value in SCHEME_VALUES:
        kinds = sorted(value.acts_on, key=lambda kind: kind.value)
        if value in FIRST_VARIANTS:
            kinds += sorted(value.can_act_on - value.acts_on, key=lambda kind: kind.value)
        else:
            kinds = kinds[:1]
        shared = _shares_its_noise(value)
        cases += [Trial.of(value, SITES[kind], shared=shared) for kind in kinds]
    return cases


CASES = _cases()


def apart() -> list[Trial]:
    """The cases, each at a site of its own name, where no other scheme acts. Nothing is learned."""
    found = []
    for number, case in enumerate(CASES):
        site = dataclasses.replace(case.site, name=f"case_{number}")
        scheme = dataclasses.replace(case.scheme, at=f"^{site.name}$")
        scheme = dataclasses.replace(scheme, learned=None) if scheme.learns else scheme
        found.append(Trial(scheme, site, case.shape))
    return found
