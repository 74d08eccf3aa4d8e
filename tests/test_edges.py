"""The mean law of every scheme at the edges: values of size 1, and rates from 0 to 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import no_weights
from tests.cases import CASES, SCHEME_CLASSES, Case
from tests.conftest import IN_A_HURRY
from tests.statistics import assert_mean

RATES = np.array([0, 2**-24, 0.5, 1 - 2**-5, 1], np.float32)
DRAWS = 2000
NOT_THE_MEAN = {
    "alpha": "keeps mean and variance over all units, not the mean of each",
    "attention": "scaled by row, a row of which nothing is kept is 0",
    "concrete": "a relaxed mask keeps a little more or less than 1 - rate",
    "cutout": "takes pixels away and scales nothing up",
    "dropblock": "takes x below rate 1, as its paper, also where blocks lie unevenly",
    "feature_alpha": "keeps mean and variance over all units, not the mean of each",
    "layer_drop": "evaluates with all layers, as its paper",
    "patch": "leaves rows out",
    "random_erasing": "takes pixels away and scales nothing up",
    "stochastic_depth": 'scaling="none" scales nothing, nowhere',
}
"""Why `expected` of a scheme, or of one of its variants, is not its mean."""


def name_of(case):
    return str(case.scheme).partition("(")[0]


def small(case):
    """The case with a value of size 1."""
    shape = (1,) * len(case.site.axes)
    sites = {case.site.name: (case.site, shape)}
    scheme = dataclasses.replace(case.scheme, at=f"^{case.site.name}$")
    learned = scheme.init_learned(jax.random.key(300), sites, no_weights(sites))
    return Case(scheme.bind(learned), case.site), shape


def over_map(case):
    """Whether the mean that the scheme is about is that over a map of ones."""
    return name_of(case) == "dropblock" and case.scheme.normalize != "none"


def tried():
    """A case of each class, and of DropBlock one for each way of scaling."""
    found = {}
    for case in CASES:
        if not case.scheme.resizes:
            variant = f" by {case.scheme.normalize}" if over_map(case) else ""
            found.setdefault(name_of(case) + variant, case)
    return found


TRIED = tried()


@pytest.fixture(scope="module")
def drawn():
    """Of each case, at each rate: many draws of a value of 1, and what stands for them."""

    def of(case):
        case, shape = small(case)
        x, previous = jnp.ones(shape), jnp.full(shape, -3.0)

        def through(draw):
            if case.samples:
                return draw(x, case.site, previous)
            return draw.linear(jnp.ones(1), x, None, case.site)

        def at(rate):
            scheme = case.at_rate(rate)
            keys = jax.vmap(lambda i: Keys.of(jax.random.fold_in(jax.random.key(3), i)))
            draws = jax.vmap(lambda k: through(sampled(scheme, k)))(keys(jnp.arange(DRAWS)))
            return draws, through(deterministic(scheme))

        return at

    @jax.jit
    def all_of(rates):
        return {
            name: jax.vmap(of(case))(rates if case.rated else rates[:1])
            for name, case in TRIED.items()
        }

    return all_of.lower(RATES).compile(IN_A_HURRY)(RATES)


def test_every_scheme_is_tried():
    classes = {type(case.scheme) for case in TRIED.values()}
    left_out = {cls.__name__ for cls in SCHEME_CLASSES if cls not in classes}
    assert left_out == {"NoDropout", "Patch"}


def test_a_scheme_that_evaluates_with_another_value_than_its_mean_has_a_reason():
    assert {name_of(case) for case in CASES if not case.scheme.expected_is_mean} == {*NOT_THE_MEAN}


@pytest.mark.parametrize("name", TRIED)
def test_the_mean_over_noise_is_what_evaluation_takes_at_every_rate(name, drawn):
    case, (draws, evaluated) = TRIED[name], drawn[name]
    assert np.isfinite(draws).all() and np.isfinite(evaluated).all()
    for rate, ours, wanted in zip(RATES, draws, evaluated, strict=False):
        if case.scheme.expected_is_mean:
            assert_mean(ours, wanted)
        elif over_map(case):
            assert_mean(ours, float(rate < 1))
            np.testing.assert_array_equal(wanted, float(rate < 1))
        else:
            np.testing.assert_array_equal(wanted, 1)
