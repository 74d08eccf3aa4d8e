"""What is found wrong with a scheme of one's own, and that nothing is with a right one."""

import dataclasses
import re
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import dropjax
from dropjax import Kind, schemes
from dropjax.core import laws
from dropjax.core.site import KINDS
from dropjax.core.trial import Trial, shape_of, site_of
from dropjax.ops.bernoulli import drop
from scripts import check_scheme
from tests.conftest import ROOT, run_python

LAWS = (*laws.SCHEME_LAWS, *laws.SITE_LAWS, *laws.EDGE_LAWS)


# `Pairs`, the scheme that the README shows, as if it stood here: pairs of units are dropped.
README = (ROOT / "dropjax" / "README.md").read_text()
exec(re.findall(r"^```python\n(# mymodule.py\n.*?)^```", README, re.M | re.S)[0])
Pairs = globals()["Pairs"]


@schemes.scheme
class Retraces(Pairs):
    name: str = ""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "name", f"{self.rate}")


@schemes.scheme
class LosesItsText(Pairs):
    width: int = dataclasses.field(default=1, repr=False)

    def __str__(self):
        return f"{super().__str__()[:-1]},wide=1)"


class NotDecorated(schemes.Scheme):
    rate: schemes.Rate = 0.3
    acts_on: ClassVar = frozenset({Kind.HIDDEN})
    sample, apply = Pairs.sample, Pairs.apply


@schemes.scheme
class ScaledWithoutARate(schemes.Scheme):
    width: float = 2.0

    acts_on: ClassVar = frozenset({Kind.HIDDEN})

    def scaled(self, strength):
        return dataclasses.replace(self, width=self.width * strength)


def half_pairs(self, keys, site, shape):
    """An image with one channel has half a pair, and so none."""
    *before, units = shape
    return jnp.repeat(dropjax.keep_mask(keys.example, self.rate, (*before, units // 2)), 2, axis=-1)


def divides_by_0(self, keys, site, shape):
    return Pairs.sample(self, keys, site, shape) & (shape[-1] // (shape[-1] // 2) > 0)


def looks_at_its_rate(self, keys, site, shape):
    """Another scheme where the rate is traced."""
    keep = Pairs.sample(self, keys, site, shape)
    return keep if isinstance(self.rate, float) else ~keep


def looks_at_the_example(self, keys, site, shape):
    """Another scheme where the example is mapped over."""
    keep = Pairs.sample(self, keys, site, shape)
    return keep if isinstance(keys.example_id, int) else ~keep


def ignores_its_key(self, keys, site, shape):
    return dropjax.keep_mask(jax.random.key(1), self.rate, shape)


def one_key_for_all(self, keys, site, shape):
    return dropjax.keep_mask(keys.step, self.rate, shape)


def none_of_size_1(self, keys, site, shape):
    return jnp.logical_and(Pairs.sample(self, keys, site, shape), shape[-1] > 1)


def of_int8(self, keys, site, shape):
    return Pairs.sample(self, keys, site, shape).astype(jnp.int8)


def unscaled(self, noise, x, site, fallback):
    return jnp.where(noise, x, jnp.zeros_like(x))


def to_float32(self, noise, x, site, fallback):
    return drop(noise, x, self.rate).astype(jnp.float32)


def smaller(self, noise, x, site, fallback):
    return drop(noise, (0.99 * x).astype(x.dtype), self.rate)


def divided_by_what_may_be_0(self, noise, x, site, fallback):
    scale = jnp.asarray(1 - self.rate, x.dtype)
    return jnp.where(noise, x / scale, jnp.zeros_like(x))


def raises(self, noise, x, site, fallback):
    raise RuntimeError("no such thing\nand more")


def stops_the_gradient(self, noise, x, site, fallback):
    return drop(noise, jax.lax.stop_gradient(x), self.rate)


def turns_the_whole(self, noise, x, site, fallback):
    """A step of a scan sees a row that the whole does not have there."""
    return drop(noise[::-1] if noise.ndim == 2 else noise, x, self.rate)


def the_same(self, noise, x, site, fallback):
    return x


def doubles_rows(self, noise, x, site, fallback):
    return 2 * x[1:]


def wants_more(self, site):
    return site.kind in (Kind.HIDDEN, Kind.EMBED)


def scales_the_bias(self, x, w, b, site):
    return Pairs.expected_linear(self, x, w, None if b is None else 2 * b, site)


class Wrong(NamedTuple):
    """The beginning of a law's name, a part of what is found, and a scheme that breaks the law."""

    law: str
    said: str
    cls: type[schemes.Scheme]


def wrong(law, said, *, at=Kind.HIDDEN, **parts):
    """`Pairs` with some parts replaced; this module has it under the name `law`."""
    parts = {"acts_on": frozenset({at}), "__module__": __name__} | parts
    globals()[law] = schemes.scheme(type(law, (Pairs,), parts))
    return Wrong(law, said, globals()[law])


WRONG = [
    Wrong("is_a_hashable_value_and_a_pytree", "it is no pytree", NotDecorated),
    Wrong("text_round_trip", "wide", LosesItsText),
    wrong("bad_rates", "rate=-0.1 is taken", __post_init__=lambda self: None),
    wrong("acts_somewhere", "acts_on names no kind", acts_on=frozenset()),
    wrong("sites_it_does_not_want", "it wants EMBED sites", wants=wants_more),
    Wrong("strength_does_nothing", "width=0.0", ScaledWithoutARate),
    wrong("keeps_shape_and_dtype", "of bfloat16[12] `apply` makes float32", apply=to_float32),
    wrong("keeps_shape_and", "raises RuntimeError: no such thing", apply=raises),
    Wrong("does_not_retrace", "were traced 2 times", Retraces),
    wrong("leaves_out_rows", "other rows", at=Kind.TOKENS, resizes=True, apply=doubles_rows),
    wrong("noise_broadcasts", "noise_shape says (1,)", noise_shape=lambda self, site, shape: (1,)),
    wrong("noise_can_be_looked_at", "is int8[12] as an array", sample=of_int8),
    wrong("examples_share", "eight examples", sample=one_key_for_all),
    wrong("nothing_happens", "at rate 0, with noise, the value changes", apply=smaller),
    wrong("something_happens", "left the value as it is", apply=the_same),
    wrong("mean_over_noise", "about 0.5 times `expected`", apply=unscaled),
    wrong("mean_of_a_linear", "standard errors", at=Kind.LINEAR, expected_linear=scales_the_bias),
    wrong("gradient_is_the_factor", "off by up to 2", apply=stops_the_gradient),
    wrong("gradient_is_the_slope", "slope", apply=stops_the_gradient, linear_in_x=False),
    wrong("same_key", "33 keys give one result", sample=ignores_its_key),
    wrong("jit_equals_eager", "they differ by", sample=looks_at_its_rate),
    wrong("vmap_equals_loop", "row 0: they differ by", sample=looks_at_the_example),
    wrong("gradients_are_finite", "at a traced rate of 1 ", apply=divided_by_what_may_be_0),
    wrong("rates_stack_into_lanes", "at rate 0.1: they differ by", sample=looks_at_its_rate),
    wrong("noise_before_a_scan", "differ by", at=Kind.EMBED, apply=turns_the_whole),
    wrong("links_of_a_chain", "draws the noise of the first", sample=ignores_its_key),
    wrong("forks_are_independent", "eight forks", sample=ignores_its_key),
    wrong("keeps_shape", "(2, 3, 0)", at=Kind.FEATURE_MAP, sample=half_pairs),
    wrong("mean_is_expected", "2000 draws", at=Kind.FEATURE_MAP, sample=none_of_size_1),
]
wrong("DividesByZero", "", can_act_on=frozenset({Kind.INPUT}), sample=divides_by_0)
REPORTED = {
    "mean_over_noise": ("at HIDDEN sites", "mean over noise", "about 0.5 times `expected`"),
    "keeps_shape": ("of shape (2, 3, 1)", "size 1 along an axis", "(2, 3, 0)"),
    "DividesByZero": ("at INPUT sites, of shape (2, 3, 1)", "size 1", "raises ZeroDivisionError"),
    "acts_somewhere": ("as a scheme", "acts on some kind", "acts_on names no kind"),
    "NotDecorated": ("as a scheme", "Decorate the class", "it is no pytree"),
    "keeps_shape_and": (
        "at HIDDEN sites",
        "shape and dtype",
        "raises RuntimeError: no such thing.",
    ),
}
"""Names of schemes: where, a part of the law, and a part of what is found."""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.law)
def test_the_law_can_be_broken(wrong):
    law = law_of(wrong)
    tried = [wrong.cls()]
    if law not in laws.SCHEME_LAWS:
        (kind,) = wrong.cls.acts_on
        trial = Trial.of(wrong.cls(), site_of(kind), shared=False)
        tried = [trial] if law in laws.SITE_LAWS else trial.edges
    assert all(map(law.applies, tried))
    breaches = [laws._verdict("", law, each).breach for each in tried]
    assert any(wrong.said in breach for breach in breaches), breaches


def law_of(wrong):
    found = [law for law in LAWS if law.name.startswith(wrong.law)]
    return next((law for law in found if law.name == wrong.law), found[0])


def test_each_law_is_broken_by_some_scheme():
    # The last is the draw's: no scheme can break it.
    broken = {law_of(wrong).name for wrong in WRONG} | {"a_linear_site_takes_one_link"}
    assert broken == {law.name for law in LAWS}


@pytest.mark.parametrize("name", REPORTED)
def test_what_is_wrong_is_said(name):
    found = check_scheme.report(f"{__name__}:{name}")
    broken = [text for text, holds in found if not holds]
    assert broken and all("What to do: " in text for text in broken)
    assert any(all(part in text for part in REPORTED[name]) for text in broken), broken


def test_a_right_scheme_passes():
    found = list(check_scheme.report(f"{__name__}:Pairs"))
    assert all(holds for _, holds in found), found
    assert [text.partition(":")[2] for text, _ in found][-1].endswith("all 2 laws hold")


def test_noise_that_is_meant_to_be_shared_may_be():
    found = list(check_scheme.report(f"{__name__}:examples_share", shared=True))
    assert all(holds for _, holds in found), found
    found = list(check_scheme.report(f"{__name__}:Pairs", shared=True))
    assert any("their noise differs" in text for text, _ in found)


def test_the_laws_are_tried_along_each_axis():
    site = site_of(Kind.FEATURE_MAP)
    shapes = [edge.shape for edge in Trial.of(Pairs(at="x"), site).edges]
    assert shapes == [(1, 3, 4), (2, 1, 4), (2, 3, 1), (1, 1, 1)]
    assert all(shape_of(site_of(kind)) for kind in KINDS)


def test_what_cannot_be_made_is_said():
    ((text, holds),) = check_scheme.report(f"{__name__}:NotDecorated(rate=0.5)")
    assert not holds and "cannot be made" in text and "Decorate the class" in text
    ((text, holds),) = check_scheme.report("no_such_module:Pairs")
    assert not holds and "cannot import" in text


def test_the_program_ends_with_1_if_a_law_is_broken():
    done = run_python("-m", "scripts.check_scheme", "tests.throwaway:WrongShape")
    assert done.returncode == 1, done.stderr
    assert "Broken: " in done.stdout and "A law is broken." in done.stdout
