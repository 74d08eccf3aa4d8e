"""Facts of Tompson et al. 2015, section 3.2: whole feature maps are dropped."""

import jax
import numpy as np

from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.compiled import draw_at, ones

KEY = jax.random.key(9)


def test_on_a_sequence_a_feature_is_dropped_in_all_steps():
    site = Site("embedded", Kind.EMBED, ("time", "feature"))
    y = draw_at(parse('spatial(rate=0.5,at="embedded")'), KEY, ones(7, 32), site)
    assert (y == y[:1]).all() and set(np.unique(y)) == {0, 2}
