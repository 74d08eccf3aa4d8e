"""What a draw refuses of a scheme."""

import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.place import Place
from dropjax.core.scheme import Rate, Scheme, scheme
from dropjax.core.site import Kind, Site

KEY = jax.random.key(0)
SITE = Site("input", Kind.INPUT, ("height", "width", "feature"))


@scheme
class Pairs(Scheme):
    """Drops neighbouring channels together. It forgets that their number may be odd, or 1."""

    rate: Rate = 0.5
    expects: int = 0

    acts_on: ClassVar = frozenset({Kind.INPUT})
    can_act_on: ClassVar = frozenset({Kind.LINEAR})

    def sample(self, keys, site, shape) -> Any:
        *before, units = shape
        keep = dropjax.keep_mask(keys.example, self.rate, (*before, units // 2))
        return jnp.repeat(keep, 2, axis=-1)

    def apply(self, noise, x, site, fallback):
        return jnp.where(noise, x / (1 - self.rate), 0)

    def expected(self, x, site, fallback):
        return x[self.expects :]

    def linear(self, keys, x, w, b, site):
        return x


def test_a_value_of_another_shape_is_refused_with_the_scheme_and_the_site():
    """Noise of size 0 along an axis would broadcast: a layer would then have no inputs."""
    x = jnp.ones((4, 4, 1))
    said = r"Pairs\(rate=0\.5\) at the site 'input': apply returned an array of shape \(4, 4, 0\)"
    with pytest.raises(ValueError, match=said):
        sampled(Pairs(), KEY)(x, SITE)
    with pytest.raises(ValueError, match=re.sub("'input'", "'drop'", said)):
        Place.of(Pairs(), SITE.axes).sampled(KEY, x)
    assert sampled(Pairs(), KEY)(jnp.ones((4, 4, 2)), SITE).shape == (4, 4, 2)


def test_so_are_an_expectation_and_a_dense_layer():
    x, said = jnp.ones((4, 4, 2)), r"expected returned an array of shape \(3, 4, 2\)"
    with pytest.raises(ValueError, match=said):
        deterministic(Pairs(expects=1))(x, SITE)
    with pytest.raises(ValueError, match=said):
        Place.of(Pairs(expects=1), SITE.axes).expected(x)
    linear = Site("linear", Kind.LINEAR, ("input", "output"))
    with pytest.raises(ValueError, match=r"linear returned .* \(5, 3\), .* needs \(5, 2\)"):
        sampled(Pairs(at="linear"), KEY).linear(jnp.ones((5, 3)), jnp.ones((3, 2)), None, linear)
