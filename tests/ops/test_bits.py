"""Random words by counter: the hash against Python's integers, for any shape and any part of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from dropjax.ops.bits import seed_of, words
from tests.ops import reference
from tests.ops.reference import word

SEED = jnp.array([0xFFFFFFF0, 0x12345678], jnp.uint32)  # the counter wraps around

by_hand = np.array([word(i, 0xFFFFFFF0, 0x12345678) for i in range(210)], np.uint32)


@pytest.mark.parametrize(
    "shape", [(), (1,), (0,), (3, 0, 2), (7,), (210,), (5, 1, 6, 7), (1, 1, 210), (30, 7)]
)
def test_word_i_is_the_hash_of_i_whatever_the_shape(shape):
    actual = words(SEED, shape)
    assert actual.dtype == np.uint32
    np.testing.assert_array_equal(actual, by_hand[: actual.size].reshape(shape))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("number", [0, 3, 2**32 - 1])
def test_the_seed_is_the_keys_words_mixed(number, impl):
    key = jax.random.key(number, impl=impl)
    assert tuple(seed_of(key).tolist()) == reference.seed(key)


def test_the_reference_for_many_words_is_that_for_one():
    key = jax.random.key(2**32 - 1)
    one_by_one = [word(i, *reference.seed(key)) for i in range(200)]
    np.testing.assert_array_equal(reference.words_of(key, (10, 20)).ravel(), one_by_one)


def test_no_key_has_the_seed_of_another_nor_draws_its_words_elsewhere():
    keys = jax.vmap(jax.random.key)(jnp.arange(2**16, dtype=jnp.uint32))
    seeds = np.asarray(jax.vmap(seed_of)(keys))
    assert len(np.unique(seeds, axis=0)) == len(seeds)
    # Equal second halves would make one stream a part of the other.
    by_second = seeds[np.argsort(seeds[:, 1])].astype(np.int64)
    equal = by_second[1:, 1] == by_second[:-1, 1]
    assert (np.abs(np.diff(by_second[:, 0]))[equal] > 2**20).all()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_seeds_under_vmap_are_those_of_the_loop(impl):
    keys = [jax.random.fold_in(jax.random.key(3, impl=impl), i) for i in range(4)]
    keys += [jax.random.key(i, impl=impl) for i in range(4)]
    loop = np.stack([seed_of(key) for key in keys])
    np.testing.assert_array_equal(jax.jit(jax.vmap(seed_of))(jnp.stack(keys)), loop)
    assert len(np.unique(loop)) == loop.size


def test_a_part_is_what_indexing_gives():
    whole = by_hand.reshape(5, 6, 7)
    for i in (0, 4):
        np.testing.assert_array_equal(words(SEED, (5, 6, 7), (i,)), whole[i])
        np.testing.assert_array_equal(words(SEED, (5, 6, 7), (i, 3)), whole[i, 3])
        np.testing.assert_array_equal(words(SEED, (5, 6, 7), (i, 3, 2)), whole[i, 3, 2])
    traced = jax.jit(jax.vmap(lambda i: words(SEED, (5, 6, 7), (i,))))
    np.testing.assert_array_equal(traced(jnp.arange(5)), whole)


def test_vmap_over_seeds_is_the_loop():
    seeds = jax.random.bits(jax.random.key(0), (4, 2))
    mapped = jax.jit(jax.vmap(lambda seed: words(seed, (3, 5))))(seeds)
    for seed, actual in zip(seeds.tolist(), mapped.tolist(), strict=True):
        assert actual == [[word(5 * i + j, *seed) for j in range(5)] for i in range(3)]


def test_x64_mode_changes_nothing():
    with jax.enable_x64(True):
        np.testing.assert_array_equal(words(SEED, (30, 7)), by_hand.reshape(30, 7))
        np.testing.assert_array_equal(words(SEED, (30, 7), (jnp.int64(2),)), by_hand[14:21])


def test_up_to_4_gibi_words_one_seed_serves():
    shape = (2**16, 2**16)
    for i, j in [(0, 1), (1, 0), (2**15, 7), (2**16 - 1, 2**16 - 1)]:
        assert int(words(SEED, shape, (i, j))) == word(2**16 * i + j, *SEED.tolist())


def test_beyond_that_the_leading_axes_count_seeds():
    shape, seed = (3, 2**13, 2**10, 2**10), SEED.tolist()
    for i, j, k in [(0, 0, 5), (2, 8191, 1023), (1, 7, 0)]:
        high = 8192 * i + j
        lower = (word(high, *seed), word(high, *reversed(seed)))
        assert int(words(SEED, shape, (i, j, k, 9))) == word(1024 * k + 9, *lower)
    # Neighbours on either side of the divide have nothing in common.
    rows = [words(SEED, shape, at) for at in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]]
    for a in range(4):
        for b in range(a):
            assert np.intersect1d(rows[a], rows[b]).size <= 1


def test_sizes_that_are_left_open_change_no_word():
    """As with `jax.export`: what stands there when the function runs counts."""
    sizes = export.symbolic_shape("a, b")

    def some(x):
        a, b = x.shape
        return (
            words(SEED, (2, a, 3, b)),
            words(SEED, (a, b), (1,)),
            words(SEED, (a, 2**16, b), (2,)),
        )

    exported = export.export(jax.jit(some))(jax.ShapeDtypeStruct(sizes, jnp.float32))
    for x in (np.zeros((3, 5), np.float32), np.zeros((4, 1), np.float32)):
        for actual, expected in zip(exported.call(x), some(x), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_an_axis_longer_than_the_counter_is_refused():
    with pytest.raises(ValueError, match=r"longer than 2\*\*32.*reshape"):
        words(SEED, (2**32 + 1,))
    assert int(words(SEED, (2**32, 1), (jnp.uint32(2**32 - 1),))[0]) == word(
        2**32 - 1, *SEED.tolist()
    )


def test_the_jaxpr_is_short():
    """Compilation costs: some 40 operations a mask, none of them a loop."""
    jaxpr = jax.make_jaxpr(lambda seed: words(seed, (8, 16)))(SEED)
    assert len(jaxpr.eqns) < 50
    assert "while" not in str(jaxpr) and "scan" not in str(jaxpr)
