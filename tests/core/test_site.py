"""The table of kinds, and what a site refuses."""

import enum
import re

import pytest

from dropjax.core.site import AXES, KINDS, Facts, Kind, Site, _check_kinds


class Kinds(enum.Enum):
    """As if one had been added."""

    HIDDEN = "hidden"
    LOGITS = "logits"


def test_every_kind_has_a_row_and_every_row_is_whole():
    assert set(KINDS) == set(Kind)
    for facts in KINDS.values():
        assert facts.what and facts.axes
        assert not facts.needs or re.search(r"; .*call dropjax\.\w+\(", facts.needs)
        assert facts.needs or not facts.weights  # they are no value of an example


def test_a_kind_without_a_row_is_named_with_what_to_add():
    facts = Facts("units", ("feature",))
    with pytest.raises(TypeError, match=r"KINDS has no row for Kinds\.LOGITS\. Add one: what"):
        _check_kinds(Kinds, {Kinds.HIDDEN: facts})
    with pytest.raises(TypeError, match=r"LOGITS\]\.axes names queue; .* be added to AXES"):
        _check_kinds(Kinds, {Kinds.HIDDEN: facts, Kinds.LOGITS: Facts("logits", ("head", "queue"))})
    with pytest.raises(TypeError, match=r"axes names time; .* be added to WEIGHT_AXES"):
        _check_kinds([Kinds.HIDDEN], {Kinds.HIDDEN: Facts("w", ("time",), "w", weights=True)})


def test_a_site_has_no_axis_of_the_batch():
    with pytest.raises(ValueError, match="'here' has a batch axis; a model is written for one"):
        Site("here", Kind.HIDDEN, ("batch", "feature"))
    assert "batch" not in AXES
