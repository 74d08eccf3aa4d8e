"""Dropout for JAX: pure functions, schemes, models and experiments.

The functions here need jax alone and take an explicit PRNG key first. `dropjax.expected` has
their deterministic counterparts, `dropjax.blocks` wrappers of functions. `dropjax.linen` and
`dropjax.nnx` have layers for Flax, `dropjax.equinox` one for Equinox. `dropjax.models`,
`dropjax.train`, `dropjax.evaluate` and `dropjax.data` have what their names say, `dropjax.runs`
reads finished runs, and `dropjax.compare` is for results over seeds. These are imported when they
are first used.
"""

import importlib
from types import ModuleType

from dropjax import blocks, expected, schemes
from dropjax.core.draw import CLEAN, Draw, deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind, Site
from dropjax.functions.controlled_dropout import controlled_dropout
from dropjax.functions.information import information_dropout
from dropjax.functions.max_dropout import max_dropout
from dropjax.functions.uout import uout
from dropjax.ops.bernoulli import STREAM, Mask, keep_mask
from dropjax.ops.keys import derive
from dropjax.schemes.alpha import alpha_dropout
from dropjax.schemes.attention import attention_dropout
from dropjax.schemes.bernoulli import dropout
from dropjax.schemes.concrete import concrete_dropout
from dropjax.schemes.cutout import cutout
from dropjax.schemes.dropblock import dropblock
from dropjax.schemes.dropconnect import (
    dropconnect,
    dropconnect_gaussian,
    dropconnect_linear,
    dropconnect_moments,
)
from dropjax.schemes.embedding import embedding_dropout
from dropjax.schemes.feature_alpha import feature_alpha_dropout
from dropjax.schemes.gaussian import gaussian_dropout
from dropjax.schemes.gaussian_noise import gaussian_noise
from dropjax.schemes.head_drop import head_drop
from dropjax.schemes.layer_drop import layer_drop
from dropjax.schemes.masksembles import masksembles_masks
from dropjax.schemes.mixout import mixout
from dropjax.schemes.patch import patch_dropout
from dropjax.schemes.random_erasing import random_erasing
from dropjax.schemes.recurrent import recurrent_dropout
from dropjax.schemes.rnn_drop import rnn_drop
from dropjax.schemes.shake_drop import shake_drop
from dropjax.schemes.sparse_variational import sparse_variational_linear
from dropjax.schemes.spatial import spatial_dropout
from dropjax.schemes.standout import standout
from dropjax.schemes.stochastic_depth import drop_path
from dropjax.schemes.targeted import targeted_dropout
from dropjax.schemes.variational import variational_dropout
from dropjax.schemes.variational_gaussian import variational_gaussian_linear
from dropjax.schemes.weight_drop import weight_drop
from dropjax.schemes.word import word_dropout
from dropjax.schemes.zoneout import zoneout

_LATER = (
    *("blocks", "compare", "data", "equinox", "evaluate", "linen", "models", "nnx", "runs"),
    "train",
)


def __getattr__(name: str) -> ModuleType:
    """`dropjax.runs` and the like, imported when they are first used: they need more than jax."""
    if name in _LATER:
        return importlib.import_module(f"dropjax.{name}")
    raise AttributeError(f"module 'dropjax' has no attribute {name!r}")


__version__ = "0.6.0"

__all__ = [
    "CLEAN",
    "STREAM",
    "Draw",
    "Keys",
    "Kind",
    "Mask",
    "Site",
    "alpha_dropout",
    "attention_dropout",
    "blocks",
    "concrete_dropout",
    "controlled_dropout",
    "cutout",
    "derive",
    "deterministic",
    "drop_path",
    "dropblock",
    "dropconnect",
    "dropconnect_gaussian",
    "dropconnect_linear",
    "dropconnect_moments",
    "dropout",
    "embedding_dropout",
    "expected",
    "feature_alpha_dropout",
    "gaussian_dropout",
    "gaussian_noise",
    "head_drop",
    "information_dropout",
    "keep_mask",
    "layer_drop",
    "masksembles_masks",
    "max_dropout",
    "mixout",
    "patch_dropout",
    "random_erasing",
    "recurrent_dropout",
    "rnn_drop",
    "sampled",
    "schemes",
    "shake_drop",
    "sparse_variational_linear",
    "spatial_dropout",
    "standout",
    "targeted_dropout",
    "uout",
    "variational_dropout",
    "variational_gaussian_linear",
    "weight_drop",
    "word_dropout",
    "zoneout",
]
