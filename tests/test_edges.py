"""The mean law of every scheme at the edges: axes of size 1, and rates from 0 to 1."""

import re
import sys

import numpy as np
import pytest

from dropjax.core.laws import EDGE_LAWS
from dropjax.core.trial import RATES, SIGMAS, sigmas_off
from tests.cases import CASES, SCHEME_CLASSES


def name_of(case):
    return str(case.scheme).partition("(")[0]


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
SHAPE, MEAN = EDGE_LAWS


def test_every_scheme_is_tried():
    classes = {type(case.scheme) for case in TRIED.values()}
    left_out = {cls.__name__ for cls in SCHEME_CLASSES if cls not in classes}
    assert left_out == {"NoDropout", "Patch"}


@pytest.mark.parametrize("cls", SCHEME_CLASSES)
def test_a_scheme_that_evaluates_with_another_value_than_its_mean_says_so(cls):
    """In its docstrings, for whoever evaluates with it."""
    if any(type(case.scheme) is cls and not case.scheme.expected_is_mean for case in CASES):
        said = f"{sys.modules[cls.__module__].__doc__} {cls.__doc__}"
        assert re.search(r"\bmean\b|[Ee]valuat|at test", said), f"say it in {cls.__module__}"


@pytest.mark.parametrize("name", TRIED)
def test_the_mean_over_noise_is_what_evaluation_takes_at_every_rate(name):
    for edge in TRIED[name].edges:
        assert not (breach := MEAN.breach(edge)), f"{edge.shape}: {MEAN.says} But {breach}."
        if over_map(edge):
            draws, evaluated = edge.at_rates
            for rate, ours, wanted in zip(RATES, draws, evaluated, strict=True):
                assert sigmas_off(ours.mean((1, 2, 3)), float(rate < 1)) <= SIGMAS, rate
                np.testing.assert_array_equal(wanted, float(rate < 1))


@pytest.mark.parametrize("case", [case for case in CASES if not case.scheme.resizes], ids=str)
def test_the_shape_stays_where_an_axis_has_size_1(case):
    for edge in case.edges:
        assert not (breach := SHAPE.breach(edge)), f"{edge.shape}: {breach}"
