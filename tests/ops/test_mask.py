"""Masks that are not drawn yet: what they keep, their rate, and the array that they stand for."""

import doctest

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import dropjax
from dropjax.ops import bernoulli
from dropjax.ops.bernoulli import Mask, choose, drop
from tests.compiled import compiled, keep_of
from tests.ops.reference import words_of

KEY = jax.random.key(6)


def bytes_kept(f, *args) -> int:
    """What the backward pass of `f` keeps, by shapes alone: nothing is compiled."""
    kept = jax.eval_shape(lambda *args: jax.vjp(f, *args)[1], *args)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def linen_dropout(x, key):
    return linen.Dropout(0.3, deterministic=False).apply({}, x, rngs={"dropout": key})


# What is kept for the backward pass.

X = jnp.ones((64, 32))
OPS = {
    "dropout": lambda key, x, rate: dropjax.dropout(key, x, rate),
    "unscaled": lambda key, x, rate: dropjax.dropout(key, x, rate, scaling="test"),
    "shared": lambda key, x, rate: dropjax.dropout(key, x, rate, shared_axes=0),
}


@pytest.mark.parametrize("op", OPS)
def test_nothing_is_kept_for_each_element(op):
    for rate in (0.3, jnp.float32(0.3)):
        for f in (OPS[op], jax.jit(OPS[op])):
            assert bytes_kept(lambda x, f=f, rate=rate: f(KEY, x, rate), X) <= 24
    keys = jax.random.split(KEY, 64)
    batched = jax.vmap(lambda key, x: OPS[op](key, x[None], 0.3))
    assert bytes_kept(lambda x: batched(keys, x), X) <= 8 * len(keys) + 24


def test_the_measure_sees_what_others_keep():
    assert bytes_kept(lambda x: linen_dropout(x, KEY), X) >= X.size


MASK, ROWS = Mask.of(KEY, 0.3, (16, 32)), jnp.ones((16, 32))


def scanned(x):
    def step(carry, inputs):
        t, row = inputs
        return carry, drop(MASK.row(t), row, 0.3)

    return jax.lax.scan(step, 0, (jnp.arange(16), x))[1]


def test_nothing_is_kept_by_a_scan_over_rows():
    np.testing.assert_array_equal(scanned(ROWS), drop(MASK, ROWS, 0.3))
    assert bytes_kept(scanned, ROWS) <= 16 * 8 + 32  # the number of each step


def test_the_backward_pass_of_a_scan_draws_each_row_again():
    """Not one step's row for all of them."""
    slopes = jnp.asarray(np.random.default_rng(0).normal(size=ROWS.shape), ROWS.dtype)
    gradient = jax.jit(jax.grad(lambda x: (scanned(x) * slopes).sum()))(ROWS)
    np.testing.assert_array_equal(gradient, drop(MASK, slopes, 0.3))


def test_no_mask_is_stored_between_the_passes_of_a_compiled_step():
    """The same scratch memory as without dropout, so not even a byte an element."""
    x = jnp.ones((256, 256))

    def scratch(noisy):
        def loss(x, key):
            return jnp.tanh(noisy(key, jnp.sin(x) @ x) @ x).sum()

        compiled = jax.jit(jax.grad(loss)).lower(x, KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    without = scratch(lambda key, x: x * 1.5)
    assert scratch(lambda key, x: dropjax.dropout(key, x, 0.3)) < without + 1024
    assert scratch(lambda key, x: linen_dropout(x, key)) > without + x.size / 2


def test_the_backward_pass_sounds_no_false_alarm_of_key_reuse():
    with jax.debug_key_reuse(True):
        for f in (jax.grad, lambda f: jax.jit(jax.grad(f)), lambda f: jax.jit(jax.hessian(f))):
            key = jax.random.key(9)
            f(lambda x, key=key: jnp.sin(dropjax.dropout(key, x, 0.5)).sum())(jnp.ones(4))


# The array.


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 1, 7)])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_keep_mask_is_the_loop(shape, rate):
    mask = dropjax.keep_mask(KEY, rate, shape)
    assert (mask.shape, mask.dtype) == (shape, bool)
    kept = words_of(KEY, shape) / 2.0**32 >= np.float32(rate)
    np.testing.assert_array_equal(mask, kept)
    x = jnp.ones(shape)
    np.testing.assert_array_equal(dropjax.dropout(KEY, x, rate) != 0, mask & (rate < 1))


@compiled
def kept_by_row(mask, rows):
    """Of each row, and of element 2 of row 1."""
    return jax.vmap(lambda t: mask.row(t).keep())(rows), mask.row(1).row(2).keep()


def test_rows_are_the_rows_of_the_array():
    per_row = jnp.array([[0.0], [0.3], [0.9], [1.0]])
    per_column = jnp.linspace(0, 1, 6)
    for rate in (0.5, per_row, per_column, jnp.linspace(0, 1, 24).reshape(4, 6)):
        mask = Mask.of(KEY, rate, (4, 6))
        rows, one = kept_by_row(mask, np.arange(4))
        np.testing.assert_array_equal(rows, keep_of(mask))
        assert mask.row(1).shape == (6,)
        assert one == rows[1, 2]
    shared = Mask.of(KEY, per_column, (1, 6))
    rows, _ = kept_by_row(shared, np.arange(4))
    np.testing.assert_array_equal(rows, np.tile(keep_of(shared), (4, 1)))


@pytest.mark.parametrize("f", [dropjax.dropout, dropjax.gaussian_dropout, dropjax.alpha_dropout])
def test_outside_of_jit_each_pass_is_one_program(f, caplog):
    """And not one for each operation that a mask is drawn by."""
    f(KEY, jnp.ones((3, 5)), 0.3)  # what programs of all shapes have in common
    x = jnp.ones((5, 7))

    def compiled(function, *args):
        caplog.clear()
        with jax.log_compiles():
            found = function(*args)
        said = [record.getMessage() for record in caplog.records]
        return found, [line for line in said if line.startswith("Compiling ")]

    _, forward = compiled(lambda x: f(KEY, x, 0.3), x)
    (y, pullback), _ = compiled(jax.vjp, lambda x: f(KEY, x, 0.3), x)
    _, backward = compiled(pullback, y)
    assert len(forward) == len(backward) == 1, (forward, backward)


def test_drop_and_choose_take_booleans_too():
    mask, x = Mask.of(KEY, 0.3, (64, 32)), jnp.arange(2048.0).reshape(64, 32) + 1
    for scaling in ("train", "test"):
        ours = drop(mask, x, 0.3, scaling)
        np.testing.assert_array_equal(ours, drop(mask.keep(), x, 0.3, scaling))
    np.testing.assert_array_equal(choose(mask, x, -x), choose(mask.keep(), x, -x))


@pytest.mark.parametrize(
    "apply", [lambda keep, x: drop(keep, x, 0.3), lambda k, x: choose(k, x, -x)]
)
@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (1, 3)])
def test_booleans_that_are_not_sharded_meet_an_array_that_is(apply, shape):
    """On an Explicit mesh, where a selection wants both sharded alike."""
    keep = Mask.of(KEY, 0.3, shape).keep()
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.ones((4, 3)), NamedSharding(mesh, PartitionSpec("data")))
        y = jax.jit(apply)(jax.device_put(keep, NamedSharding(mesh, PartitionSpec())), x)
    assert y.sharding.spec == PartitionSpec("data", None)
    np.testing.assert_array_equal(y, apply(keep, jnp.ones((4, 3))))


# The rate.


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    "rate", [0.0, 1e-6, 1.7e-6, 1e-4, 0.1, 0.3, 1 / 3, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 2**-24, 1.0]
)
def test_the_realised_rate_is_within_2_to_the_minus_24(monkeypatch, rate, traced):
    """By bisection for the least word that is kept: its value is the realised rate."""
    low, high = 0, 2**32
    monkeypatch.setattr(bernoulli, "words", lambda seed, *_, sharding: seed[0])

    def keeps(value, rate):
        return Mask(jnp.stack([value]), (), (), rate).keep()

    if traced:
        keeps = jax.jit(keeps)
    while low < high:
        middle = (low + high) // 2
        if keeps(jnp.uint32(middle), jnp.float32(rate)):
            high = middle
        else:
            low = middle + 1
    assert abs(low / 2**32 - rate) <= 2**-24
    assert abs(low / 2**32 - float(np.float32(rate))) < 2**-32
    if 0 < rate < 1e-3:
        assert abs(low / 2**32 / rate - 1) < 5e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("rate", [1e-6, 0.1, 0.5, 0.999])
def test_the_scale_is_that_of_float32(rate, dtype):
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, 5000), dtype)
    y = dropjax.dropout(KEY, x, rate)
    kept = np.asarray(y != 0)
    exact = np.asarray(x, np.float64) / (1 - rate)
    assert y.dtype == x.dtype and kept.any()
    # Half a unit in the last place of the dtype, and what rounding the rate does to 1 / (1 - rate).
    allowed = float(jnp.finfo(dtype).eps) / 2 + 2**-23 + 2**-25 / (1 - rate)
    np.testing.assert_allclose(np.asarray(y, np.float64)[kept], exact[kept], rtol=allowed)


# What is refused.


@pytest.mark.parametrize("bits", [8, 16, 64, "32", True, 0])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(ValueError, match=r"^bits must be None.* or 32; got"):
        dropjax.keep_mask(KEY, 0.5, (4,), bits=bits)
    with pytest.raises(ValueError, match=r"^bits must be None"):
        dropjax.dropout(KEY, jnp.ones(4), 0.5, bits=bits)


@pytest.mark.parametrize("bits", [None, 32])
@pytest.mark.parametrize(
    "key, rate, shape, error, match",
    [
        *[
            (KEY, 0.5, shape, TypeError, "^shape must be a sequence of integers")
            for shape in (4, 1.5, (1.5,), "4", None, ("a",))
        ],
        (KEY, 0.5, (3, -1), ValueError, "^shape must hold no negative size"),
        (0, 0.5, (4,), TypeError, "^key must be a PRNG key"),
        (KEY, 1.5, (4,), ValueError, "^rate is the probability of dropping"),
        (KEY, True, (4,), TypeError, "^rate must be a number"),
        (KEY, np.full(3, 0.5), (4,), ValueError, "does not broadcast"),
    ],
)
def test_what_a_mask_refuses(key, rate, shape, error, match, bits):
    with pytest.raises(error, match=match):
        dropjax.keep_mask(key, rate, shape, bits=bits)


def test_a_mask_takes_raw_keys_and_checks_what_it_is_given():
    raw = Mask.of(jax.random.PRNGKey(6), 0.3, [4, 6])
    np.testing.assert_array_equal(raw.keep(), Mask.of(KEY, 0.3, (4, 6)).keep())
    with pytest.raises(TypeError, match=r"^key must be a PRNG key"):
        Mask.of(6, 0.3, (4, 6))
    with pytest.raises(TypeError, match=r"^shape must be a sequence"):
        Mask.of(KEY, 0.3, 4)


def test_the_example_in_the_docstring():
    failed, tried = doctest.testmod(bernoulli)
    assert (failed, tried) == (0, 2)
