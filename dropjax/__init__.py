"""Dropout for JAX: pure functions, schemes, models and experiments.

The functions here need jax alone and take an explicit PRNG key first. `dropjax.expected` has
their deterministic counterparts. Models, training and evaluation are in `dropjax.models`,
`dropjax.train` and `dropjax.evaluate`; import them by name.
"""

from dropjax import expected, schemes
from dropjax.core.draw import CLEAN, Draw, deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import STREAM, Mask, keep_mask
from dropjax.ops.keys import derive
from dropjax.schemes.bernoulli import dropout
from dropjax.schemes.dropconnect import dropconnect
from dropjax.schemes.variational import variational_dropout
from dropjax.schemes.zoneout import zoneout

__version__ = "0.2.0"

__all__ = [
    "CLEAN",
    "STREAM",
    "Draw",
    "Keys",
    "Kind",
    "Mask",
    "Site",
    "derive",
    "deterministic",
    "dropconnect",
    "dropout",
    "expected",
    "keep_mask",
    "sampled",
    "schemes",
    "variational_dropout",
    "zoneout",
]
