"""Dropout of parts of a network: of columns, branches and layers, and in pooling.

Those that wrap what a scheme acts on lie in the scheme's file, the others here.
"""

from dropjax.blocks.fractal import fractal_join
from dropjax.blocks.pooling import max_pool_dropout, weighted_max_pool
from dropjax.blocks.shake import shake_shake
from dropjax.schemes.layer_drop import block as layer_drop
from dropjax.schemes.stochastic_depth import block as stochastic_depth
from dropjax.schemes.stochastic_depth import depth_rates

__all__ = [
    "depth_rates",
    "fractal_join",
    "layer_drop",
    "max_pool_dropout",
    "shake_shake",
    "stochastic_depth",
    "weighted_max_pool",
]
