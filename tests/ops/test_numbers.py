"""What holds for each of the four functions, whatever the transformation, dtype or rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from tests.compiled import compiled, normal
from tests.ops.reference import words_of
from tests.statistics import assert_mean

# Zoneout towards zeros, so that it drops as the others do; its own tests are below.
OPS = {
    "dropout": dropjax.dropout,
    "variational_dropout": dropjax.variational_dropout,
    "zoneout": lambda key, x, rate: dropjax.zoneout(key, x, rate, previous=jnp.zeros_like(x)),
    "dropconnect": dropjax.dropconnect,
}
SCALED = ["dropout", "variational_dropout", "dropconnect"]
WHAT = {name: "w" if name == "dropconnect" else "x" for name in OPS}

KEY = jax.random.key(5)
COUNTERS = ["threefry2x32", "philox4x32"]
X = np.random.default_rng(0).uniform(0.5, 2, (6, 8)).astype(np.float32)

each = pytest.mark.parametrize("op", OPS)


def same(a, b) -> bool:
    """Equal in shape, dtype and every bit."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def dropped(y) -> np.ndarray:
    return np.asarray(y) == 0


def every(key, x, rate):
    """What each of the functions makes of x: as one tree, so that it compiles as one."""
    return {name: op(key, x, rate) for name, op in OPS.items()}


def assert_same(a, b):
    """Two trees are equal in structure, shapes, dtypes and every bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for path, y in jax.tree.leaves_with_path(jax.tree.map(same, a, b)):
        assert y, jax.tree_util.keystr(path)


# Keys and transformations.


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_and_raw_keys_draw_the_same(impl):
    with jax.default_prng_impl(impl):
        raw = jax.random.PRNGKey(5)
        typed = every(jax.random.key(5), X, 0.5)
        for y in typed.values():
            assert 0 < dropped(y).sum() < X.size
        assert_same(typed, every(raw, X, 0.5))
        assert_same(typed, every(np.asarray(raw), X, 0.5))


def test_vmap_and_scan_over_keys_equal_the_loop():
    keys = jax.random.split(KEY, 4)
    xs = np.stack([X * (i + 1) for i in range(4)])
    ys = [every(key, x, 0.3) for key, x in zip(keys, xs, strict=True)]
    loop = jax.tree.map(lambda *rows: np.stack(rows), *ys)

    @jax.jit
    def mapped(keys, xs):
        in_vmap = jax.vmap(lambda key, x: every(key, x, 0.3))(keys, xs)
        _, in_scan = jax.lax.scan(lambda _, at: (None, every(*at, 0.3)), None, (keys, xs))
        one_key = jax.vmap(lambda x: every(KEY, x, 0.3))(xs)
        return in_vmap, in_scan, one_key

    in_vmap, in_scan, one_key = mapped(keys, xs)
    assert_same(in_vmap, loop)
    assert_same(in_scan, loop)
    for y in one_key.values():  # one key for all is one mask for all, as documented
        assert (dropped(y) == dropped(y)[0]).all()


@pytest.mark.parametrize("bits, impls", [(None, [*COUNTERS, "rbg"]), (32, COUNTERS)])
def test_vmap_over_keys_of_any_kind_equals_the_loop(bits, impls):
    """With 32 bits of the key's own generator, that of rbg draws other masks under vmap."""

    def keep(key):
        return dropjax.keep_mask(key, 0.5, (64,), bits=bits)

    @compiled
    def mapped_and_looped(keys):
        return jax.vmap(keep)(keys), jnp.stack([keep(key) for key in keys])

    for impl in impls:
        assert same(*mapped_and_looped(jax.random.split(jax.random.key(3, impl=impl), 4))), impl


def test_vmap_over_rates_equals_the_loop():
    rates = jnp.array([0.0, 0.1, 0.5, 1.0])
    loop = jax.tree.map(lambda *rows: np.stack(rows), *[every(KEY, X, r) for r in rates])
    assert_same(loop, jax.jit(jax.vmap(lambda rate: every(KEY, X, rate)))(rates))


def test_the_gradient_is_the_scaled_mask():
    weights, ones = normal(*X.shape, seed=1), np.ones_like(X)

    @compiled
    def slopes(x):
        def of(op):
            def loss(x):
                return (op(KEY, x, 0.25) * weights).sum()

            return jax.grad(loss)(x), jax.jvp(loss, (x,), (ones,))

        return {name: of(op) for name, op in OPS.items()}

    masks = every(KEY, ones, 0.25)
    for name, (gradient, (value, tangent)) in slopes(X).items():
        y = np.asarray(masks[name])
        np.testing.assert_allclose(gradient, y * weights, rtol=1e-6)
        np.testing.assert_allclose(value, (y * weights * X).sum(), rtol=1e-5)
        np.testing.assert_allclose(tangent, (y * weights).sum(), rtol=1e-5)


def test_checkpoint_recomputes_the_same_mask():
    def loss(x, key):
        return sum(jnp.sin(y).sum() for y in every(key, x, 0.5).values())

    plain = jax.jit(jax.grad(loss))(X, KEY)
    assert same(plain, jax.jit(jax.grad(jax.checkpoint(loss)))(X, KEY))
    cosines = [
        np.where(dropped(y), 0, np.cos(y) * (1 if name == "zoneout" else 2))
        for name, y in every(KEY, X, 0.5).items()
    ]
    np.testing.assert_allclose(plain, sum(cosines), rtol=1e-5, atol=1e-6)


def test_nothing_is_traced_again_for_another_key_or_rate():
    traces = []

    @jax.jit
    def call(key, x, rate):
        traces.append(rate)
        return every(key, x, rate)

    results = [call(jax.random.key(seed), X, 0.1 * seed) for seed in range(1, 6)]
    assert len(traces) == 1
    for name in OPS:
        assert len({np.asarray(y[name]).tobytes() for y in results}) == 5


# Dtypes.


def test_complex_values_are_scaled_whole():
    real, whole = every(KEY, X, 0.2), every(KEY, (X + 2j * X).astype(np.complex64), 0.2)
    for name, y in whole.items():
        assert y.dtype == np.complex64
        np.testing.assert_allclose(y, (1 + 2j) * np.asarray(real[name]), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_scaled_to_the_nearest(dtype):
    # Every mantissa of bfloat16; x / 0.9 computed in bfloat16 is off by up to two of its units.
    x = (1 + jnp.arange(128, dtype=jnp.float32) / 128).astype(dtype)[None]
    traced = jax.jit(every)
    for rate in (0.1, 0.3):
        exact = (np.asarray(x, np.float64) / (1 - rate)).astype(x.dtype)
        for values in (every(KEY, x, rate), traced(KEY, x, rate)):
            for name in SCALED:
                kept = ~dropped(values[name])
                assert 0 < kept.sum() < kept.size
                assert same(np.asarray(values[name])[kept], exact[kept])


def test_numpy_inputs():
    expected = every(KEY, jnp.asarray(X), 0.5)
    y = every(KEY, X, np.float64(0.5))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(y))
    assert_same(y, expected)
    assert_same(every(KEY, X.astype(np.float64), 0.5), expected)  # float32 without x64


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_arrays(shape):
    found = jax.jit(every)(KEY, np.ones(shape, np.float32), 0.5)
    assert all(y.shape == shape for y in found.values())


@pytest.mark.parametrize("op", ["dropout", "zoneout", "dropconnect"])
def test_rank_0(op):
    kept = [OPS[op](jax.random.key(seed), jnp.float32(3), 0.5) for seed in range(8)]
    assert {y.shape for y in kept} == {()}
    assert {float(y) for y in kept} == {0.0, 3.0 if op == "zoneout" else 6.0}
    assert float(OPS[op](KEY, 3.0, 0)) == 3


# Rates.


@each
def test_what_is_dropped_is_0_even_if_it_was_not_finite(op):
    keep = ~dropped(OPS[op](KEY, X, 0.5))
    for bad in (np.inf, -np.inf, np.nan):
        x = np.where(keep, X, np.float32(bad))
        assert same(OPS[op](KEY, x, 0.5), OPS[op](KEY, X, 0.5))
        gradient = jax.grad(lambda x: OPS[op](KEY, x, 0.5).sum())(x)
        assert (np.asarray(gradient)[~keep] == 0).all()
        assert np.isfinite(gradient).all()
        x = np.where(keep, np.float32(bad), X)
        y = np.asarray(OPS[op](KEY, x, 0.5))
        np.testing.assert_array_equal(y, np.where(keep, x, 0))


def test_the_type_of_the_rate_does_not_matter():
    expected = every(KEY, X, 0.25)
    rates = [np.float64(0.25), np.float32(0.25), np.float16(0.25), np.array(0.25)]
    rates += [jnp.float32(0.25), jnp.bfloat16(0.25), jnp.full((1, 1), 0.25)]
    for rate in rates:
        assert_same(every(KEY, X, rate), expected)
    for rate in (np.float16(0.25), jnp.full((1, 1), 0.25)):
        assert_same(jax.jit(every)(KEY, X, rate), expected)
    for one, zero in ((1, 0), (np.int32(1), np.uint8(0)), (jnp.int32(1), jnp.int32(0))):
        for y in every(KEY, X, one).values():
            assert same(y, np.zeros_like(X))
        for y in every(KEY, X, zero).values():
            assert same(y, X)


def test_jit_equals_eager_and_a_traced_rate_draws_the_mask_of_a_static_one():
    x = np.random.default_rng(0).uniform(0.5, 2, (4, 2000)).astype(np.float32)
    traced = jax.jit(every)
    for rate in (0.0, 0.001, 0.1, 0.3, 0.9, 1.0):
        assert_same(every(KEY, x, rate), traced(KEY, x, rate))
        # 1 - 0.001 in bfloat16 is 0.992: eight times the drops.
        low = jnp.bfloat16(rate)
        for drawn in (every(KEY, x, low), traced(KEY, x, low)):
            assert_same(drawn, every(KEY, x, float(low)))
    static = jax.jit(lambda key, x: every(key, x, 0.3))
    assert_same(every(KEY, x, 0.3), static(KEY, x))


def by_hand(op: str, rate: np.ndarray) -> np.ndarray:
    """What the function makes of X, from the words of its key."""
    shape = (1, X.shape[1]) if op == "variational_dropout" else X.shape
    keep = words_of(KEY, shape) / 2.0**32 >= rate
    with np.errstate(divide="ignore"):
        return np.where(keep, X / (1 - rate) if op in SCALED else X, 0)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (6, 1), (6, 8)])
def test_a_rate_for_each_feature_row_or_element(shape):
    rate = np.linspace(0, 1, np.prod(shape), dtype=np.float32).reshape(shape)
    names = [name for name in OPS if name != "variational_dropout" or shape[0] != 6]

    def of_each(key, x, rate):
        return {name: OPS[name](key, x, rate) for name in names}

    for values in (of_each(KEY, X, rate), jax.jit(of_each)(KEY, X, rate)):
        for name, y in values.items():
            np.testing.assert_array_equal(dropped(y), by_hand(name, rate) == 0)
            np.testing.assert_allclose(y, by_hand(name, rate), rtol=1e-6)


@each
@pytest.mark.parametrize("shape", [(6,), (7,), (2, 8), (1, 6, 8), (6, 8, 1), (0,)])
def test_a_rate_that_does_not_broadcast_is_refused(op, shape):
    rate = np.full(shape, 0.5, np.float32)
    for call in (OPS[op], jax.jit(OPS[op])):
        with pytest.raises(ValueError, match="rate of shape"):
            call(KEY, X, rate)


@pytest.mark.parametrize("rate", [0.1, np.linspace(0, 1, 400)], ids=["scalar", "array"])
def test_x64_draws_the_same_mask(rate):
    x = np.ones((5, 400), np.float32)
    expected = every(KEY, x, rate)
    with jax.enable_x64(True):
        assert_same(jax.jit(every)(KEY, x, rate), expected)
        double = jax.jit(every)(KEY, x.astype(np.float64), rate)
    for name, y in double.items():
        assert y.dtype == np.float64
        assert same(dropped(y), dropped(expected[name]))
        if np.ndim(rate) == 0 and name in SCALED:
            y = np.asarray(y)
            np.testing.assert_allclose(y[y != 0], 1 / 0.9, rtol=1e-15)


def test_x64_as_a_process_starts_with_it(python):
    code = (
        "import jax, numpy as np, dropjax\n"
        "y = dropjax.dropout(jax.random.key(5), np.ones((5, 400), np.float32), 0.1)\n"
        "print(y.dtype, np.packbits(np.asarray(y) != 0).tobytes().hex())"
    )
    done = python("-c", code, JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr
    y = np.asarray(dropjax.dropout(KEY, np.ones((5, 400), np.float32), 0.1))
    assert done.stdout.split() == ["float32", np.packbits(y != 0).tobytes().hex()]


# Shared axes, and statistics.


@pytest.mark.parametrize(
    "axes, positive",
    [
        ((), ()),
        (0, (0,)),
        (-1, (2,)),
        ((np.int64(1),), (1,)),
        ([2, 0], (0, 2)),
        ((-3, 1, 2), (0, 1, 2)),
    ],
)
def test_shared_axes_share_one_decision(axes, positive):
    x = np.ones((4, 5, 6), np.float32)
    keep = np.asarray(dropjax.dropout(KEY, x, 0.5, shared_axes=axes))
    for axis in range(3):
        constant = (keep == keep.take([0], axis)).all()
        assert constant == (axis in positive)


SAMPLES = 20_000


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@each
def test_the_drop_fraction_and_the_mean(op, rate):
    x = np.ones((SAMPLES, 1, 6), np.float32)
    y = np.asarray(OPS[op](KEY, x, rate))[:, 0]
    assert_mean(y == 0, rate)
    assert_mean(y, 1 if op in SCALED else 1 - rate)
    assert_mean((y == 0).sum(axis=1) == 2, 15 * rate**2 * (1 - rate) ** 4)


@each
def test_decisions_are_independent(op):
    rate, x = 0.3, np.ones((SAMPLES, 2, 4), np.float32)
    noise = dropped(OPS[op](KEY, x, rate)) - rate
    # Between features of an example, and between neighbouring examples.
    for a in range(4):
        for b in range(a):
            assert_mean(noise[:, 0, a] * noise[:, 0, b], 0)
        assert_mean(noise[1:, 0, a] * noise[:-1, 0, a], 0)
    across_time = rate * (1 - rate) if op == "variational_dropout" else 0
    assert_mean(noise[:, 0, 0] * noise[:, 1, 0], across_time)


def test_keys_draw_independent_masks():
    keys = jax.random.split(KEY, SAMPLES)
    y = jax.vmap(lambda key: dropjax.dropout(key, np.ones(3, np.float32), 0.4))(keys)
    noise = dropped(y) - 0.4
    assert_mean(noise, 0)
    assert_mean(noise[1:] * noise[:-1], 0)


# Zoneout.


def test_zoneout_gradients_go_to_what_was_taken():
    def loss(x, previous):
        return dropjax.zoneout(KEY, x, 0.5, previous=previous).sum()

    keep = ~dropped(OPS["zoneout"](KEY, X, 0.5))
    to_x, to_previous = compiled(jax.grad(loss, (0, 1)))(X, 2 * X)
    assert same(to_x, keep.astype(np.float32))
    assert same(to_previous, (~keep).astype(np.float32))


# The expectations.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_expected_keeps_the_dtype(dtype):
    x = jnp.asarray(X).astype(dtype)
    per_feature = np.linspace(0, 1, 8, dtype=np.float32)
    for rate in (0.1, per_feature):
        values = [
            dropjax.expected.dropout(x, rate, scaling="test"),
            dropjax.expected.dropconnect(x, rate, scaling="test"),
            dropjax.expected.zoneout(x, rate, previous=jnp.zeros_like(x)),
        ]
        exact = np.asarray(x, np.complex128) * (1 - rate)
        for y in values:
            assert y.dtype == x.dtype
            eps = float(jnp.finfo(x.dtype).eps)
            np.testing.assert_allclose(np.asarray(y, np.complex128), exact, rtol=eps, atol=1e-7)


# Errors.


@each
@pytest.mark.parametrize(
    "key", [None, 0, 1.5, "key", jnp.float32(1), jnp.zeros(2, jnp.int32), [0, 0]]
)
def test_what_is_no_key_is_refused(op, key):
    with pytest.raises(TypeError, match=r"^key must be a PRNG key"):
        OPS[op](key, X, 0.5)


@each
@pytest.mark.parametrize(
    "key", [jax.random.split(KEY, 3), np.zeros((1, 2), np.uint32), np.zeros((), np.uint32)]
)
def test_a_batch_of_keys_is_refused(op, key):
    with pytest.raises(ValueError, match=r"^key must be one .*jax\.vmap"):
        OPS[op](key, X, 0.5)


@pytest.mark.parametrize("width", [0, 1, 3, 5])
def test_a_raw_key_of_the_wrong_width_is_refused(width):
    with pytest.raises((TypeError, ValueError), match=r"\bkey\b"):
        dropjax.dropout(np.zeros(width, np.uint32), X, 0.5)


@pytest.mark.parametrize("op", ["dropout", "variational_dropout", "dropconnect"])
@pytest.mark.parametrize(
    "x", [np.ones((2, 3), int), jnp.ones((2, 3), bool), 1, True, None, "x", [1.0]]
)
def test_what_holds_no_floats_is_refused(op, x):
    with pytest.raises(TypeError, match=rf"^{WHAT[op]} must be an array of floats"):
        OPS[op](KEY, x, 0.5)


@pytest.mark.parametrize("name", ["x", "previous"])
@pytest.mark.parametrize("bad", [np.ones((6, 8), int), np.ones((6, 8), bool), None, "x"])
def test_zoneout_refuses_what_holds_no_floats(name, bad):
    states = {"x": X, "previous": X} | {name: bad}
    with pytest.raises(TypeError, match=rf"^{name} must be an array of floats"):
        dropjax.zoneout(KEY, states["x"], 0.5, previous=states["previous"])
    with pytest.raises(TypeError, match=rf"^{name} must be an array of floats"):
        dropjax.expected.zoneout(states["x"], 0.5, previous=states["previous"])


@pytest.mark.parametrize(
    "previous", [X[:1], X[0], X[..., None], X.astype(np.float16), np.float32(0), 0.0]
)
def test_zoneout_refuses_a_previous_state_unlike_x(previous):
    with pytest.raises(ValueError, match=r"^previous must have the shape and dtype of x"):
        dropjax.zoneout(KEY, X, 0.5, previous=previous)
    with pytest.raises(ValueError, match=r"^previous must have the shape and dtype of x"):
        dropjax.expected.zoneout(X, 0.5, previous=previous)


OUT_OF_RANGE = [-0.1, 1.5, np.nan, np.inf, -1, 2, np.float32(1.0001), np.array([[0.5, 1.5] * 4])]
NO_NUMBER = [True, False, "a", "0.5", None, [0.5], 0.5j, np.bool_(True), np.array([True])]


@each
@pytest.mark.parametrize("rate", OUT_OF_RANGE)
def test_a_rate_out_of_range_is_refused(op, rate):
    with pytest.raises(ValueError, match=r"^rate is the probability of dropping, in \[0, 1\]"):
        OPS[op](KEY, X, rate)


@each
@pytest.mark.parametrize("rate", NO_NUMBER)
def test_a_rate_that_is_no_number_is_refused(op, rate):
    with pytest.raises(TypeError, match=r"^rate must be a number in \[0, 1\]"):
        OPS[op](KEY, X, rate)


@pytest.mark.parametrize("axes", [None, 1.5, (1.5,), "a", ("a",)])
def test_axes_that_are_no_integers_are_refused(axes):
    with pytest.raises((TypeError, ValueError), match=r"^shared_axes"):
        dropjax.dropout(KEY, X, 0.5, shared_axes=axes)


@pytest.mark.parametrize("scaling", ["inverted", "", None, 1])
def test_a_wrong_scaling_is_refused(scaling):
    calls = [
        lambda: dropjax.dropout(KEY, X, 0.5, scaling=scaling),
        lambda: dropjax.dropconnect(KEY, X, 0.5, scaling=scaling),
        lambda: dropjax.expected.dropout(X, 0.5, scaling=scaling),
        lambda: dropjax.expected.dropconnect(X, 0.5, scaling=scaling),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^scaling must be one of train, test"):
            call()


# Devices.


EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, dropjax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

assert len(jax.devices()) == 8
key, x = jax.random.key(5), np.random.default_rng(0).uniform(0.5, 2, (8, 8)).astype(np.float32)


def call(k, x):
    return {
        "dropout": dropjax.dropout(k, x, 0.3),
        "variational_dropout": dropjax.variational_dropout(k, x, 0.3),
        "zoneout": dropjax.zoneout(k, x, 0.3, previous=2 * x),
        "dropconnect": dropjax.dropconnect(k, x, 0.3),
    }


def both(k, x):
    return call(k, x), jax.grad(lambda x: sum(map(jnp.sum, call(k, x).values())))(x)


def check(actual, expected):
    for y, z in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (np.asarray(y) == np.asarray(z)).all()


expected = jax.jit(both)(key, x)
kinds = {AxisType.Explicit: P("a", "b"), AxisType.Auto: P(("a", "b"), None)}
for kind, spec in kinds.items():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        xs = jax.device_put(x, NamedSharding(mesh, spec))
        actual = jax.jit(both)(key, xs)
        check(actual, expected)
        if kind is AxisType.Explicit:
            assert all(y.sharding == xs.sharding for y in jax.tree.leaves(actual))
            check(call(key, xs), expected[0])
        # Each device draws its own part of a mask, and no more.
        text = jax.jit(call).lower(key, xs).compile().as_text()
        assert "u32[2,4]" in text or "u32[1,8]" in text, kind
        assert "u32[8,8]" not in text, kind

# In a map over devices, a key derived from the device's number draws a mask of its own.
by_hand = [jax.jit(call)(dropjax.derive(key, i), x[i : i + 1]) for i in range(8)]
by_hand = jax.tree.map(lambda *rows: np.concatenate(rows), *by_hand)
own = lambda k, x: call(dropjax.derive(k, jax.lax.axis_index("d")), x)
mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
sharded = jax.shard_map(own, mesh=mesh, in_specs=(P(), P("d")), out_specs=P("d"))
check(jax.jit(sharded)(key, x), by_hand)
mapped = jax.pmap(own, in_axes=(None, 0), axis_name="d")(key, x[:, None])
check(jax.tree.map(lambda y: y[:, 0], mapped), by_hand)
print("as expected")
"""


def test_sharding_over_eight_devices_changes_no_bit(python):
    done = python("-c", EIGHT_DEVICES, JAX_NUM_CPU_DEVICES="8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "as expected"


@each
def test_the_key_reuse_checker_is_content_and_awake(op):
    with jax.debug_key_reuse(True):
        key, other = jax.random.key(9), jax.random.key(10)
        OPS[op](key, X, 0.5)
        with pytest.raises(jax.errors.KeyReuseError):
            OPS[op](key, X, 0.5)
        OPS[op](dropjax.derive(other, "a"), X, 0.5)
        OPS[op](dropjax.derive(other, "b"), X, 0.5)
        jax.jit(OPS[op])(other, X, 0.5)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda key, x: OPS[op](key, OPS[op](key, x, 0.5), 0.5))(jax.random.key(11), X)
