"""The deterministic counterparts: the exact expectation of each op over its noise.

`dropjax.expected.f(x, ...)` takes the arguments of `dropjax.f(key, x, ...)` less the key. An op
that has no counterpart here has x itself as its expectation.
"""

from dropjax.schemes.bernoulli import expected as dropout
from dropjax.schemes.dropblock import expected as dropblock
from dropjax.schemes.dropconnect import expected as dropconnect
from dropjax.schemes.dropconnect import expected_linear as dropconnect_gaussian
from dropjax.schemes.dropconnect import expected_linear as dropconnect_linear
from dropjax.schemes.shake_drop import expected as shake_drop
from dropjax.schemes.sparse_variational import expected as sparse_variational_linear
from dropjax.schemes.standout import expected as standout
from dropjax.schemes.stochastic_depth import expected as drop_path
from dropjax.schemes.targeted import expected as targeted_dropout
from dropjax.schemes.variational_gaussian import expected as variational_gaussian_linear
from dropjax.schemes.zoneout import expected as zoneout

__all__ = [
    "drop_path",
    "dropblock",
    "dropconnect",
    "dropconnect_gaussian",
    "dropconnect_linear",
    "dropout",
    "shake_drop",
    "sparse_variational_linear",
    "standout",
    "targeted_dropout",
    "variational_gaussian_linear",
    "zoneout",
]
