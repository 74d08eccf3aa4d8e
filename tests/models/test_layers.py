"""The layers that declare sites, and how they compute without noise."""

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core.draw import CLEAN
from dropjax.models.layers import Embed
from tests.compiled import compiled

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
