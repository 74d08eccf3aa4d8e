"""Every key of a run: which random numbers there are, and from which key each of them comes.

A run has one key. All others lie below it, as in a tree: `dropjax.derive(key, label, ...)` goes
down by one label each. A name in quotes is that name, a word without quotes is a number (or the
name of a site), and a word in capitals is a part of the tree that is drawn once, further below:

    RUN                     jax.random.key(seed): --seed, or the key that Program or fit is given
      "init"                initial parameters of the model
      "learned"             initial values of what a scheme learns
        site
        "link i"            of a scheme in a chain, by its number from 0
          site
      "data"
        epoch               the order of the training data in this epoch, from 0
      "noise"
        step                from 0, counted over all epochs
          "examples"
            row             of the training data; the key of an example: Keys.example
              DRAW
          "weights"         the key that all examples of the step share: Keys.step
            DRAW
          "batch"
            device          the key of a model that takes a batch, for this device's part of it
          "augment"
            row             of the training data: the random change of this example's input
              "change i"    of a chain of changes, by its number from 0
                CHANGE
              CHANGE
          "mix"
            row             of the training data
              "partner"     the row that is mixed with it
              "share"       mixup, cutmix
              "centre"      cutmix
                axis
      "eval"
        sample              of Monte-Carlo, from 0
          "examples"
            row             of the data that is predicted
              DRAW
          "weights"
            DRAW

    DRAW                    what a model draws at its sites
      site                  the site's name, such as layer_0/recurrent
        OWN
        "link i"            of a scheme in a chain, by its number from 1; that of number 0 has none
          OWN
      "fork i"              further draws for one example, from 1: R-Drop, fraternal, multi-sample
        DRAW

    CHANGE                  what a change draws
      "move"                shift
      "flip"                flip
      "angle"               rotate
      "factor"              scale

    OWN                     where a scheme draws several things at a site
      "image"               cutout, random_erasing: whether this image is changed
      "centre"              cutout
        axis
      "area"                random_erasing
      "aspect"              random_erasing
      "place"               random_erasing
        axis
      "fill"                random_erasing
      "alpha"               shake_drop
      "beta"                shake_drop
      "survivor"            head_drop: the one that is kept if all would be dropped

Nothing else enters. The scheme is not in it, so that two runs of one seed begin with the same
parameters and see the same batches, whatever their schemes are. Nor is the size of the batch, so
that a row has the same mask in any batch and on any device. And any past step can be drawn again
without training: `train.Replay`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dropjax.core.keys import Keys
from dropjax.ops.keys import check_key, derive

Array = jax.Array


def init_key_of(key: Array) -> Array:
    """The key of the model's initial parameters, from the run's key."""
    return derive(key, "init")


def learned_key_of(key: Array) -> Array:
    """The key of the initial values of what a scheme learns, from the run's key."""
    return derive(key, "learned")


def eval_key_of(key: Array) -> Array:
    """The key of Monte-Carlo evaluation, from the run's key; see `evaluate.monte_carlo`."""
    return derive(key, "eval")


def noise_key_of(key: Array) -> Array:
    """The key of all noise in training, from the run's key."""
    return derive(key, "noise")


def step_key_of(noise_key: Array, step: ArrayLike) -> Array:
    """The key of a step, from that of all noise. `Keys.of` makes an example's keys of it."""
    return derive(noise_key, step)


def batch_key_of(step_key: Array, device: ArrayLike) -> Array:
    """The key that a batched model is given for a device's part of a batch."""
    return derive(step_key, "batch", device)


def augment_key_of(step_key: Array, row: ArrayLike) -> Array:
    """The key by which an example of a step is changed at random, before the model sees it."""
    return derive(step_key, "augment", row)


def mix_key_of(step_key: Array, row: ArrayLike) -> Array:
    """The key by which an example of a step is mixed with another one."""
    return derive(step_key, "mix", row)


def partner_of(mix_key: Array, examples: int) -> Array:
    """The row of the training data that is mixed with an example; any of them is as likely."""
    return jax.random.randint(derive(mix_key, "partner"), (), 0, examples)


def keys_of(key: Array, step: ArrayLike, row: ArrayLike) -> Keys:
    """The keys of an example in a step: `dropjax.sampled(scheme, keys)` is its draw.

    Args:
      key: the run's key, as `Program` or `fit` was given it.
      step: its number, from 0.
      row: the example's, in the training data.
    """
    return Keys.of(step_key_of(noise_key_of(check_key(key)), step), row)


def order_of(key: Array, epoch: ArrayLike, examples: int) -> Array:
    """The rows of the training data in the order of an epoch.

    Args:
      key: the run's key.
      epoch: its number, from 0.
      examples: how many rows there are.
    """
    return jax.random.permutation(derive(key, "data", epoch), examples)


def positions(
    number: Array | int, batch_size: int, device: Array | int = 0, devices: int = 1
) -> Array:
    """Where a batch, or a device's part of it, lies in an epoch's order.

    Args:
      number: of the step in its epoch, from 0.
      batch_size: of the whole batch.
      device, devices: which part of how many.

    Returns:
      (batch_size // devices,); in the epoch's last batch they may go past its end.
    """
    share = batch_size // devices
    return number * batch_size + device * share + jnp.arange(share)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """How many batches there are in an epoch, the last of which may be smaller."""
    return -(-examples // batch_size)
