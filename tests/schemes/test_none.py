"""The baseline: nothing, anywhere."""

import jax

from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES


def test_acts_nowhere_and_has_no_numbers():
    none = parse("none")
    assert not any(none.wants(SITES[kind]) for kind in Kind)
    assert jax.tree.leaves(none) == []
    assert none.scaled(0.5) == none
