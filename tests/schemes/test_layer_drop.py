"""Facts of Fan et al. 2020: a layer is skipped as a whole, for all, and nothing is rescaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax import blocks
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.models.transformer import Transformer
from dropjax.schemes import parse
from tests.compiled import compiled, normal, ops, outputs_of
from tests.statistics import assert_mean

SITE = Site("layer", Kind.LAYER, ("time", "feature"))
X, PREVIOUS = np.full((3, 2), 2, np.float32), np.full((3, 2), -1, np.float32)


def skipped(scheme, steps, rows=4):
    """(steps, rows): which examples skip the layer in which steps."""

    def one(step, row):
        keys = Keys.of(jax.random.fold_in(jax.random.key(3), step), row)
        return sampled(scheme, keys)(X, SITE, PREVIOUS)

    over_both = compiled(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    y = over_both(np.arange(steps), np.arange(rows))
    assert np.isin(y, [2.0, -1.0]).all() and (y == y[:, :, :1, :1]).all()
    return y[:, :, 0, 0] == -1.0


@pytest.mark.parametrize("mode", ["batch", "example"])
def test_one_decision_for_the_whole_batch_or_for_each_example(mode):
    found = skipped(parse(f'layer_drop(rate=0.3,mode="{mode}")'), 4000)
    assert (found == found[:, :1]).all() == (mode == "batch")
    assert_mean(found, 0.3)


def test_a_transformer_of_which_all_layers_are_skipped_is_its_embedding_and_head():
    model = Transformer(3, width=4, layers=2, heads=2, hidden=5, patch=2)
    x, key = normal(4, 4, 1), jax.random.key(1)
    scheme = parse("layer_drop(rate=1.0)")
    params = compiled(lambda: model.init(key, x, deterministic(scheme)))()
    shallow = {k: v for k, v in params["params"].items() if not k.startswith("layer_")}
    zeroed = jax.tree.map(np.zeros_like, params["params"])
    y = outputs_of(model, params, x, sampled(scheme, key))
    np.testing.assert_allclose(
        y, outputs_of(model, {"params": zeroed | shallow}, x, deterministic(scheme)), rtol=1e-5
    )
    assert not np.allclose(y, outputs_of(model, params, x, deterministic(scheme)))


def test_the_function():
    y = ops.layer_drop(jax.random.key(0), X, 1.0, previous=PREVIOUS)
    np.testing.assert_array_equal(y, PREVIOUS)
    per_row = np.asarray(ops.layer_drop(jax.random.key(2), X, 0.5, previous=PREVIOUS, batch_axes=0))
    assert len(np.unique(per_row[:, 0])) == 2 and (per_row == per_row[:, :1]).all()
    for seed in range(4):  # without axes of a batch there is one decision for all
        assert len(np.unique(ops.layer_drop(jax.random.key(seed), X, 0.5, previous=PREVIOUS))) == 1
    with pytest.raises(ValueError, match="previous must have the shape"):
        ops.layer_drop(jax.random.key(0), X, 0.5, previous=PREVIOUS[:1])
    with pytest.raises(ValueError, match="needs the layer's input as fallback"):
        sampled(parse("layer_drop"), jax.random.key(0))(X, SITE)


# The block, which leaves out the computation: section 3.2.

BLOCK_KEY = jax.random.key(5)
BLOCK_X = np.float32([1.0, -2.0])


def twice(x):
    return 2 * x


def test_a_block_is_skipped_with_the_rate_and_nothing_is_rescaled():
    drop = jax.vmap(lambda key: blocks.layer_drop(key, twice, BLOCK_X, 0.2))
    y = compiled(lambda: drop(jax.random.split(BLOCK_KEY, 20_000)))()
    kept = (y == 2 * BLOCK_X).all(axis=1)
    assert ((y == BLOCK_X).all(axis=1) ^ kept).all()
    assert_mean(kept, 0.8)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_block_at_rates_0_and_1_and_its_gradients(rate):
    factor = 2 if rate == 0 else 1

    def f(x, rate):
        return blocks.layer_drop(BLOCK_KEY, twice, x, rate).sum()

    value, slopes = compiled(jax.value_and_grad(f, (0, 1)))(BLOCK_X, np.asarray(rate, np.float32))
    assert value == factor * BLOCK_X.sum()
    assert (slopes[0] == factor).all() and slopes[1] == 0
    value, slopes = compiled(jax.value_and_grad(lambda x: f(x, rate)))(BLOCK_X)  # a fixed rate
    assert value == factor * BLOCK_X.sum() and (slopes == factor).all()


def test_a_skipped_layer_is_not_computed():
    seen = []

    def f(x):
        jax.debug.callback(lambda: seen.append(None))
        return 2 * x

    run = jax.jit(lambda key: blocks.layer_drop(key, f, BLOCK_X, 0.5))
    outputs = [np.asarray(run(jax.random.key(i))) for i in range(20)]
    jax.effects_barrier()
    kept = sum(bool((y == 2 * BLOCK_X).all()) for y in outputs)
    assert 0 < kept < 20
    assert len(seen) == kept


def test_a_block_takes_trees():
    x = {"a": jnp.ones(2), "b": jnp.zeros((), jnp.int32)}
    y = blocks.layer_drop(BLOCK_KEY, lambda t: {"a": t["a"] + 1, "b": t["b"] + 1}, x, 0.0)
    assert y["a"].tolist() == [2, 2] and y["b"] == 1


@pytest.mark.parametrize(
    "key, f, rate, error, match",
    [
        (0, twice, 0.5, TypeError, "^key must be a PRNG key"),
        (BLOCK_KEY, twice, 1.5, ValueError, "^rate is the probability"),
        (BLOCK_KEY, twice, jnp.full(2, 0.5), ValueError, "does not broadcast"),
        (BLOCK_KEY, jnp.sum, 0.5, ValueError, r"like x, float32\[2\]; it gives float32\[\]"),
        (BLOCK_KEY, lambda x: (x, x), 0.5, ValueError, "f must return what is like x"),
        (BLOCK_KEY, lambda x: x > 0, 0.5, ValueError, r"it gives bool\[2\]"),
    ],
)
def test_errors_of_a_block(key, f, rate, error, match):
    with pytest.raises(error, match=match):
        blocks.layer_drop(key, f, BLOCK_X, rate)
