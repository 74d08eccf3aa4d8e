"""What is found wrong with a scheme of one's own, and that nothing is with a right one."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

import dropjax
from dropjax import Kind, schemes
from dropjax.core import laws
from dropjax.core.site import KINDS
from dropjax.core.trial import Trial, shape_of, site_of
from dropjax.ops.bernoulli import drop, expected_drop
from scripts import check_scheme
from tests.conftest import run_python


@schemes.scheme
class Pairs(schemes.Scheme):
    """Drops neighbouring units together, as the README shows it."""

    rate: schemes.Rate = 0.3

    acts_on: ClassVar = frozenset({Kind.HIDDEN})

    def sample(self, keys, site, shape):
        *before, units = shape
        keep = dropjax.keep_mask(keys.example, self.rate, (*before, -(-units // 2)))
        return jnp.repeat(keep, 2, axis=-1)[..., :units]

    def apply(self, noise, x, site, fallback):
        return drop(noise, x, self.rate)

    def expected(self, x, site, fallback):
        return expected_drop(x, self.rate)


@schemes.scheme
class ForgotToScale(Pairs):
    def apply(self, noise, x, site, fallback):
        return jnp.where(noise, x, jnp.zeros_like(x))


@schemes.scheme
class DropsAnAxisOfSize1(Pairs):
    """An image with one channel has half a pair, and so none."""

    acts_on: ClassVar = frozenset({Kind.FEATURE_MAP})

    def sample(self, keys, site, shape):
        *before, units = shape
        keep = dropjax.keep_mask(keys.example, self.rate, (*before, units // 2))
        return jnp.repeat(keep, 2, axis=-1)


@schemes.scheme
class ZerosAnAxisOfSize1(Pairs):
    """The same, but of the right shape: all is dropped."""

    acts_on: ClassVar = frozenset({Kind.FEATURE_MAP})

    def sample(self, keys, site, shape):
        keep = Pairs.sample(self, keys, site, shape)
        return jnp.logical_and(keep, shape[-1] > 1)


@schemes.scheme
class DividesByZero(Pairs):
    can_act_on: ClassVar = frozenset({Kind.INPUT})

    def sample(self, keys, site, shape):
        number = shape[-1] // (shape[-1] // 2)
        return Pairs.sample(self, keys, site, shape) & (number > 0)


@schemes.scheme
class IgnoresItsKey(Pairs):
    def sample(self, keys, site, shape):
        return dropjax.keep_mask(jax.random.key(1), self.rate, shape)


@schemes.scheme
class ChangesDtype(Pairs):
    def apply(self, noise, x, site, fallback):
        return Pairs.apply(self, noise, x, site, fallback).astype(jnp.float32)


@schemes.scheme
class Retraces(Pairs):
    name: str = ""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "name", f"{self.rate}")


@schemes.scheme
class OneKeyForAll(Pairs):
    def sample(self, keys, site, shape):
        return dropjax.keep_mask(keys.step, self.rate, shape)


@schemes.scheme
class ActsAtRate0(Pairs):
    def apply(self, noise, x, site, fallback):
        return drop(noise, (0.99 * x).astype(x.dtype), self.rate)


@schemes.scheme
class NanAtRate1(Pairs):
    def apply(self, noise, x, site, fallback):
        scale = jnp.asarray(1 - self.rate, x.dtype)
        return jnp.where(noise, x / scale, jnp.zeros_like(x))


@schemes.scheme
class LosesItsText(Pairs):
    width: int = dataclasses.field(default=1, repr=False)

    def __str__(self):
        return f"{super().__str__()[:-1]},wide=1)"


@schemes.scheme
class ActsNowhere(Pairs):
    acts_on: ClassVar = frozenset()


class NotDecorated(schemes.Scheme):
    rate: schemes.Rate = 0.3
    acts_on: ClassVar = frozenset({Kind.HIDDEN})
    sample, apply = Pairs.sample, Pairs.apply


@schemes.scheme
class Raises(Pairs):
    def apply(self, noise, x, site, fallback):
        raise RuntimeError("no such thing\nand more")


@schemes.scheme
class WrongMean(Pairs):
    def expected(self, x, site, fallback):
        return 0.5 * x


@schemes.scheme
class TakesBadRates(Pairs):
    def __post_init__(self):
        pass


@schemes.scheme
class OtherNoiseShape(Pairs):
    def noise_shape(self, site, shape):
        return (1,)


@schemes.scheme
class NoiseOfInt8(Pairs):
    def sample(self, keys, site, shape):
        return Pairs.sample(self, keys, site, shape).astype(jnp.int8)

    def apply(self, noise, x, site, fallback):
        return drop(noise > 0, x, self.rate)


@schemes.scheme
class DoesNothing(Pairs):
    def apply(self, noise, x, site, fallback):
        return x


@schemes.scheme
class StopsTheGradient(Pairs):
    def apply(self, noise, x, site, fallback):
        return drop(noise, jax.lax.stop_gradient(x), self.rate)


@schemes.scheme
class StopsTheSlope(StopsTheGradient):
    linear_in_x: ClassVar = False


@schemes.scheme
class LooksAtItsRate(Pairs):
    """Another scheme where the rate is traced."""

    def sample(self, keys, site, shape):
        keep = Pairs.sample(self, keys, site, shape)
        return keep if isinstance(self.rate, float) else ~keep


@schemes.scheme
class LooksAtTheExample(Pairs):
    """Another scheme where the example is mapped over."""

    def sample(self, keys, site, shape):
        keep = Pairs.sample(self, keys, site, shape)
        return keep if isinstance(keys.example_id, int) else ~keep


@schemes.scheme
class TurnsTheWhole(Pairs):
    """A step of a scan sees a row that the whole does not have there."""

    acts_on: ClassVar = frozenset({Kind.EMBED})

    def apply(self, noise, x, site, fallback):
        return drop(noise[::-1] if noise.ndim == 2 else noise, x, self.rate)


@schemes.scheme
class WantsMore(Pairs):
    def wants(self, site):
        return site.kind in (Kind.HIDDEN, Kind.EMBED)


@schemes.scheme
class ScaledWithoutARate(schemes.Scheme):
    width: float = 2.0

    acts_on: ClassVar = frozenset({Kind.HIDDEN})

    def scaled(self, strength):
        return dataclasses.replace(self, width=self.width * strength)


@schemes.scheme
class ScalesTheBias(Pairs):
    """Of a dense layer, at evaluation."""

    acts_on: ClassVar = frozenset({Kind.LINEAR})

    def expected_linear(self, x, w, b, site):
        return Pairs.expected_linear(self, x, w, None if b is None else 2 * b, site)


@schemes.scheme
class DoublesRows(Pairs):
    acts_on: ClassVar = frozenset({Kind.TOKENS})
    resizes: ClassVar = True

    def apply(self, noise, x, site, fallback):
        return 2 * x[1:]

    def expected(self, x, site, fallback):
        return x


BREAKS = {
    OtherNoiseShape: ("noise_broadcasts_against_the_value", "noise_shape says (1,)"),
    NoiseOfInt8: ("noise_can_be_looked_at", "is int8[12] as an array"),
    DoesNothing: ("something_happens_at_its_rate", "left the value as it is"),
    StopsTheGradient: ("gradient_is_the_factor_that_x_was_multiplied_by", "off by up to 1.43"),
    StopsTheSlope: ("gradient_is_the_slope_for_given_noise", "from the slope"),
    LooksAtItsRate: ("jit_equals_eager", "they differ by"),
    LooksAtTheExample: ("vmap_equals_loop", "row 0: they differ by"),
    TurnsTheWhole: ("noise_before_a_scan_and_applied_inside_equals_the_whole", "differ by"),
    WantsMore: ("sites_it_does_not_want_are_untouched", "it wants EMBED sites"),
    ScaledWithoutARate: ("strength_does_nothing_where_there_is_no_rate", "width=0.0"),
    ScalesTheBias: ("mean_of_a_linear_layer_is_expected", "standard errors"),
    DoublesRows: ("leaves_out_rows_and_nothing_else", "other rows than those of x"),
}
"""Each scheme: a law that it breaks, and a part of what is found."""
ALSO = [
    (LooksAtItsRate, "rates_stack_into_lanes", "at rate 0.1: they differ by"),
    (IgnoresItsKey, "links_of_a_chain", "draws the noise of the first"),
    (IgnoresItsKey, "forks_are_independent_of_each_other", "eight forks"),
]

WRONG = {
    ForgotToScale: ("at HIDDEN sites", "mean over noise", "about 0.7 times `expected`"),
    DropsAnAxisOfSize1: ("of shape (2, 3, 1)", "size 1 along an axis", "(2, 3, 0)"),
    ZerosAnAxisOfSize1: ("of shape (2, 3, 1)", "rates from 0 to 1", "the mean of 2000 draws"),
    DividesByZero: ("at INPUT sites, of shape (2, 3, 1)", "size 1", "raises ZeroDivisionError"),
    IgnoresItsKey: ("at HIDDEN sites", "another key another", "33 keys give one result"),
    ChangesDtype: ("at HIDDEN sites", "shape and dtype", "of bfloat16[12] `apply` makes float32"),
    Retraces: ("at HIDDEN sites", "One compiled program", "were traced 2 times"),
    OneKeyForAll: ("at HIDDEN sites", "noise of their own", "eight examples"),
    ActsAtRate0: ("at HIDDEN sites", "At rate 0", "at rate 0, with noise, the value changes"),
    NanAtRate1: ("at HIDDEN sites", "Gradients are finite", "at a traced rate of 1 "),
    LosesItsText: ("as a scheme", "text is read back", "wide"),
    ActsNowhere: ("as a scheme", "acts on some kind", "acts_on names no kind"),
    NotDecorated: ("as a scheme", "Decorate the class", "it is no pytree"),
    Raises: ("at HIDDEN sites", "shape and dtype", "raises RuntimeError: no such thing."),
    WrongMean: ("at HIDDEN sites", "mean over noise", "about 2 times `expected`"),
    TakesBadRates: ("as a scheme", "is refused", "rate=-0.1 is taken"),
}
"""Each wrong scheme: where, a part of the law, and a part of what is found."""


def test_a_right_scheme_passes():
    found = list(check_scheme.report(f"{__name__}:Pairs"))
    assert all(holds for _, holds in found), found
    assert [text.partition(":")[2] for text, _ in found][-1].endswith("all 2 laws hold")


@pytest.mark.parametrize("cls", WRONG, ids=lambda cls: cls.__name__)
def test_what_is_wrong_is_said(cls):
    broken = []
    for text, holds in check_scheme.report(f"{__name__}:{cls.__name__}"):
        if not holds:
            assert "What to do: " in text
            broken.append(text)
            if all(part in text for part in WRONG[cls]):
                return
    pytest.fail("\n".join(broken))


@pytest.mark.parametrize("cls, name, said", [(cls, *found) for cls, found in BREAKS.items()] + ALSO)
def test_the_law_can_be_broken(cls, name, said):
    (law,) = [law for law in (*laws.SCHEME_LAWS, *laws.SITE_LAWS) if law.name == name]
    tried = cls()
    if law in laws.SITE_LAWS:
        (kind,) = cls.acts_on
        tried = Trial.of(tried, site_of(kind), shared=False)
        assert law.applies(tried)
    assert said in law.breach(tried)


def test_each_law_is_broken_by_some_scheme():
    broken = {name for name, _ in BREAKS.values()} | {name for _, name, _ in ALSO}
    for law in (*laws.SCHEME_LAWS, *laws.SITE_LAWS, *laws.EDGE_LAWS):
        texts = (law.says, law.advice)
        wrong = [parts for parts in WRONG.values() if any(parts[1] in text for text in texts)]
        # The last is the draw's: no scheme can break it.
        assert wrong or law.name in {*broken, "a_linear_site_takes_one_link"}, law.name


def test_noise_that_is_meant_to_be_shared_may_be():
    found = list(check_scheme.report(f"{__name__}:OneKeyForAll", shared=True))
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
