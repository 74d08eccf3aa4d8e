"""Predictions against explicit loops over examples and samples."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import dropjax
from dropjax.evaluate import (
    NoNoiseError,
    map_examples,
    monte_carlo,
    monte_carlo_log_probabilities,
    monte_carlo_samples,
)
from dropjax.linen import Drop

KEY = jax.random.key(8)
EXAMPLES = 7
XS = np.random.default_rng(0).normal(size=(EXAMPLES, 4)).astype(np.float32)
PARAMS = {"scale": np.float32(2), "shift": np.arange(4, dtype=np.float32)}
LABELS = np.arange(EXAMPLES, dtype=np.float32)


def affine(params, x):
    return params["scale"] * x + params["shift"]


def noisy(params, x, key):
    return dropjax.dropout(key, affine(params, x), 0.5)


def log_probabilities(params, x, keys):
    """Noise on the input, each example's own, and on a weight, shared by all."""
    x = dropjax.dropout(keys.example, affine(params, x), 0.3)
    w = dropjax.dropconnect(keys.step, jnp.ones(4), 0.5)
    return jax.nn.log_softmax(10 * x * w)


def log_probabilities_of(x, keys):
    return log_probabilities(PARAMS, x, keys)


def keys_of(sample, example):
    return dropjax.Keys.of(dropjax.derive(KEY, sample), example, sample)


def loop_of(function, samples):
    """The function of (x, keys) called for each example and sample: (samples, examples, ...)."""
    one = jax.jit(lambda x, sample, example: function(x, keys_of(sample, example)))
    rows = [[one(x, s, i) for i, x in enumerate(XS)] for s in range(samples)]
    return np.array(jax.device_get(rows), np.float64)


def test_map_examples_is_the_loop():
    loop = np.stack([affine(PARAMS, x) for x in XS])
    for batch_size in (1, 3, 7, 1000):
        actual = map_examples(affine, PARAMS, XS, batch_size=batch_size)
        np.testing.assert_allclose(actual, loop, rtol=1e-6)


def test_map_examples_of_trees():
    def function(params, example):
        return {"sum": example["x"].sum() + example["y"], "x": affine(params, example["x"])}

    actual = map_examples(function, PARAMS, {"x": XS, "y": LABELS}, batch_size=3)
    assert set(actual) == {"sum", "x"}
    np.testing.assert_allclose(actual["sum"], XS.sum(axis=1) + LABELS, rtol=1e-5)
    np.testing.assert_allclose(actual["x"], affine(PARAMS, XS[:, None])[:, 0], rtol=1e-6)


@pytest.mark.parametrize("samples", [2, 9])
def test_monte_carlo_is_the_loop(samples):
    loop = loop_of(lambda x, keys: noisy(PARAMS, x, keys.example), samples)
    mean, deviation = monte_carlo(noisy, PARAMS, XS, KEY, samples=samples, batch_size=3)
    np.testing.assert_allclose(mean, loop.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation, loop.std(axis=0, ddof=1), rtol=1e-5, atol=1e-6)
    assert (loop != loop[0]).any()


def test_samples_are_the_draws_that_are_averaged_of_trees_too():
    def function(params, example, key):
        return {"noisy": noisy(params, example["x"], key), "y": example["y"]}

    options, xs = {"samples": 4, "batch_size": 3}, {"x": XS, "y": LABELS}
    each = monte_carlo_samples(function, PARAMS, xs, KEY, **options)
    mean, deviation = monte_carlo(function, PARAMS, xs, KEY, **options)
    plain = monte_carlo(noisy, PARAMS, XS, KEY, **options)
    for of_tree, of_array in zip((mean, deviation), plain, strict=True):
        np.testing.assert_allclose(of_tree["noisy"], of_array, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each["noisy"].mean(0), plain[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each["noisy"].std(0, ddof=1), plain[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(each["y"], np.stack([LABELS] * 4))
    np.testing.assert_array_equal(mean["y"], LABELS)
    np.testing.assert_array_equal(deviation["y"], 0 * LABELS)

    def of_keys(params, x, keys):
        return noisy(params, x, keys.example)

    keyed = monte_carlo_samples(of_keys, PARAMS, XS, KEY, samples=4, of_keys=True)
    np.testing.assert_allclose(keyed, each["noisy"], rtol=1e-6)


def test_a_small_spread_around_a_large_mean_is_kept():
    """E[v^2] - E[v]^2 would give 0 or NaN here."""

    def function(params, x, key):
        return 4096 + jax.random.uniform(key)

    _, deviation = monte_carlo(function, (), XS, KEY, samples=50)
    loop = loop_of(lambda x, keys: function((), x, keys.example), 50)
    np.testing.assert_allclose(deviation, loop.std(axis=0, ddof=1), rtol=1e-3)


def test_models_of_low_precision():
    def function(params, x, key):
        return {dtype: noisy(params, x, key).astype(dtype) for dtype in ("bfloat16", "float16")}

    found = monte_carlo(function, PARAMS, XS, KEY, samples=4)
    exact = monte_carlo(noisy, PARAMS, XS, KEY, samples=4)
    for by_dtype, expected in zip(found, exact, strict=True):
        assert set(by_dtype) == {"bfloat16", "float16"}
        for value in by_dtype.values():
            np.testing.assert_allclose(np.float32(value), expected, rtol=0.03, atol=0.03)


def test_log_mean_exp_is_that_of_numpy_and_one_sample_is_that_sample():
    samples = 6
    loop = loop_of(log_probabilities_of, samples)
    expected = np.log(np.mean(np.exp(loop), axis=0))
    for batch_size in (2, 1000):
        actual = monte_carlo_log_probabilities(
            log_probabilities, PARAMS, XS, KEY, samples=samples, batch_size=batch_size
        )
        assert actual.shape == (EXAMPLES, 4)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    one = monte_carlo_log_probabilities(log_probabilities, PARAMS, XS, KEY, samples=1)
    np.testing.assert_allclose(one, loop[0], rtol=1e-5, atol=1e-5)
    # Neither the mean of the logarithms, nor one sample, would pass.
    assert np.abs(expected - loop.mean(axis=0)).max() > 0.1
    assert np.abs(expected - loop[0]).max() > 0.1
    np.testing.assert_allclose(np.exp(expected).sum(axis=1), 1, rtol=1e-6)


def test_probabilities_too_small_for_float32_are_kept_and_one_of_0_stays_0():
    assert np.exp(np.float32(-200)) == 0

    def function(params, x, keys):
        rare = -199 - jnp.asarray(keys.sample_id, jnp.float32)
        certain_and_never = jnp.array([0.0, -jnp.inf]) + 0 * jax.random.uniform(keys.example)
        return jnp.concatenate([jnp.stack([rare, jnp.zeros(())]), certain_and_never])

    actual = monte_carlo_log_probabilities(function, (), XS, KEY, samples=3)
    rare = np.log(np.mean(np.exp(np.array([-200.0, -201, -202]))))
    wanted = np.tile([rare, 0], (EXAMPLES, 1))
    np.testing.assert_allclose(actual[:, :2], wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(actual[:, 2], 0, atol=1e-6)
    assert (actual[:, 3] == -jnp.inf).all()


def test_no_result_depends_on_the_batch_size():
    def masks(params, x, key):
        return dropjax.dropout(key, jnp.ones(16), 0.5)

    results = [monte_carlo(masks, (), XS, KEY, samples=4, batch_size=size) for size in (1, 3, 1000)]
    for mean, deviation in results[1:]:
        np.testing.assert_array_equal(mean, results[0][0])
        np.testing.assert_array_equal(deviation, results[0][1])
    # Nor on which examples come along.
    mean, _ = monte_carlo(masks, (), XS[:3], KEY, samples=4)
    np.testing.assert_array_equal(mean, results[0][0][:3])


def test_a_function_of_all_keys_may_share_a_mask_between_inputs():
    def masks(params, x, keys):
        return dropjax.dropout(keys.step, jnp.ones(16), 0.5)

    mean, deviation = monte_carlo(masks, (), XS, KEY, samples=4, of_keys=True)
    np.testing.assert_array_equal(mean, np.broadcast_to(mean[:1], (EXAMPLES, 16)))
    np.testing.assert_array_equal(deviation, np.broadcast_to(deviation[:1], (EXAMPLES, 16)))
    assert deviation.max() > 0


@pytest.fixture(scope="module")
def drawn():
    """What four samples are given, as (samples, examples, ...): noise, and their numbers."""
    samples = 4

    def function(params, number, keys):
        at = jax.nn.one_hot(keys.sample_id - 1, samples)
        right = number == keys.example_id
        values = [
            jax.random.uniform(keys.step, (3,)),
            jax.random.uniform(keys.example, (3,)),
            jnp.where(right, 0.0, -jnp.inf)[None],
            keys.sample_id.astype(jnp.float32)[None],
        ]
        # Each sample writes a row of its own, so log-mean-exp keeps them apart.
        return jnp.where(at[:, None] > 0, jnp.concatenate(values)[None], -jnp.inf)

    values = monte_carlo_log_probabilities(
        function, (), np.arange(EXAMPLES), KEY, samples=samples, batch_size=3
    )
    rows = np.asarray(values).swapaxes(0, 1) + np.log(samples)
    parts = np.split(rows, [3, 6, 7], axis=-1)
    return dict(zip(("weights", "noise", "right", "sample_id"), parts, strict=True))


def test_weight_noise_is_shared_within_a_sample_and_differs_between_samples(drawn):
    weights = drawn["weights"]
    np.testing.assert_array_equal(weights, np.broadcast_to(weights[:, :1], weights.shape))
    assert len(np.unique(weights[:, 0, 0])) == 4


def test_noise_on_activations_differs_between_examples_and_samples(drawn):
    noise = drawn["noise"]
    assert noise.shape == (4, EXAMPLES, 3)
    assert len(np.unique(noise)) == noise.size


def test_numbers_of_example_and_sample(drawn):
    np.testing.assert_allclose(drawn["right"], 0, atol=1e-6)
    wanted = np.arange(1.0, 5.0)[:, None].repeat(EXAMPLES, 1)
    np.testing.assert_allclose(drawn["sample_id"][..., 0], wanted, atol=1e-6)


def inside_a_scan(x, key):
    def step(carry, x_t):
        return carry + dropjax.dropout(key, x_t, 0.5), ()

    return jax.lax.scan(step, jnp.zeros(()), x)[0]


def unused_in_a_scan(x, key):
    """The key is carried along, and noise is drawn that nothing needs."""

    def step(carry, x_t):
        total, key = carry
        return (total + x_t, dropjax.derive(key, 0)), dropjax.dropout(key, x_t, 0.5)

    return jax.lax.scan(step, (jnp.zeros(()), key), x)[0][0]


NOISY = {
    "at once": lambda x, key: dropjax.dropout(key, x, 0.5),
    "in jit": lambda x, key: jax.jit(dropjax.gaussian_dropout)(key, x, 0.5),
    "in a scan": inside_a_scan,
    "in a checkpoint": jax.checkpoint(lambda x, key: jnp.sin(dropjax.dropout(key, x, 0.5))),
    "of other kinds": lambda x, key: x + jax.random.normal(key, x.shape),
    "in a part of a tree": lambda x, key: {"x": x, "noisy": dropjax.dropout(key, x, 0.5)},
    "under vmap": lambda x, key: jax.vmap(
        lambda x, i: dropjax.dropout(dropjax.derive(key, i), x, 0.5)
    )(x, jnp.arange(4)),
    "Flax in training": lambda x, key: nn.Dropout(0.5, deterministic=False).apply(
        {}, x, rngs={"dropout": key}
    ),
}
WITHOUT_NOISE = {
    "never": lambda x, key: 2 * x,
    "drawn, not used": lambda x, key: (dropjax.dropout(key, x, 0.5), x)[1],
    "in jit": jax.jit(lambda x, key: x),
    "in a scan": unused_in_a_scan,
    "a key of its own": lambda x, key: dropjax.dropout(jax.random.key(0), x, 0.5),
    "Flax in evaluation": lambda x, key: nn.Dropout(0.5, deterministic=True).apply(
        {}, x, rngs={"dropout": key}
    ),
    "Drop in evaluation": lambda x, key: Drop("bernoulli", deterministic=True).apply(
        {}, x, rngs={"dropout": key}
    ),
}


OF_LOGS = 2


def averages_of(function):
    """Each way to average over draws, traced but not compiled."""

    def logs(params, x, keys):
        return jax.tree.leaves(function(x, keys.example))[0]

    yield lambda: monte_carlo(lambda params, x, key: function(x, key), (), XS, KEY, samples=2)
    yield lambda: monte_carlo(
        lambda params, x, keys: function(x, keys.step), (), XS, KEY, samples=2, of_keys=True
    )
    yield lambda: monte_carlo_log_probabilities(logs, (), XS, KEY, samples=1)
    yield lambda: monte_carlo_samples(
        lambda params, x, key: function(x, key), (), XS, KEY, samples=1
    )


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_a_function_without_noise_is_refused(name):
    """Its spread would be 0, and look like certainty."""
    for average in averages_of(WITHOUT_NOISE[name]):
        with pytest.raises(NoNoiseError, match="does not depend on its key"):
            jax.eval_shape(average)


@pytest.mark.parametrize("name", NOISY)
def test_a_function_with_noise_anywhere_is_not(name):
    """Noise in one value of a tree will do; logarithms are one array."""
    for number, average in enumerate(averages_of(NOISY[name])):
        if (name, number) != ("in a part of a tree", OF_LOGS):
            jax.eval_shape(average)


@pytest.mark.parametrize("xs", [XS.tolist(), 3.0, [], {"x": XS, "y": 1.0}, np.float32(3)])
def test_what_is_no_array_of_examples_is_refused(xs):
    for call in (
        lambda: map_examples(lambda params, x: x, (), xs),
        lambda: monte_carlo(noisy, PARAMS, xs, KEY, samples=2),
        lambda: monte_carlo_log_probabilities(log_probabilities, PARAMS, xs, KEY, samples=2),
    ):
        with pytest.raises(TypeError, match=r"xs must be an array .* np.asarray\(xs\)"):
            call()
    with pytest.raises(ValueError, match=r"as many examples each; their shapes: \(7, 4\), \(6,\)"):
        map_examples(lambda params, x: x, (), {"x": XS, "y": LABELS[:6]})


def test_an_open_number_of_examples_gives_what_a_number_gives():
    """As with `jax.export`, in one program for both functions."""

    def both(xs, key):
        mean, spread = monte_carlo(noisy, PARAMS, xs, key, samples=2)
        return map_examples(affine, PARAMS, xs), mean, spread

    (count,) = export.symbolic_shape("count")
    xs = jax.ShapeDtypeStruct((count, 4), jnp.float32)
    exported = export.export(jax.jit(both))(xs, jax.eval_shape(lambda: KEY))
    for actual, expected in zip(exported.call(XS, KEY), both(XS, KEY), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_raw_keys_and_other_keys():
    args = (noisy, PARAMS, XS)
    typed, _ = monte_carlo(*args, jax.random.key(8), samples=4)
    raw, _ = monte_carlo(*args, jax.random.PRNGKey(8), samples=4)
    other, _ = monte_carlo(*args, jax.random.key(9), samples=4)
    np.testing.assert_array_equal(raw, typed)
    assert (np.asarray(other) != typed).any()


def test_nothing_is_compiled_again_for_the_same_function():
    traces = {"map": 0, "mc": 0, "log": 0}

    def mapped(params, x):
        traces["map"] += 1
        return affine(params, x)

    def sampled(params, x, key):
        traces["mc"] += 1
        return noisy(params, x, key)

    def logs(params, x, keys):
        traces["log"] += 1
        return log_probabilities(params, x, keys)

    def call(factor, key):
        params = jax.tree.map(lambda p: p * np.float32(factor), PARAMS)
        map_examples(mapped, params, XS * np.float32(factor))
        monte_carlo(sampled, params, XS * np.float32(factor), key, samples=2)
        monte_carlo_log_probabilities(logs, params, XS, key, samples=2)

    call(1, KEY)
    first = dict(traces)
    assert min(first.values()) > 0
    call(3, jax.random.key(1))
    assert traces == first


@pytest.mark.parametrize("samples", [1, 0, -1])
def test_too_few_samples_are_refused(samples):
    with pytest.raises(ValueError, match=f"samples must be .* at least 2, got {samples}"):
        monte_carlo(noisy, PARAMS, XS, KEY, samples=samples)
    if samples < 1:
        for average in (monte_carlo_log_probabilities, monte_carlo_samples):
            with pytest.raises(ValueError, match=f"samples must be .* at least 1, got {samples}"):
                average(log_probabilities, PARAMS, XS, KEY, samples=samples)


@pytest.mark.parametrize("key", [0, None, jax.random.split(KEY, 2)])
def test_what_is_no_key_is_refused(key):
    with pytest.raises((TypeError, ValueError), match=r"^key must be"):
        monte_carlo(noisy, PARAMS, XS, key, samples=2)
    with pytest.raises((TypeError, ValueError), match=r"^key must be"):
        monte_carlo_log_probabilities(log_probabilities, PARAMS, XS, key, samples=2)
