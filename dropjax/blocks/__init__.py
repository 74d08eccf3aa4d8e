"""Dropout of parts of a network: of columns, branches and layers, and in pooling."""

from dropjax.blocks.fractal import fractal_join
from dropjax.blocks.layer_drop import layer_drop
from dropjax.blocks.pooling import max_pool_dropout, weighted_max_pool
from dropjax.blocks.shake import shake_shake

__all__ = [
    "fractal_join",
    "layer_drop",
    "max_pool_dropout",
    "shake_shake",
    "weighted_max_pool",
]
