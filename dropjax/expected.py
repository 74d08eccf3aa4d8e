"""The deterministic counterparts: the exact expectation of each op over its noise.

`dropjax.expected.f(x, ...)` takes the arguments of `dropjax.f(key, x, ...)` less the key. An op
that has no counterpart here has x itself as its expectation.
"""

from dropjax.schemes.bernoulli import expected as dropout
from dropjax.schemes.dropconnect import expected as dropconnect
from dropjax.schemes.information import expected as information_dropout
from dropjax.schemes.shake_drop import expected as shake_drop
from dropjax.schemes.stochastic_depth import expected as drop_path
from dropjax.schemes.zoneout import expected as zoneout

__all__ = ["drop_path", "dropconnect", "dropout", "information_dropout", "shake_drop", "zoneout"]
