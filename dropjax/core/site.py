"""Named places in a model where noise may enter."""

import dataclasses
import enum
from collections.abc import Sequence

BATCH_AXES = ("batch", "device")
"""The mapped axes of examples in training, inner one first: of `jax.vmap` and of the devices."""


class Kind(enum.Enum):
    """What a site holds, and so which schemes make sense there."""

    INPUT = "input"  # the model's input
    EMBED = "embed"  # an embedded token or patch
    HIDDEN = "hidden"  # units after a non-linearity
    FEATURE_MAP = "feature_map"  # channels of a convolution, with their height and width
    RECURRENT = "recurrent"  # the previous hidden state on its way into the gates
    UPDATE = "update"  # what a gated cell writes into its memory
    READOUT = "readout"  # what a cell reads out of its memory
    STATE = "state"  # a new recurrent state about to replace the previous one
    BRANCH = "branch"  # a residual branch before it is added
    LAYER = "layer"  # what a residual layer returns, about to replace what it was given
    TOKENS = "tokens"  # embedded tokens or patches, any of which may be left out
    ATTENTION = "attention"  # attention weights after the softmax
    HEADS = "heads"  # what each attention head has found, before they are joined
    WEIGHT = "weight"  # a parameter where it is used
    TABLE = "table"  # an embedding table where tokens are looked up
    LINEAR = "linear"  # a dense layer: (x, w, b) -> x @ w + b


@dataclasses.dataclass(frozen=True)
class Site:
    """A place where noise may enter, as a model declares it. It speaks of one example.

    Args:
      name: unique in the model once the draw's scopes are prefixed, for example "layer_0/hidden".
      kind: what stands there.
      axes: a name for each axis of the value: "time", "depth", "height", "width", "feature",
        "gate", "head", "query", "key"; for weights "input", "output"; for tables "token",
        "feature". Never "batch".
      depth: 0 at the model's input, 1 at its output; the l-th of L residual branches is at l / L.
        For rates that grow with depth.
    """

    name: str
    kind: Kind
    axes: tuple[str, ...]
    depth: float = 0.0

    def __post_init__(self) -> None:
        if "batch" in self.axes:
            raise ValueError(
                f"site {self.name!r} has a batch axis; a model is written for one example"
            )

    def within(self, prefix: str) -> "Site":
        """The same site with its name prefixed."""
        return dataclasses.replace(self, name=prefix + self.name) if prefix else self

    def shared(self, shape: Sequence[int], *axes: str) -> tuple[int, ...]:
        """The shape of noise for a value of `shape` that is shared along the named axes."""
        named = zip(self.axes, shape, strict=True)
        return tuple(1 if axis in axes else size for axis, size in named)

    def own(self, shape: Sequence[int], *axes: str) -> tuple[int, ...]:
        """The shape of noise that is shared along all but the named axes."""
        return self.shared(shape, *(axis for axis in self.axes if axis not in axes))


def input_axes(ndim: int) -> tuple[str, ...]:
    """What the axes of an example are called: features last, images with height and width.

    Raises:
      ValueError: an example of that many axes has no standard names.
    """
    spatial = {1: (), 2: ("time",), 3: ("height", "width"), 4: ("depth", "height", "width")}
    if ndim not in spatial:
        raise ValueError(f"an example must have 1 to 4 axes, the last its features; got {ndim}")
    return (*spatial[ndim], "feature")
