"""Facts of Krueger et al. 2017."""

import jax
import pytest

from dropjax.core.draw import deterministic, sampled
from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import ones


def test_without_a_previous_state_it_says_so():
    scheme = parse("zoneout")
    for draw in (sampled(scheme, jax.random.key(0)), deterministic(scheme)):
        with pytest.raises(ValueError, match="fallback="):
            draw(ones(4, 6), SITES[Kind.STATE])
