"""Dropout of parts of a network: of columns, branches and layers, and in pooling."""

from dropjax.blocks.fractal import fractal_join
from dropjax.blocks.layer_drop import layer_drop
from dropjax.blocks.pooling import max_pool_dropout, weighted_max_pool
from dropjax.blocks.shake import shake_shake
from dropjax.blocks.stochastic_depth import depth_rates, stochastic_depth

__all__ = [
    "depth_rates",
    "fractal_join",
    "layer_drop",
    "max_pool_dropout",
    "shake_shake",
    "stochastic_depth",
    "weighted_max_pool",
]
