"""Schemes and other objects from text, and back."""

import dataclasses

import numpy as np
import pytest

from dropjax import schemes
from dropjax.core.registry import Registry
from dropjax.core.scheme import SCHEMES, Chain
from dropjax.core.spec import build, parse
from dropjax.models import MODELS
from dropjax.models.mlp import MLP
from dropjax.schemes.bernoulli import Bernoulli
from dropjax.schemes.dropconnect import DropConnect
from dropjax.schemes.none import NoDropout
from dropjax.schemes.variational import Variational
from dropjax.schemes.zoneout import Zoneout


@pytest.mark.parametrize(
    "scheme, text",
    [
        (NoDropout(), "none"),
        (Bernoulli(), "bernoulli(rate=0.5)"),
        (Bernoulli(0), "bernoulli(rate=0.0)"),
        (Bernoulli(1), "bernoulli(rate=1.0)"),
        (Bernoulli(1e-9), "bernoulli(rate=1e-09)"),
        (Bernoulli(0.2, at="input"), 'bernoulli(rate=0.2,at="input")'),
        (Bernoulli(0.2, "test", at="^a"), 'bernoulli(rate=0.2,scaling="test",at="^a")'),
        (DropConnect(0.1, mode="example"), 'dropconnect(rate=0.1,mode="example")'),
        (Variational(), "variational(rate=0.25)"),
        (
            Chain((Zoneout(0.5, at="cell"), Zoneout(0.05, at="state"))),
            'zoneout(rate=0.5,at="cell")|zoneout(rate=0.05,at="state")',
        ),
        (
            Chain((Bernoulli(), NoDropout(), Bernoulli())),
            "bernoulli(rate=0.5)|none|bernoulli(rate=0.5)",
        ),
    ],
)
def test_scheme_to_text_and_back(scheme, text):
    assert str(scheme) == text
    assert parse(text) == scheme


@pytest.mark.parametrize("at", ["a|b", "'", '"', "\"'|", r"layer_\d+$", r"\(", "[|]", r"a\"b", "é"])
def test_any_regular_expression_goes_through_text(at):
    scheme = Bernoulli(0.3, at=at)
    assert parse(str(scheme)) == scheme
    chain = Chain((scheme, Zoneout(), scheme))
    assert parse(str(chain)) == chain
    assert len(parse(str(chain)).links) == 3


@pytest.mark.parametrize("rate", [np.float64(0.3), np.float32(0.25), np.array(0.5)])
def test_a_numpy_rate_goes_through_text(rate):
    scheme = Bernoulli(rate)
    assert parse(str(scheme)).rate == pytest.approx(float(rate), rel=1e-6)


def test_the_text_is_read_leniently():
    assert parse(" bernoulli ( rate = 0.25 , ) | zoneout() ") == Chain((Bernoulli(0.25), Zoneout()))
    assert parse("bernoulli(scaling='test')") == Bernoulli(scaling="test")


def test_a_rate_for_the_links_that_name_none():
    assert parse("bernoulli", rate=0.1) == Bernoulli(0.1)
    chain = parse("bernoulli(rate=0.4)|zoneout|none|variational", rate=0.1)
    assert chain.links == (Bernoulli(0.4), Zoneout(0.1), NoDropout(), Variational(0.1))
    # Named, though it is the default.
    assert parse("bernoulli(rate=0.5)|zoneout", rate=0.1).links[0] == Bernoulli(0.5)
    assert parse("bernoulli", rate=0) == Bernoulli(0)


@pytest.mark.parametrize("text", ["none", "bernoulli(rate=0.5)", "none|zoneout(rate=0.1)"])
def test_a_rate_that_would_set_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"rate=0\.1 would set nothing") as error:
        parse(text, rate=0.1)
    assert repr(text) in str(error.value)


ERRORS = [
    ("", ValueError, "expected a name"),
    ("bernoulli|", ValueError, "expected a name"),
    ("|bernoulli", ValueError, "expected a name"),
    ("bernoulli zoneout", ValueError, "expected a name"),
    ("bernoulli(0.5)", ValueError, "name each argument"),
    ("bernoulli(rate=half)", ValueError, "the value of rate must be a literal"),
    ("bernouli", ValueError, "no scheme 'bernouli'; did you mean bernoulli[?] There are: "),
    ("drop_connect(rate=0.1)", ValueError, "did you mean dropconnect"),
    ("non", ValueError, "no scheme 'non'; did you mean none[?] There are: alpha, attention, b"),
    ("zzz", ValueError, "no scheme 'zzz'[.] There are: .*zoneout"),
    ("Bernoulli", ValueError, "did you mean bernoulli"),
    ("bernoulli(rat=0.5)", ValueError, "has no argument 'rat'; it takes at, rate, scaling"),
    ("none(rate=0.5)", ValueError, "none has no argument 'rate'; it takes none"),
    ("none(at='x')", ValueError, "none has no argument 'at'"),
    ("bernoulli(acts_on=1)", ValueError, "bernoulli has no argument 'acts_on'"),
    ("bernoulli(rate='a')", TypeError, "bernoulli: rate must be a number, got 'a'"),
    ("bernoulli(rate=True)", TypeError, "bernoulli: rate must be a number, got True"),
    ("bernoulli(rate=None)", TypeError, "bernoulli: rate must be a number, got None"),
    ("bernoulli(rate=1.5)", ValueError, "rate is the probability of dropping"),
    ("bernoulli(rate=-0.1)", ValueError, "rate is the probability of dropping"),
    ("bernoulli(rate=1e999)", ValueError, "rate is the probability of dropping"),
    ("bernoulli(scaling='a')", TypeError, "scaling must be one of 'train', 'test', got 'a'"),
    ("bernoulli(at=1)", TypeError, "bernoulli: at must be a string, got 1"),
    ("bernoulli(at='(')", ValueError, "at='[(]' is not a regular expression"),
    ("dropconnect(mode='x')", TypeError, "mode must be one of 'batch', 'example'"),
]


@pytest.mark.parametrize("text, error, match", ERRORS, ids=[text for text, _, _ in ERRORS])
def test_errors(text, error, match):
    with pytest.raises(error, match=match):
        parse(text)
    if "|" not in text:
        with pytest.raises(error, match=match):
            parse(f"zoneout|{text}")


@pytest.mark.parametrize(
    "make, error, match",
    [
        (lambda: Bernoulli("0.5"), TypeError, "^rate must be a number"),
        (lambda: Bernoulli(scaling="a"), TypeError, "^scaling must be one of"),
        (lambda: Bernoulli(at=1), TypeError, "^at must be a string"),
        (lambda: Bernoulli(at="["), ValueError, "is not a regular expression"),
        (lambda: dataclasses.replace(Bernoulli(), rate=2), ValueError, "^rate is the probability"),
        (lambda: Chain((Bernoulli(),), at="a"), ValueError, "a chain has no `at`"),
    ],
)
def test_a_scheme_made_by_hand_is_checked_too(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_what_the_caller_sets_the_text_may_not():
    assert build(MODELS, "mlp(widths=(3,))", outputs=2) == MLP(2, (3,))
    with pytest.raises(ValueError, match="mlp has no argument 'outputs'; it takes widths"):
        build(MODELS, "mlp(outputs=3)", outputs=2)


def test_build_looks_in_the_registry_it_is_given():
    with pytest.raises(ValueError, match="no model 'bernoulli'"):
        build(MODELS, "bernoulli", outputs=2)
    with pytest.raises(ValueError, match="no scheme 'mlp'"):
        build(SCHEMES, "mlp")
    assert isinstance(SCHEMES, Registry)


def test_a_rate_that_is_not_annotated_as_one_is_refused():
    """No schedule and no check would know of it."""
    with pytest.raises(TypeError, match=r"Loose\.rate must be annotated dropjax\.schemes\.Rate"):

        @schemes.scheme
        class Loose(schemes.Scheme):
            rate: float = 0.5

    with pytest.raises(TypeError, match=r"Bare\.rate must be annotated dropjax\.schemes\.Rate"):

        @schemes.scheme
        class Bare(schemes.Scheme):
            rate = 0.5


class Undecorated(schemes.Scheme):
    """A scheme that its author forgot to decorate."""


def test_a_class_that_is_not_decorated_is_refused():
    with pytest.raises(ValueError, match=r"decorate the class with dropjax\.schemes\.scheme"):
        parse("tests.core.test_spec:Undecorated")
