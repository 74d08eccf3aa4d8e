"""Facts of Fan et al. 2020: a layer is skipped as a whole, for all, and nothing is rescaled."""

import jax
import numpy as np
import pytest

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


def test_one_decision_for_the_whole_batch():
    found = skipped(parse("layer_drop(rate=0.3)"), 4000)
    assert (found == found[:, :1]).all()
    assert_mean(found[:, 0], 0.3)


def test_or_one_for_each_example():
    found = skipped(parse('layer_drop(rate=0.3,mode="example")'), 2000)
    assert (found != found[:, :1]).any()
    assert_mean(found, 0.3)


def test_all_layers_are_used_at_test_time():
    np.testing.assert_array_equal(deterministic(parse("layer_drop"))(X, SITE, PREVIOUS), X)


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
    per_row = ops.layer_drop(jax.random.key(2), X, 0.5, previous=PREVIOUS, batch_axes=0)
    assert len(np.unique(np.asarray(per_row)[:, 0])) == 2
    with pytest.raises(ValueError, match="previous must have the shape"):
        ops.layer_drop(jax.random.key(0), X, 0.5, previous=PREVIOUS[:1])
    with pytest.raises(ValueError, match="needs the layer's input as fallback"):
        sampled(parse("layer_drop"), jax.random.key(0))(X, SITE)
