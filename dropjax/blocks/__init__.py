"""Wrappers of whole blocks of a network: they take functions, where ops take arrays."""

from dropjax.blocks.stochastic_depth import depth_rates, stochastic_depth

__all__ = ["depth_rates", "stochastic_depth"]
