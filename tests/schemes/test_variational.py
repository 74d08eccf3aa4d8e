"""Facts of Gal & Ghahramani 2016."""

import itertools

import jax
import numpy as np

from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.schemes import parse
from tests.cases import SITES
from tests.compiled import ones


def test_inputs_recurrent_state_and_outputs_have_masks_of_their_own():
    """Section 4: the masks of inputs and of the recurrent state are different draws."""
    scheme, keys = parse("variational"), Keys.of(jax.random.key(0))
    draw = sampled(scheme, keys)
    axes = ("time", "feature")
    sites = [
        Site(kind.value, kind, axes)
        for kind in (Kind.INPUT, Kind.RECURRENT, Kind.EMBED, Kind.HIDDEN)
    ]
    masks = [np.asarray(draw(ones(4, 64), site)) for site in sites]
    assert all((mask == mask[:1]).all() for mask in masks)
    assert all((one != other).any() for one, other in itertools.combinations(masks, 2))
    assert scheme.wants(SITES[Kind.HIDDEN]) and not scheme.wants(SITES[Kind.STATE])


def test_it_is_made_for_the_rnn():
    assert parse("variational").made_for == "rnn"
