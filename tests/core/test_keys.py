"""Keys by name and number."""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax import Keys, derive, models
from dropjax.core.draw import sampled
from dropjax.core.plan import record
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import compiled

KEY = jax.random.key(3)


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def fold(key, *numbers):
    for number in numbers:
        key = jax.random.fold_in(key, np.uint32(number))
    return key


def test_names_are_hashed_by_crc32():
    # The check value of CRC-32, from its specification.
    assert bits(derive(KEY, "123456789")) == bits(fold(KEY, 0xCBF43926))
    assert bits(derive(KEY, "")) == bits(fold(KEY, 0))
    assert bits(derive(KEY, "größe")) == bits(fold(KEY, zlib.crc32("größe".encode())))


def test_numbers_are_folded_in_as_they_are():
    for number in (0, 1, 2**31, 2**32 - 1):
        assert bits(derive(KEY, number)) == bits(fold(KEY, number))
    assert bits(derive(KEY, jnp.int32(7))) == bits(derive(KEY, np.uint32(7))) == bits(fold(KEY, 7))


def test_labels_go_down_one_level_each():
    assert bits(derive(KEY)) == bits(KEY)
    path = ("noise", 12, "examples", 5)
    step_by_step = KEY
    for label in path:
        step_by_step = derive(step_by_step, label)
    assert bits(derive(KEY, *path)) == bits(step_by_step)
    different = {bits(derive(KEY, *order)) for order in itertools.permutations(("a", "b", "c"))}
    assert len(different) == 6
    assert bits(derive(KEY, "ab")) != bits(derive(KEY, "a", "b"))


@pytest.mark.parametrize(
    "implementation", ["threefry2x32", "threefry4x32", "philox2x32", "philox4x32", "rbg"]
)
def test_keys_of_each_generator_map_as_they_loop(implementation):
    key = jax.random.key(3, impl=implementation)

    @compiled
    def mapped_and_looped():
        mapped = jax.vmap(lambda n: derive(key, n))(jnp.arange(3))
        looped = [jax.random.fold_in(key, n) for n in range(3)]
        return jax.random.key_data(mapped), [jax.random.key_data(key) for key in looped]

    np.testing.assert_array_equal(*mapped_and_looped())


def test_unsafe_rbg_is_derived_as_rbg_is():
    """Its own `fold_in` makes other keys under `jax.vmap` than in a loop, of each batch size."""
    key = jax.random.key(3, impl="unsafe_rbg")
    own = jax.random.key_data(jax.vmap(lambda n: jax.random.fold_in(key, n))(np.arange(3)))
    looped = [bits(jax.random.fold_in(key, n)) for n in range(3)]
    assert list(map(tuple, np.asarray(own).tolist())) != looped
    wanted = [bits(derive(jax.random.key(3, impl="rbg"), n)) for n in range(3)]
    assert [bits(derive(key, n)) for n in range(3)] == wanted
    mapped = jax.vmap(lambda n: derive(key, n))(np.arange(3))
    assert list(map(tuple, np.asarray(jax.random.key_data(mapped)).tolist())) == wanted
    assert mapped.dtype == key.dtype
    with jax.default_prng_impl("unsafe_rbg"):
        raw = derive(jax.random.PRNGKey(3), 2)
    assert raw.dtype == np.uint32 and tuple(raw.tolist()) == wanted[2]


def test_a_raw_key_gives_a_raw_key():
    raw = derive(jax.random.PRNGKey(3), "a", 4)
    assert raw.dtype == jnp.uint32
    assert raw.shape == (2,)
    assert bits(jax.random.wrap_key_data(raw)) == bits(derive(jax.random.key(3), "a", 4))


def test_the_keys_of_an_example():
    keys = Keys.of(KEY, 5, 2)
    assert bits(keys.example) == bits(fold(KEY, zlib.crc32(b"examples"), 5))
    assert bits(keys.step) == bits(fold(KEY, zlib.crc32(b"weights")))
    assert (keys.example_id, keys.sample_id) == (5, 2)
    plain = Keys.of(KEY)
    assert bits(plain.example) == bits(Keys.of(KEY, 0).example)
    assert (plain.example_id, plain.sample_id) == (0, 0)


def test_they_depend_on_key_and_id_alone():
    ids = np.array([4, 0, 9, 5])
    alone = {int(i): bits(Keys.of(KEY, i).example) for i in ids}
    assert len(set(alone.values())) == 4

    @compiled
    def of_batch(ids):
        keys = jax.vmap(lambda i: Keys.of(KEY, i))(ids)
        return jax.random.key_data(keys.example), jax.random.key_data(keys.step)

    for order in ([0, 1, 2, 3], [3, 1], [2, 2, 0]):  # wherever it stands, whoever it stands with
        example, step = of_batch(ids[order])
        assert [tuple(key) for key in example.tolist()] == [alone[i] for i in ids[order]]
        assert {tuple(key) for key in step.tolist()} == {bits(Keys.of(KEY).step)}
    assert bits(Keys.of(KEY, 5, 1).example) == bits(Keys.of(KEY, 5, 0).example)
    other = Keys.of(jax.random.key(4), 5)
    assert bits(other.example) != alone[5]
    assert bits(other.step) != bits(Keys.of(KEY).step)


def test_raw_keys_are_taken_and_others_refused():
    assert bits(Keys.of(jax.random.PRNGKey(3), 5).example) == bits(Keys.of(KEY, 5).example)
    for wrong in (None, 3, jax.random.split(KEY, 2)):
        with pytest.raises((TypeError, ValueError), match=r"^key must be"):
            Keys.of(wrong)


def test_within_goes_down_in_both_and_keeps_the_numbers():
    keys = Keys.of(KEY, 5, 2)
    below = jax.jit(lambda keys: keys.within("a", "b"))(keys)  # as a pytree
    assert bits(below.example) == bits(derive(keys.example, "a", "b"))
    assert bits(below.step) == bits(derive(keys.step, "a", "b"))
    assert (below.example_id, below.sample_id) == (5, 2)


SITES = {
    **record(
        lambda draw: models.parse("rnn(width=2,layers=3)", 2).init(KEY, jnp.ones((2, 2)), draw)
    ),
    **record(lambda draw: models.parse("mlp(widths=(2,2,2))", 2).init(KEY, jnp.ones(2), draw)),
}


def test_no_two_names_of_the_tree_share_a_hash():
    names = ["noise", "data", "learned", "init", "eval", "examples", "weights", *SITES]
    names += [f"{word} {i}" for word in ("link", "fork") for i in range(100)]
    names += [f"layer_{i}/{name}" for i in range(100) for name in ("hidden", "linear", "recurrent")]
    names = set(names)
    assert len({zlib.crc32(name.encode()) for name in names}) == len(names)


def test_no_two_places_of_the_run_tree_share_a_key():
    run, names = jax.random.key(0), list(SITES)
    found = {("run",): run, ("noise",): derive(run, "noise"), ("data",): derive(run, "data")}
    found |= {("init",): derive(run, "init"), ("learned",): derive(run, "learned")}
    found |= {("data", epoch): derive(run, "data", epoch) for epoch in range(4)}
    for step in range(4):
        step_key = derive(run, "noise", step)
        found["step", step] = step_key
        found["weights", step] = Keys.of(step_key).step
        for name in names:
            found["weights", step, name] = Keys.of(step_key).within(name).step
        for row in range(4):
            keys = Keys.of(step_key, row)
            found["example", step, row] = keys.example
            for name in (*names, "fork 0", "fork 1"):
                found["site", step, row, name] = keys.within(name).example
            for link in (1, 2):
                below = keys.within(names[0]).within(f"link {link}")
                found["link", step, row, link] = below.example
    data = np.stack([np.asarray(jax.random.key_data(key)) for key in found.values()])
    assert len(np.unique(data, axis=0)) == len(found)


def test_links_forks_and_sites_draw_different_masks():
    site = Site("a", Kind.HIDDEN, ("feature",))
    draw = sampled(parse("bernoulli|bernoulli|bernoulli"), KEY)
    draws = [
        draw,
        draw.fork(0),
        draw.fork(1),
        draw.scope("b"),
        sampled(draw.scheme, Keys.of(KEY, 1)),
    ]
    masks = [np.asarray(m.keep()).tobytes() for d in draws for m in d.noise(site, (64,))]
    other = Site("c", Kind.HIDDEN, ("f",))
    masks += [np.asarray(m.keep()).tobytes() for m in draw.noise(other, (64,))]
    assert len(set(masks)) == len(masks) == 18


def test_golden_mask_of_a_site():
    """Any change of this mask raises dropjax.STREAM, and writes it anew."""
    assert dropjax.STREAM == 2
    keys = Keys.of(derive(jax.random.key(0, impl="threefry2x32"), "noise", 7), 42)
    (mask,) = sampled(parse("bernoulli"), keys).noise(Site("a", Kind.HIDDEN, ("f",)), (64,))
    assert np.packbits(mask.keep()).tobytes().hex() == "2b135420a01af5a1"
