"""The mean over a batch leaves out what fills it up, whatever that is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.core.batch import mean_over_batch
from dropjax.core.site import BATCH_AXES


@pytest.mark.parametrize("filling", [5.0, np.inf, -np.inf, np.nan])
def test_an_example_without_weight_does_not_count_even_where_it_is_not_finite(filling):
    x = jnp.asarray([[1.0, 2.0], [4.0, filling]])
    mean = mean_over_batch
    for axis in reversed(BATCH_AXES):
        mean = jax.vmap(mean, axis_name=axis)
    np.testing.assert_allclose(mean(x, jnp.asarray([[1, 1], [1, 0]])), 7 / 3, rtol=1e-6)
