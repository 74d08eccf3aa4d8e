"""The laws that every scheme obeys, each over every scheme, none skipped.

They are `dropjax.core.laws`, so that a scheme of one's own can be held to them too. A case's laws
stand side by side: they share one compiled program.
"""

import jax
import jax.numpy as jnp
import pytest

from dropjax.core.draw import CLEAN
from dropjax.core.keys import Keys
from dropjax.core.laws import SCHEME_LAWS, SITE_LAWS, Law
from dropjax.core.scheme import Scheme
from dropjax.core.site import Kind
from dropjax.core.trial import normal, same_bits, shape_of
from tests.cases import CASES, SCHEME_VALUES, SITES, leaves_some_at_rate_1


def named(of, law):
    return pytest.param(of, law, id=f"{of}-{law.name}")


def nothing_of_x_is_left_at_rate_1(case):
    left = case.is_something_left_at_rate_1
    return "" if left == leaves_some_at_rate_1(case) else f"something is left: {left}"


LAWS = (
    *SITE_LAWS,
    Law(
        "Nothing of x is left at rate 1, but where tests/cases.py says so.",
        "Add the class to LEAVE_SOME.",
        nothing_of_x_is_left_at_rate_1,
        lambda case: case.rated and not (case.scheme.resizes or case.scheme.train_only),
    ),
)


@pytest.mark.parametrize(
    "scheme, law", [named(s, law) for s in SCHEME_VALUES for law in SCHEME_LAWS]
)
def test_a_scheme_obeys_the_law(scheme, law):
    assert not (breach := law.breach(scheme)), f"{law.says} But {breach}."


@pytest.mark.parametrize(
    "case, law", [named(c, law) for c in CASES for law in LAWS if law.applies(c)]
)
def test_a_scheme_at_a_site_obeys_the_law(case, law):
    assert not (breach := law.breach(case)), f"{law.says} But {breach}."


@pytest.mark.parametrize("site", SITES.values(), ids=lambda site: site.name)
def test_no_scheme_leaves_every_site_alone(site):
    x = jnp.asarray(normal(0, shape_of(site)))
    assert same_bits(CLEAN(x, site, -x), x)
    if site.kind is Kind.LINEAR:
        assert same_bits(CLEAN.linear(x[:, 0], x, None, site), x[:, 0] @ x)


def test_base_class_leaves_sampling_to_the_scheme():
    with pytest.raises(NotImplementedError):
        Scheme().sample(Keys.of(jax.random.key(0)), SITES[Kind.HIDDEN], (3,))
