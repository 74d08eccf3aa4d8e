"""The layers that declare sites, and how they compute without noise."""

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core.draw import CLEAN
from dropjax.models.layers import Conv, Embed
from tests.compiled import compiled
from tests.nn.test_convolution import conv_by_hand

KEY = jax.random.key(17)


def test_embed_looks_up_rows_of_its_table():
    tokens = jnp.asarray([2, 0, 2])

    @compiled
    def table_and_rows():
        variables = Embed(1000, 50).init(KEY, tokens, CLEAN)
        return variables["params"]["table"], Embed(1000, 50).apply(variables, tokens, CLEAN)

    table, rows = table_and_rows()
    assert table.shape == (1000, 50) and abs(table.std() - 1) < 0.02
    np.testing.assert_array_equal(rows, table[np.asarray(tokens)])


def test_conv_is_the_loop_with_and_without_a_bias():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 5, 2)), rng.normal(size=(3, 3, 2, 6))
    x, w, b = np.float32(x), np.float32(w), np.arange(6, dtype=np.float32)
    y = compiled(Conv(6).apply)({"params": {"kernel": w, "bias": b}}, x)
    np.testing.assert_allclose(y, conv_by_hand(x, w) + b, rtol=1e-5, atol=1e-5)
    variables = jax.eval_shape(lambda: Conv(6, 1, bias=False).init(KEY, x))
    assert set(variables["params"]) == {"kernel"}
