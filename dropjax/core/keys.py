"""What the noise of one realisation may depend on."""

import dataclasses
from typing import Self

import jax
from jax.typing import ArrayLike

from dropjax.ops.keys import check_key, derive

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys and numbers of one example in one training step or one Monte-Carlo sample.

    Args:
      example: key of this example in this step: noise on activations.
      step: key of this step, shared by all its examples: noise on weights, whole-batch choices.
      example_id: the example's row in the data set.
      sample_id: which Monte-Carlo sample this is, from 1 on; 0 in training.
    """

    example: Array
    step: Array
    example_id: ArrayLike = 0
    sample_id: ArrayLike = 0

    @classmethod
    def of(cls, key: Array, example_id: ArrayLike = 0, sample_id: ArrayLike = 0) -> Self:
        """The keys of example `example_id` below `key`, the key of one step or one sample.

        The example's key depends on `key` and `example_id` alone: neither on the batch it sits in
        nor on the device that holds it.
        """
        key = check_key(key)
        return cls(
            example=derive(key, "examples", example_id),
            step=derive(key, "weights"),
            example_id=example_id,
            sample_id=sample_id,
        )

    def within(self, *labels: str) -> Self:
        """The keys below these names."""
        return dataclasses.replace(
            self, example=derive(self.example, *labels), step=derive(self.step, *labels)
        )
