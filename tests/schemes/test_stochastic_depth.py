"""Facts of Huang et al. 2016: branches are dropped whole, the deeper the more often."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from dropjax import models
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.plan import check, record, rows
from dropjax.core.site import Kind, Site
from dropjax.models.cnn import CNN
from dropjax.schemes import parse
from tests.compiled import expected, jit, ones, ops
from tests.statistics import assert_mean

KEY = jax.random.key(10)
MAP = ("height", "width", "feature")


def sites_of(residual):
    model = CNN(2, (2, 3), blocks=2, residual=residual, dense=())
    return record(lambda draw: model.init(KEY, ones(4, 4, 1), draw))


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


@pytest.mark.parametrize(
    "text, rates",
    [
        ("stochastic_depth(rate=0.5)", ["0.125", "0.25", "0.375", "0.5"]),
        ('stochastic_depth(rate=0.5,rule="constant")', ["0.5"] * 4),
    ],
)
def test_the_l_th_of_the_cnn_s_branches_is_dropped_at_l_over_L_of_the_rate(text, rates):
    """Section 3: p_l = l / L (1 - p_L)."""
    sites = sites_of(residual=True)
    check(parse(text), sites)
    found = {
        r["site"]: (r["rate"], r["noise"]) for r in rows(parse(text), sites) if r["rate"] > "-"
    }
    names = [f"stage_{i}/block_{j}/branch" for i in (0, 1) for j in (0, 1)]
    assert found == {name: (rate, "(1, 1, 1)") for name, rate in zip(names, rates, strict=True)}


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


@pytest.mark.parametrize("scaling", ["train", "test", "none"])
def test_unscaled_branches_are_the_same_in_training_and_evaluation(scaling):
    """Nets without normalisers: kept branches and evaluated ones are x, so the mean is not kept."""
    site = Site("branch", Kind.BRANCH, MAP, 0.5)
    scheme = parse(f'stochastic_depth(rate=0.6,scaling="{scaling}")')
    kept = max(float(sampled(scheme, jax.random.key(i))(X, site).max()) for i in range(8))
    evaluated = float(deterministic(scheme)(X, site).max())
    assert (kept == evaluated) == (scaling == "none")
    assert scheme.expected_is_mean == (scaling != "none")
    x = ones(2000, 2)
    y = ops.drop_path(KEY, x, 0.3, batch_axes=0, scaling="none")
    assert np.unique(y).tolist() == [0, 1]
    assert (expected.drop_path(x, 0.3, scaling="none") == 1).all()


@pytest.mark.parametrize("scaling, kept, mean", [("train", 1 / 0.7, 1.0), ("test", 1.0, 0.7)])
def test_scaling_is_in_training_or_at_test_time(scaling, kept, mean):
    """The paper's own is "test": H_l = b f + id in training, p_l f + id at test time."""
    x = ones(20_000, 2)
    y = np.asarray(ops.drop_path(KEY, x, 0.3, batch_axes=0, scaling=scaling))
    assert np.unique(y).tolist() == [0, np.float32(kept)]
    assert_mean(y[:, 0], mean)
    np.testing.assert_allclose(expected.drop_path(x, 0.3, scaling=scaling), mean, rtol=1e-6)
    scheme = parse(f'stochastic_depth(rate=0.6,scaling="{scaling}")')
    at_half = deterministic(scheme)(X, Site("branch", Kind.BRANCH, MAP, 0.5))
    np.testing.assert_allclose(at_half, mean, rtol=1e-6)


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


OPS = {"dropout": dropjax.dropout, "drop_path": partial(dropjax.drop_path, batch_axes=0)}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rate", [0.1, 0.05, 0.01, 0.001])
def test_keep_probabilities_and_the_scale_are_right_in_bfloat16(op, rate):
    x = jnp.ones((200_000, 1), jnp.bfloat16)
    y = OPS[op](KEY, x, rate)
    assert y.dtype == jnp.bfloat16
    assert_mean(np.asarray(y[:, 0] == 0), rate)
    for number in (1, 3):
        kept = np.asarray(OPS[op](KEY, number * x, rate).max(), np.float32)
        assert kept == np.float32(jnp.bfloat16(number / (1 - rate)))


@pytest.mark.parametrize(
    "keep, by_floor, by_less",
    [(0.9, 115, 115), (0.95, 121, 122), (0.99, 126, 127), (0.999, 128, 128)],
)
def test_what_the_usual_code_keeps_in_bfloat16(keep, by_floor, by_less):
    """Of 128 values, all that u takes there: too few, and always at 0.999."""
    u, keep = jnp.arange(128, dtype=jnp.bfloat16) / jnp.bfloat16(128), jnp.bfloat16(keep)
    assert np.float32(jnp.floor(keep + u)).tolist().count(1) == by_floor
    assert np.asarray(u < keep).sum() == by_less


def test_a_model_without_branches_is_refused():
    with pytest.raises(ValueError, match="acts on BRANCH sites; the model declares"):
        check(parse("stochastic_depth"), sites_of(residual=False))


@pytest.mark.parametrize(
    "x, rate, options, error, match",
    [
        (jnp.ones(3, jnp.int32), 0.5, {}, TypeError, "^x must be an array of floats"),
        (jnp.ones(3), 1.1, {}, ValueError, "^rate is the probability"),
        (jnp.ones((3, 2)), jnp.full((3, 2), 0.5), {}, ValueError, "does not broadcast"),
        (jnp.ones(3), 0.5, {"batch_axes": 1}, ValueError, "batch_axes names axis 1"),
        (jnp.ones(3), 0.5, {"scaling": "no"}, ValueError, "scaling must be one of train, test"),
    ],
)
def test_errors(x, rate, options, error, match):
    with pytest.raises(error, match=match):
        dropjax.drop_path(KEY, x, rate, **{"batch_axes": 0} | options)


def test_more_errors():
    with pytest.raises(TypeError, match=r"^key must be a PRNG key"):
        dropjax.drop_path(0, X, 0.5, batch_axes=())
    with pytest.raises(TypeError, match="batch_axes"):
        dropjax.drop_path(KEY, X, 0.5)
    with pytest.raises(TypeError, match=r"^x must be an array of floats"):
        dropjax.expected.drop_path(jnp.ones(3, jnp.int32), 0.5)
    with pytest.raises(ValueError, match=r"^rate is the probability"):
        dropjax.expected.drop_path(X, 1.5)
    with pytest.raises(ValueError, match="scaling must be one of"):
        dropjax.expected.drop_path(X, 0.5, scaling="no")
