"""The site table and what is refused before anything runs."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

from dropjax import schemes
from dropjax.core import plan
from dropjax.core.draw import Draw
from dropjax.core.scheme import Chain
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import keep_mask
from dropjax.schemes import parse
from tests.throwaway import LearnedRate

HIDDEN = Site("hidden", Kind.HIDDEN, ("feature",))
LINEAR = Site("linear", Kind.LINEAR, ("input", "output"))


def model(draw: Draw):
    x = draw.linear(jnp.ones(3), jnp.ones((3, 4)), None, LINEAR)
    noise = draw.scope("a").noise(HIDDEN, (4,))
    x = draw.scope("a").apply(noise, x, HIDDEN)
    return draw.scope("a").scope("b")(x, HIDDEN)


def test_records_names_with_scopes_in_order_and_computes_nothing():
    def failing_if_computed(draw):
        jax.debug.callback(lambda: pytest.fail("the model was run"))
        return model(draw)

    sites = plan.record(failing_if_computed)
    assert [(name, shape) for name, (_, shape) in sites.items()] == [
        ("linear", (3, 4)),
        ("a/hidden", (4,)),
        ("a/b/hidden", (4,)),
    ]
    assert all(site.name == name for name, (site, _) in sites.items())


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match=r"'hidden' twice"):
        plan.record(lambda draw: draw(draw(jnp.ones(3), HIDDEN), HIDDEN))
    with pytest.raises(ValueError, match=r"'hidden' twice"):  # in one fork
        plan.record(lambda draw: [draw.fork(1)(jnp.ones(3), HIDDEN) for _ in range(2)])


def test_a_fork_may_meet_the_same_sites_and_others():
    other = Site("other", Kind.HIDDEN, ("feature",))

    def model(draw):
        for part in (draw, draw.fork(1), draw.fork(1).fork(1), draw.fork(2).scope("a")):
            part(jnp.ones(3), HIDDEN)
        draw.fork(3)(jnp.ones(3), other)

    assert list(plan.record(model)) == ["hidden", "a/hidden", "other"]


def test_axes_that_do_not_fit_the_value_are_refused():
    with pytest.raises(ValueError, match=r"names 1 axes .* shape \(2, 3\)"):
        plan.record(lambda draw: draw(jnp.ones((2, 3)), HIDDEN))


def test_table_has_a_row_for_each_link_at_each_site():
    text = plan.table(parse('bernoulli(rate=0.5)|bernoulli(rate=0.25,at="b/")'), plan.record(model))
    cells = [line.split("  ") for line in text.splitlines()]
    rows = [[c.strip() for c in line if c.strip()] for line in cells]
    assert rows == [
        ["site", "kind", "shape", "scheme", "noise", "rate"],
        ["linear", "LINEAR", "(3, 4)", "-", "-", "-"],
        ["a/hidden", "HIDDEN", "(4,)", "bernoulli(rate=0.5)", "(4,)", "0.5"],
        ["a/b/hidden", "HIDDEN", "(4,)", "bernoulli(rate=0.5)", "(4,)", "0.5"],
        ["a/b/hidden", "HIDDEN", "(4,)", 'bernoulli(rate=0.25,at="b/")', "(4,)", "0.25"],
    ]


def test_table_of_a_learned_scheme():
    rows = plan.rows(LearnedRate(), plan.record(model))
    assert [row["noise"] for row in rows] == ["-", "(4,)", "(4,)"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zoneout", "zoneout.* acts on STATE sites; m declares linear .LINEAR., a/hidden"),
        ('bernoulli(at="nowhere")', "whose name matches 'nowhere'"),
        ("bernoulli|zoneout", "zoneout.* acts on STATE"),
        ("bernoulli|none", "none does nothing in a chain"),
        ("variational", "no site it acts on has a time axis"),
        ("dropconnect|dropconnect(rate=0.1)", "both act on the linear site 'linear'"),
    ],
)
def test_a_link_that_would_do_nothing_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        plan.check(parse(text), plan.record(model), "m")


def test_the_refusal_says_what_could_be_named():
    sites = plan.record(lambda draw: draw(jnp.ones(3), Site("in", Kind.INPUT, ("feature",))))
    with pytest.raises(ValueError, match="By name it can also act on INPUT sites"):
        plan.check(parse("bernoulli"), sites)


@pytest.mark.parametrize(
    "text", ["none", "bernoulli", "bernoulli|dropconnect", 'bernoulli(at="b/")']
)
def test_a_scheme_that_acts_is_let_through(text):
    plan.check(parse(text), plan.record(model))


def test_an_empty_chain_is_no_scheme_at_all():
    assert plan.rows(Chain(), plan.record(model))[1]["scheme"] == "-"


def test_names_with_one_crc32_are_refused():
    """They would draw one mask: "plumless" and "buckeroo" are the classic pair."""

    def twins(draw):
        draw(jnp.ones(3), Site("plumless", Kind.HIDDEN, ("feature",)))
        return draw(jnp.ones(3), Site("buckeroo", Kind.HIDDEN, ("feature",)))

    with pytest.raises(ValueError, match="'plumless' and 'buckeroo' have the same crc32"):
        plan.record(twins)


def test_rates_of_any_name_stand_in_the_table():
    @schemes.scheme
    class TwoRates(schemes.Scheme):
        p: schemes.Rate = 0.25
        q: schemes.Rate = 0.75
        acts_on: ClassVar = frozenset({Kind.HIDDEN})

        def sample(self, keys, site, shape):
            return keep_mask(keys.example, self.p, shape)

    rows = plan.rows(TwoRates(), plan.record(model))
    assert [row["rate"] for row in rows] == ["-", "p=0.25,q=0.75", "p=0.25,q=0.75"]


def test_a_scheme_that_names_no_kinds_is_refused():
    @schemes.scheme
    class Nowhere(schemes.Scheme):
        rate: schemes.Rate = 0.5

        def sample(self, keys, site, shape):
            return jnp.ones(shape)

    with pytest.raises(ValueError, match="acts on no kind of sites: set acts_on"):
        plan.check(Nowhere(), plan.record(model))


def test_refusals_say_what_would_help():
    @schemes.scheme
    class OnHidden(schemes.Scheme):
        rate: schemes.Rate = 0.5
        acts_on: ClassVar = frozenset({Kind.HIDDEN})

    with pytest.raises(ValueError, match=r"of kind LINEAR, which the scheme's can_act_on does not"):
        plan.check(OnHidden(at="linear"), plan.record(model))
    with pytest.raises(ValueError, match=r"It was made for cnn\(residual=True\)\."):
        plan.check(parse("stochastic_depth"), plan.record(model))
