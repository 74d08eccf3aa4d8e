"""Facts of Huang et al. 2016: branches are dropped whole, the deeper the more often."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax import blocks, models
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import record
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import expected, jit, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(10)
MAP = ("height", "width", "feature")


@pytest.mark.parametrize(
    "text, branches",
    [
        ("cnn(channels=(2,3,2),residual=True)", 3),
        ("cnn(channels=(2,3),blocks=2,residual=True)", 4),
        ("transformer(layers=1,width=4)", 2),
        ("transformer(layers=3,width=4)", 6),
        ("transformer(layers=2,width=4,vocabulary=5)", 4),
        ("mlp", 0),
        ("rnn", 0),
    ],
)
def test_the_l_th_of_any_model_s_branches_is_at_l_over_L(text, branches):
    model = models.parse(text, outputs=2)
    x = jnp.zeros(8, int) if "vocabulary" in text else jnp.zeros((8, 8, 1))
    sites = record(lambda draw: model.init(KEY, x, draw))
    depths = [site.depth for site, _ in sites.values() if site.kind is Kind.BRANCH]
    assert depths == [number / branches for number in range(1, branches + 1)]


def test_branches_are_dropped_at_the_rate_of_their_depth():
    keys = jit(jax.vmap(lambda i: Keys.of(KEY, i)))(np.arange(20_000))
    for depth in (0.25, 1.0):
        site = Site("branch", Kind.BRANCH, MAP, depth)
        draw = jax.vmap(
            lambda k, site=site: sampled(parse("stochastic_depth(rate=0.6)"), k)(X, site)
        )
        y = np.asarray(jit(draw)(keys))
        assert (y == y[:, :1, :1, :1]).all()
        assert_mean(y[:, 0, 0, 0] == 0, 0.6 * depth)
        np.testing.assert_allclose(y.max(), 1 / (1 - 0.6 * depth), rtol=1e-6)


X = ones(2, 2, 1)


def test_in_batch_mode_one_decision_is_for_all_examples_of_a_step():
    """Section 3: a branch is dropped for a mini-batch; another one, or another step, differs."""
    scheme = parse('stochastic_depth(rate=0.5,rule="constant",mode="batch")')

    def kept(step, example, name):
        draw = sampled(scheme, Keys.of(jax.random.fold_in(KEY, step), example))
        return draw(X, Site(name, Kind.BRANCH, MAP, 0.5))[0, 0, 0] > 0

    over = jit(jax.vmap(jax.vmap(kept, (None, 0, None)), (0, None, None)), static_argnums=2)
    steps, examples = jnp.arange(2000), jnp.arange(4)
    one, two = (np.asarray(over(steps, examples, name)) for name in ("one", "two"))
    assert (one == one[:, :1]).all()
    assert_mean(one[:, 0], 0.5)
    assert_mean(one[:, 0] & two[:, 0], 0.25)


@pytest.mark.parametrize(
    "scaling, kept, evaluated", [("train", 1 / 0.7, 1.0), ("test", 1.0, 0.7), ("none", 1.0, 1.0)]
)
def test_scaling_is_in_training_or_at_test_time_or_left_out(scaling, kept, evaluated):
    """The paper's own is "test": H_l = b f + id in training, p_l f + id at test time.

    Where it is left out, for nets without normalisers, the mean is not kept.
    """
    x = ones(2000, 2)
    y = ops.drop_path(KEY, x, 0.3, batch_axes=0, scaling=scaling)
    assert np.unique(y).tolist() == [0, np.float32(kept)]
    np.testing.assert_allclose(expected.drop_path(x, 0.3, scaling=scaling), evaluated, rtol=1e-6)
    scheme = parse(f'stochastic_depth(rate=0.6,scaling="{scaling}")')
    at_half = deterministic(scheme)(X, Site("branch", Kind.BRANCH, MAP, 0.5))
    np.testing.assert_allclose(at_half, evaluated, rtol=1e-6)
    assert scheme.expected_is_mean == (scaling != "none")


def test_each_example_has_a_decision_of_its_own_for_all_its_values():
    y = np.asarray(ops.drop_path(KEY, ones(64, 3, 4), 0.5, batch_axes=0))
    assert (y == y[:, :1, :1]).all() and set(np.unique(y)) == {0, 2}
    y = np.asarray(ops.drop_path(KEY, ones(3, 8, 4, 8), 0.5, batch_axes=(1, -1)))
    assert (y == y[:1, :, :1]).all() and 0 < (y == 0).mean() < 1
    assert (y[0, :, 0] != y[0, :1, 0]).any() and (y[0, :, 0] != y[0, :, 0, :1]).any()


def test_without_batch_axes_the_decision_is_for_all_and_vmap_gives_each_its_own():
    keys = jax.random.split(KEY, 64)
    y = jax.vmap(lambda key: ops.drop_path(key, X, 0.5, batch_axes=()))(keys)
    assert (y == y[:, :1, :1]).all() and set(np.unique(y)) == {0, 2}


def test_errors():
    with pytest.raises(ValueError, match="scaling must be one of train, test"):
        dropjax.drop_path(KEY, X, 0.5, batch_axes=0, scaling="no")
    with pytest.raises(TypeError, match="batch_axes"):
        dropjax.drop_path(KEY, X, 0.5)
    with pytest.raises(ValueError, match="scaling must be one of"):
        dropjax.expected.drop_path(X, 0.5, scaling="no")


# The block: a branch that is dropped is not computed.

BLOCK_KEY = jax.random.key(31)
BLOCK_X = jnp.arange(1.0, 7.0).reshape(2, 3)
BLOCK_KEYS = jax.random.split(BLOCK_KEY, 400)


@functools.cache
def decisions(rate):
    """Which of the keys keep the branch."""
    kept = jax.lax.map(
        lambda k: blocks.stochastic_depth(k, jnp.ones_like, BLOCK_X, rate)[0, 0] > BLOCK_X[0, 0],
        BLOCK_KEYS,
    )
    return np.asarray(kept)


def test_a_branch_is_dropped_at_the_rate():
    for rate in (0.0, 0.25, 1.0):
        assert_mean(decisions(rate), 1 - rate)


@pytest.mark.parametrize("scaling, kept", [("train", 4.0), ("test", 1.0), ("none", 1.0)])
def test_it_is_x_or_x_and_the_whole_scaled_branch(scaling, kept):
    keep = decisions(0.75)
    f = jax.jit(
        lambda key: blocks.stochastic_depth(key, jnp.square, BLOCK_X, 0.75, scaling=scaling)
    )
    for key, kept_here in zip(BLOCK_KEYS[:12], keep[:12], strict=True):
        np.testing.assert_allclose(
            f(key), BLOCK_X + float(kept * kept_here) * BLOCK_X**2, rtol=1e-6
        )
    assert 0 < keep[:12].sum() < 12  # both happen


@pytest.mark.parametrize("gradient", [False, True])
def test_a_dropped_branch_is_not_run(gradient):
    """Counted by a callback from inside of it, under jit, at a traced rate."""
    calls = []

    def f(x):
        jax.debug.callback(lambda: calls.append(None))
        return jnp.sin(x)

    def loss(x, key, rate):
        return blocks.stochastic_depth(key, f, x, rate).sum()

    run = jax.jit(jax.grad(loss) if gradient else loss)
    keep = decisions(0.75)[:40]
    for key in BLOCK_KEYS[:40]:
        run(BLOCK_X, key, 0.75)
    jax.effects_barrier()
    assert 0 < len(calls) == keep.sum() < 40


def test_a_network_of_dropped_branches_runs_as_many_as_its_expected_depth():
    """54 branches, the last at 0.5: 40.25 of them on average, the paper's 110 layers."""
    rates = blocks.depth_rates(0.5, 54)
    assert abs(sum(1 - rate for rate in rates) - 40.25) < 1e-9
    stacked = jnp.asarray(rates)

    @jax.jit
    def active(key):
        def block(x, inputs):
            number, rate = inputs
            layer = dropjax.derive(key, number)
            return blocks.stochastic_depth(layer, jnp.ones_like, x, rate, scaling="test"), None

        return jax.lax.scan(block, jnp.zeros(()), (jnp.arange(54), stacked))[0]

    assert_mean(jax.lax.map(active, BLOCK_KEYS), 40.25)


def test_gradients_reach_what_the_branch_closes_over_and_none_goes_to_the_rate():
    def loss(w, x, rate, key):
        return blocks.stochastic_depth(key, lambda x: w * x, x, rate).sum()

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    keep = decisions(0.75)
    for key, kept in zip(BLOCK_KEYS[:12], keep[:12], strict=True):
        to_w, to_x, to_rate = slopes(3.0, BLOCK_X, 0.75, key)
        np.testing.assert_allclose(to_w, 4 * int(kept) * float(BLOCK_X.sum()), rtol=1e-6)
        np.testing.assert_allclose(to_x, np.full(BLOCK_X.shape, 1 + 12 * int(kept)), rtol=1e-6)
        assert to_rate == 0
    assert 0 < keep[:12].sum() < 12
    for rate in (0.0, 1.0):
        to_w, to_x, _ = slopes(3.0, BLOCK_X, rate, BLOCK_KEY)
        assert to_w == (BLOCK_X.sum() if rate == 0 else 0)
        assert (to_x == (4 if rate == 0 else 1)).all()


def test_rate_0_is_the_block_to_the_bit_and_rate_1_is_x_to_the_bit():
    x = jnp.asarray([0.0, -0.0, 1.7, jnp.inf])
    for rate in (0.0, 1.0):
        y = jax.jit(lambda r: blocks.stochastic_depth(BLOCK_KEY, jnp.negative, x, r))(rate)
        assert np.asarray(y).tobytes() == np.asarray(x - x if rate == 0 else x).tobytes()


def test_a_block_in_half_precision_is_scaled_in_float32():
    x = jnp.ones(3, jnp.bfloat16)
    y = blocks.stochastic_depth(BLOCK_KEYS[int(decisions(0.1).argmax())], lambda x: 3 * x, x, 0.1)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x + jnp.bfloat16(3 / 0.9))


def test_under_vmap_of_a_block_each_example_has_a_decision_of_its_own():
    one = jax.jit(lambda key: blocks.stochastic_depth(key, jnp.ones_like, BLOCK_X, 0.5))
    y, loop = jax.jit(jax.vmap(one))(BLOCK_KEYS), jax.lax.map(one, BLOCK_KEYS)
    np.testing.assert_array_equal(y, loop)
    assert len(np.unique(y[:, 0, 0])) == 2


def test_rates_of_a_rule():
    assert blocks.depth_rates(0.4, 2) == [0.2, 0.4]
    assert blocks.depth_rates(0.4, 3, rule="constant") == [0.4] * 3
    for depth in (1, 2, 5):
        wanted = np.linspace(0, 0.4, depth)
        np.testing.assert_allclose(blocks.depth_rates(0.4, depth, rule="from_zero"), wanted)
    traced = jax.jit(lambda r: jnp.stack(blocks.depth_rates(r, 4)))(0.5)
    np.testing.assert_allclose(traced, [0.125, 0.25, 0.375, 0.5])


@pytest.mark.parametrize(
    "key, f, x, rate, error, match",
    [
        (0, jnp.sin, BLOCK_X, 0.5, TypeError, "^key must be a PRNG key"),
        (KEY, BLOCK_X, BLOCK_X, 0.5, TypeError, "^f must be a function of x"),
        (KEY, jnp.sin, BLOCK_X.astype(int), 0.5, TypeError, "^x must be an array of floats"),
        (KEY, jnp.sin, BLOCK_X, 1.5, ValueError, "^rate is the probability"),
        (KEY, jnp.sin, BLOCK_X, jnp.full((2, 1), 0.5), ValueError, "does not broadcast"),
        (KEY, jnp.sum, BLOCK_X, 0.5, ValueError, r"^f must return .*\[2, 3\]; .*float32\[\]"),
    ],
)
def test_errors_of_a_block(key, f, x, rate, error, match):
    with pytest.raises(error, match=match):
        blocks.stochastic_depth(key, f, x, rate)
    with pytest.raises(ValueError, match=r"^scaling must be one of"):
        blocks.stochastic_depth(KEY, jnp.sin, BLOCK_X, 0.5, scaling="no")


@pytest.mark.parametrize(
    "rate, depth, rule, error, match",
    [
        (1.5, 4, "linear", ValueError, "^rate is the probability"),
        (0.5, 0, "linear", ValueError, "^depth must be at least 1"),
        (0.5, 2.0, "linear", TypeError, "^depth must be a number of branches"),
        (0.5, 2, "cosine", ValueError, "^rule must be one of linear, from_zero, constant"),
    ],
)
def test_errors_of_rates(rate, depth, rule, error, match):
    with pytest.raises(error, match=match):
        blocks.depth_rates(rate, depth, rule=rule)
