"""The deterministic counterparts: the exact expectation of each op over its noise.

`dropjax.expected.f(x, ...)` takes the arguments of `dropjax.f(key, x, ...)` less the key. (The
scheme "layer_drop" evaluates with x, as its paper does, and not with its mean.)

Ops without a counterpart here:

- `attention_dropout` (scaled in training), `embedding_dropout`, `gaussian_dropout`,
  `recurrent_dropout`, `rnn_drop`, `spatial_dropout`, `variational_dropout` and `weight_drop` have
  x as their mean, and 0 at rate 1, where nothing is kept: as `dropjax.expected.dropout(x, rate)`.
  `mixout` has w, and at rate 1 the previous weights. `gaussian_noise`, `head_drop` and `uout` have
  x at any rate.
- `alpha_dropout` and `feature_alpha_dropout` keep the mean and the variance over all units. That of
  a unit over masks is m + a (1 - rate) (x - m), with m the `mean` that was given, v the `variance`
  and 1 / a**2 = (1 - rate) (1 + rate (1.7581 + m)**2 / v). Evaluate with x, as their paper.
- `attention_dropout` with `scaling="row"` and `concrete_dropout` have means near x that have no
  closed form. Evaluate with x, as their papers, or average over draws.
- `cutout`, `random_erasing` and `max_dropout` take parts of x away and scale nothing up: their mean
  is not x. Evaluate with x, as their papers. (`max_dropout` draws nothing.)
- `patch_dropout`, `controlled_dropout` and `word_dropout` return fewer rows or columns, or other
  tokens. Evaluate with all of x; `controlled_dropout` says when it is to be scaled.
- `masksembles_masks` makes masks. Average predictions over them.
"""

from dropjax.functions.information import expected as information_dropout
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
from dropjax.schemes.zoneout import expected as layer_drop
from dropjax.schemes.zoneout import expected as zoneout

__all__ = [
    "drop_path",
    "dropblock",
    "dropconnect",
    "dropconnect_gaussian",
    "dropconnect_linear",
    "dropout",
    "information_dropout",
    "layer_drop",
    "shake_drop",
    "sparse_variational_linear",
    "standout",
    "targeted_dropout",
    "variational_gaussian_linear",
    "zoneout",
]
