"""Boxes at random places: the ends of their range."""

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.ops.boxes import inside
from dropjax.ops.uniform import below, uniform
from tests.ops.reference import words_of

KEY = jax.random.key(51)


def test_uniform_numbers_are_the_leading_24_bits_of_their_words():
    wanted = (words_of(KEY, (50,)) >> 8) / 2.0**24
    np.testing.assert_array_equal(uniform(KEY, (50,)), wanted)


def test_an_integer_is_below_its_bound_whatever_the_word(monkeypatch):
    bounds = np.concatenate(
        [np.arange(1, 5000), 2 ** np.arange(13, 25), 2 ** np.arange(13, 24) - 1]
    )
    for word, wanted in ((0, 0 * bounds), (2**32 - 1, bounds - 1)):
        of = jnp.full(bounds.shape, word, jnp.uint32)
        monkeypatch.setattr("dropjax.ops.uniform.words", lambda seed, shape, of=of: of)
        found = below(KEY, bounds.shape, jnp.asarray(bounds, jnp.int32))
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, wanted)


def test_a_box_is_where_it_begins_and_as_long_as_it_is_and_may_stick_out():
    first = jnp.asarray([-1, 0, 3, 9], jnp.int32).reshape(4, 1)
    found = inside((4, 5), {1: first}, {1: jnp.asarray([3, 0, 2, 1], jnp.int32).reshape(4, 1)})
    assert found.astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0],
    ]
