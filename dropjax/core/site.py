"""Named places in a model where noise may enter."""

import dataclasses
import enum


class Kind(enum.Enum):
    """What a site holds, and so which schemes make sense there."""

    INPUT = "input"  # the model's input
    EMBED = "embed"  # an embedded token or patch
    HIDDEN = "hidden"  # units after a non-linearity
    FEATURE_MAP = "feature_map"  # channels of a convolution, with their height and width
    RECURRENT = "recurrent"  # the previous hidden state on its way into the gates
    STATE = "state"  # a new recurrent state about to replace the previous one
    BRANCH = "branch"  # a residual branch before it is added
    ATTENTION = "attention"  # attention weights after the softmax
    WEIGHT = "weight"  # a parameter where it is used
    LINEAR = "linear"  # a dense layer: (x, w, b) -> x @ w + b


@dataclasses.dataclass(frozen=True)
class Site:
    """A place where noise may enter, as a model declares it. It speaks of one example.

    Args:
      name: unique in the model once the draw's scopes are prefixed, for example "layer_0/hidden".
      kind: what stands there.
      axes: a name for each axis of the value: "time", "height", "width", "feature"; for weights
        "input", "output". Never "batch".
      depth: 0 at the model's input, 1 at its output; for rates that grow with depth.
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
