"""Noise that is not drawn yet: a few bytes, whatever its shape."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self, TypeVar, cast

import jax
from jax.typing import ArrayLike

Array = jax.Array
Function = TypeVar("Function", bound=Callable[..., Any])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Lazy:
    """Noise that is drawn inside the loop that uses it, forward and again backward.

    Args:
      seed: see `ops.bits.seed_of`.
      index: positions on the leading axes of the noise that this is a part of.
      whole: the shape of that noise.
    """

    seed: Array
    index: tuple[ArrayLike, ...]
    whole: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole[len(self.index) :]

    def row(self, i: ArrayLike) -> Self:
        """Row `i` along the first axis; the only row there is, if that axis is shared."""
        return dataclasses.replace(self, index=(*self.index, 0 if self.shape[0] == 1 else i))

    def drawn(self) -> Array:
        """The noise as an array, to look at."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it is as an array")


def is_lazy(noise: object) -> bool:
    """For `is_leaf` of `jax.tree` functions over noise."""
    return isinstance(noise, Lazy)


def fused(f: Function) -> Function:
    """Compiles `f` as one program. For the backward pass its arguments are kept, not its noise."""
    return cast(Function, jax.jit(jax.checkpoint(f, prevent_cse=False)))
