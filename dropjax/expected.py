"""The deterministic counterparts: the exact expectation of each op over its noise.

`dropjax.expected.f(x, ...)` takes the arguments of `dropjax.f(key, x, ...)` less the key. An op
that has no counterpart here has x itself as its expectation.
"""

from dropjax.schemes.bernoulli import expected as dropout
from dropjax.schemes.dropconnect import expected as dropconnect
from dropjax.schemes.sparse_variational import expected as sparse_variational_linear
from dropjax.schemes.stochastic_depth import expected as drop_path
from dropjax.schemes.variational_gaussian import expected as variational_gaussian_linear
from dropjax.schemes.zoneout import expected as zoneout

__all__ = [
    "drop_path",
    "dropconnect",
    "dropout",
    "sparse_variational_linear",
    "variational_gaussian_linear",
    "zoneout",
]
