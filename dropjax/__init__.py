"""Dropout for JAX: pure functions, schemes, models and experiments.

The functions here need jax alone and take an explicit PRNG key first. `dropjax.expected` has
their deterministic counterparts. `dropjax.linen` and `dropjax.nnx` have layers for Flax,
`dropjax.models`, `dropjax.train`, `dropjax.evaluate` and `dropjax.data` what their names say, and
`dropjax.runs` reads finished runs; they are imported when they are first used.
"""

import importlib
from types import ModuleType

from dropjax import expected, schemes
from dropjax.core.draw import CLEAN, Draw, deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.ops.bernoulli import STREAM, Mask, keep_mask
from dropjax.ops.keys import derive
from dropjax.schemes.alpha import alpha_dropout
from dropjax.schemes.bernoulli import dropout
from dropjax.schemes.concrete import concrete_dropout
from dropjax.schemes.cutout import cutout
from dropjax.schemes.dropconnect import dropconnect
from dropjax.schemes.embedding import embedding_dropout
from dropjax.schemes.gaussian import gaussian_dropout
from dropjax.schemes.recurrent import recurrent_dropout
from dropjax.schemes.sparse_variational import sparse_variational_linear
from dropjax.schemes.spatial import spatial_dropout
from dropjax.schemes.stochastic_depth import drop_path
from dropjax.schemes.variational import variational_dropout
from dropjax.schemes.variational_gaussian import variational_gaussian_linear
from dropjax.schemes.weight_drop import weight_drop
from dropjax.schemes.word import word_dropout
from dropjax.schemes.zoneout import zoneout


def __getattr__(name: str) -> ModuleType:
    """`dropjax.runs` and the like, imported when they are first used: they need more than jax."""
    if name in ("data", "evaluate", "linen", "models", "nnx", "runs", "train"):
        return importlib.import_module(f"dropjax.{name}")
    raise AttributeError(f"module 'dropjax' has no attribute {name!r}")


__version__ = "0.3.0"

__all__ = [
    "CLEAN",
    "STREAM",
    "Draw",
    "Keys",
    "Kind",
    "Mask",
    "Site",
    "alpha_dropout",
    "concrete_dropout",
    "cutout",
    "derive",
    "deterministic",
    "drop_path",
    "dropconnect",
    "dropout",
    "embedding_dropout",
    "expected",
    "gaussian_dropout",
    "keep_mask",
    "recurrent_dropout",
    "sampled",
    "schemes",
    "sparse_variational_linear",
    "spatial_dropout",
    "variational_dropout",
    "variational_gaussian_linear",
    "weight_drop",
    "word_dropout",
    "zoneout",
]
