"""Facts of Klambauer et al. 2017 on whole maps: SELU's limit in all of a map, or in none of it."""

import jax
import numpy as np
import pytest

from tests.compiled import ops
from tests.schemes.test_alpha import CONSTANTS, SATURATED
from tests.statistics import assert_mean

KEY = jax.random.key(13)


@pytest.mark.parametrize("rate", CONSTANTS)
@pytest.mark.parametrize(
    "shape, axes",
    [((30, 5, 16), (-2,)), ((30, 4, 5, 16), (-3, -2)), ((30, 16, 4, 5), (-2, -1))],
    ids=["1-D", "2-D", "channels first"],
)
def test_a_map_is_dropped_whole_and_gets_the_constants_of_the_paper(rate, shape, axes):
    x = np.linspace(-1, 3, np.prod(shape), dtype=np.float32).reshape(shape)
    y = np.asarray(ops.feature_alpha_dropout(KEY, x, rate, spatial_axes=axes))
    a, b = CONSTANTS[rate]
    dropped = np.ptp(y, axes) == 0
    assert_mean(dropped.ravel(), rate)
    # Each image and each channel on its own.
    assert (dropped != dropped[:1]).any() and (dropped != dropped[:, :1]).any()
    whole = np.broadcast_to(np.expand_dims(dropped, axes), shape)
    np.testing.assert_allclose(y, np.where(whole, a * SATURATED + b, a * x + b), atol=1e-5)
