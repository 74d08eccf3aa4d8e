"""Named places in a model where noise may enter."""

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

BATCH_AXES = ("batch", "device")
"""The mapped axes of examples in training, inner one first: of `jax.vmap` and of the devices."""


AXES = ("time", "depth", "height", "width", "feature", "gate", "head", "query", "key")
"""Names of the axes of a value. Schemes take an axis with any other name for a spatial one."""

WEIGHT_AXES = ("input", "output", "token", "feature")
"""Names of the axes of weights: of a matrix the first two, of an embedding table the last two."""


class Kind(enum.Enum):
    """What a site holds, and so which schemes make sense there. `KINDS` describes each."""

    INPUT = "input"
    EMBED = "embed"
    HIDDEN = "hidden"
    FEATURE_MAP = "feature_map"
    RECURRENT = "recurrent"
    UPDATE = "update"
    READOUT = "readout"
    STATE = "state"
    BRANCH = "branch"
    LAYER = "layer"
    TOKENS = "tokens"
    ATTENTION = "attention"
    HEADS = "heads"
    WEIGHT = "weight"
    TABLE = "table"
    LINEAR = "linear"


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts of a kind of sites.

    Args:
      what: the value at such a site, in words.
      axes: names of the value's axes in an example, for the table of schemes and the tests. A model
        may declare others: an image has three axes, a row of a table has one.
      needs: what a scheme needs there in addition to the value; and, after a semicolon, which
        function to call in a model without sites. Empty if the value is enough, so that a layer
        `Drop` can act there.
      weights: whether the value is a parameter of the model.
      models: which models have such sites, if only a few have; else empty.
    """

    what: str
    axes: tuple[str, ...]
    needs: str = ""
    weights: bool = False
    models: str = ""


_MATRIX, _SEQUENCE = ("input", "output"), ("time", "feature")
_IMAGE = ("height", "width", "feature")
_OF_TOKENS = "tokens (`transformer(vocabulary=...)`, `dropjax.models.layers.Embed`)"

KINDS: Mapping[Kind, Facts] = {
    Kind.HIDDEN: Facts("units after a non-linearity", ("feature",)),
    Kind.FEATURE_MAP: Facts("channels of a convolution, with their height and width", _IMAGE),
    Kind.INPUT: Facts("the model's input", _IMAGE),
    Kind.EMBED: Facts("embedded tokens or patches", _SEQUENCE, models=_OF_TOKENS),
    Kind.BRANCH: Facts("a residual branch before it is added", _IMAGE),
    Kind.ATTENTION: Facts("attention weights after the softmax", ("head", "query", "key")),
    Kind.RECURRENT: Facts("the previous hidden state on its way into the gates", _SEQUENCE),
    Kind.UPDATE: Facts("what a gated cell writes into its memory", _SEQUENCE),
    Kind.READOUT: Facts("what a cell reads out of its memory", _SEQUENCE),
    Kind.HEADS: Facts(
        "the output of each attention head, before they are joined", ("head", "time", "feature")
    ),
    Kind.TOKENS: Facts("embedded tokens or patches, any of which may be left out", _SEQUENCE),
    Kind.STATE: Facts(
        "a new recurrent state about to replace the previous one",
        _SEQUENCE,
        needs="the previous state; in your cell call dropjax.zoneout(key, x, rate, previous=...)",
    ),
    Kind.LAYER: Facts(
        "the output of a residual layer, about to replace the layer's input",
        _SEQUENCE,
        needs="what the layer was given; call dropjax.layer_drop(key, x, rate, previous=...)",
    ),
    Kind.LINEAR: Facts(
        "a dense layer, from its input x and its weights w and b to x @ w + b",
        _MATRIX,
        needs="weights; call dropjax.dropconnect(key, w, rate) where the layer uses them",
        weights=True,
    ),
    Kind.WEIGHT: Facts(
        "a parameter where it is used",
        _MATRIX,
        needs="weights; call dropjax.weight_drop(key, params, rate, match=...) before the model",
        weights=True,
    ),
    Kind.TABLE: Facts(
        "an embedding table where tokens are looked up",
        ("token", "feature"),
        needs="the table; call dropjax.embedding_dropout(key, w, rate) before looking up tokens",
        weights=True,
        models=_OF_TOKENS,
    ),
}
"""The facts of each kind. Whatever else depends on the kind of a site reads them here.

The order counts: in a model without sites `Drop` shows a scheme its value as the first of these
kinds on which the scheme can act.
"""


def _check_kinds(kinds: Iterable[Kind], facts: Mapping[Kind, Facts]) -> None:
    for kind in kinds:
        row = facts.get(kind)
        if row is None:
            raise TypeError(
                f"dropjax/core/site.py: KINDS has no row for {kind}. Add one: what stands at such "
                "a site, the names of its axes, and what a scheme needs there"
            )
        known = WEIGHT_AXES if row.weights else AXES
        if unknown := [axis for axis in row.axes if axis not in known]:
            names = "WEIGHT_AXES" if row.weights else "AXES"
            raise TypeError(
                f"dropjax/core/site.py: KINDS[{kind}].axes names {', '.join(unknown)}; a name has "
                f"to be one of {', '.join(known)}, or to be added to {names}"
            )


_check_kinds(Kind, KINDS)  # a new kind fails here, not somewhere else


@dataclasses.dataclass(frozen=True)
class Site:
    """A place where noise may enter, as a model declares it. It speaks of one example.

    Args:
      name: unique in the model once the draw's scopes are prefixed, for example "layer_0/hidden".
      kind: what stands there.
      axes: a name for each axis of the value, out of `AXES`, or of weights, out of `WEIGHT_AXES`.
        Never "batch".
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
