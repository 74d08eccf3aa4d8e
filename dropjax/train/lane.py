"""A lane: what one of many runs in a program has for itself; see `train.lanes`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core.scheme import Scheme
from dropjax.ops.keys import check_key
from dropjax.train.keys import noise_key_of

Array = jax.Array

PARTS = ("metrics", "regularizer", "project", "average")
"""The parts of a problem of which a lane can have its own."""
_NUMBERS = (int, float, np.ndarray, np.generic, jax.Array)


@dataclasses.dataclass(frozen=True, eq=False)
class Lane:
    """One run among others in a program: what it does not share with them.

    Args:
      key: the run's key, as of `Program` and `fit`.
      scheme: its scheme, which differs from the problem's in numbers alone; None for the
        problem's.
      numbers: the arguments of its optimiser, such as {"learning_rate": 1e-3}.
      strength: multiplies the problem's.
      penalty: multiplies the problem's.
      parts: what it has in the place of parts of the problem, by the names of these: "metrics",
        "regularizer", "project" or "average". Each is a tree that differs from the other lanes' in
        numbers alone, such as {"regularizer": WeightPenalty(l2=1e-4)}.
      rows: (examples,), the rows of the data that it trains on; None for all. Each lane has as
        many.
    """

    key: Array
    scheme: Scheme | None = None
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    strength: float = 1.0
    penalty: float = 1.0
    rows: np.ndarray | None = None
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stacked:
    """What lanes have for themselves, as arrays (lanes, ...)."""

    key: Array
    noise_key: Array
    scheme: Scheme | None
    numbers: dict[str, Array]
    strength: Array
    penalty: Array
    rows: Array | None
    parts: dict[str, Any]


def checked_lanes(
    lanes: Sequence[Lane],
    scheme: Scheme | None,
    optimizer: Callable[..., Any] | None,
    examples: int,
    like: Lane | None = None,
) -> list[Lane]:
    """The lanes, each with a scheme, if one program can train them all.

    Args:
      lanes: as they were given.
      scheme: the scheme of lanes that have none of their own.
      optimizer: the function that takes their numbers; None if there is none.
      examples: how many rows the data have.
      like: a lane that the program was compiled for; None for the first of `lanes`.

    Raises:
      TypeError: something in a lane is not what it should be.
      ValueError: they differ in more than numbers; rows that the data do not have; a value that
        would do nothing.
    """
    if not lanes:
        raise ValueError("there is no lane")
    for number, lane in enumerate(lanes):
        _check_lane(lane, number)
    made = [
        lane if lane.scheme is not None else dataclasses.replace(lane, scheme=scheme)
        for lane in lanes
    ]
    first, other = (made[0], "lane 0") if like is None else (like, "those of the program")
    for number, lane in enumerate(made):
        where = f"lane {number} and {other}"
        if (lane.scheme is None) != (scheme is None):
            raise ValueError(f"lane {number} has a scheme, but the problem's model takes a key")
        if _structure(lane.scheme) != _structure(first.scheme):
            raise ValueError(
                f"{where} differ in more than numbers: {lane.scheme} and {first.scheme}; train "
                "them apart"
            )
        if lane.numbers.keys() != first.numbers.keys():
            raise ValueError(
                f"{where} name different numbers: {[*lane.numbers]} and {[*first.numbers]}"
            )
        if _structure(dict(lane.parts)) != _structure(dict(first.parts)):
            raise ValueError(
                f"the parts of {where} differ in more than numbers: {dict(lane.parts)} and "
                f"{dict(first.parts)}; train them apart"
            )
        if _count(lane) != _count(first):
            raise ValueError(
                f"{where} train on different numbers of examples: {_count(lane)} and "
                f"{_count(first)}; train them apart"
            )
        _check_rows(lane.rows, number, examples)
        if lane.strength != 1 and lane.scheme is None:
            raise ValueError(f"strength={lane.strength} of lane {number} would do nothing")
        if lane.penalty != 1 and not (lane.scheme is not None and lane.scheme.penalises):
            raise ValueError(f"penalty={lane.penalty} of lane {number} would do nothing")
    if optimizer is None and first.numbers:
        raise ValueError(
            f"the lanes' numbers {[*first.numbers]} would do nothing: say of which function they "
            "are the arguments, optimizer=optax.adam for example"
        )
    return made


def _check_lane(lane: Lane, number: int) -> None:
    """Refuses what would fail later with a message that does not name the lane."""
    if not isinstance(lane, Lane):
        raise TypeError(f"lane {number} must be a train.Lane, got {lane!r}")
    check_key(lane.key, f"the key of lane {number}")
    if lane.scheme is not None and not isinstance(lane.scheme, Scheme):
        raise TypeError(
            f"the scheme of lane {number} must be a scheme, such as "
            f"dropjax.schemes.parse('bernoulli(rate=0.5)'), or None; got {lane.scheme!r}"
        )
    if not isinstance(lane.numbers, dict):
        raise TypeError(
            f"the numbers of lane {number} must be a dictionary such as "
            f'{{"learning_rate": 0.001}}, got {lane.numbers!r}'
        )
    if odd := sorted(set(lane.parts) - set(PARTS)):
        raise ValueError(f"parts of lane {number} must be among {', '.join(PARTS)}; got {odd[0]!r}")
    for name, part in lane.parts.items():
        if not all(isinstance(leaf, _NUMBERS) for leaf in jax.tree.leaves(part)):
            raise TypeError(
                f"{name} of lane {number} must be a tree of numbers, such as "
                f"WeightPenalty(l2=1e-4), got {part!r}; what all lanes share belongs in the problem"
            )
    given = {"strength": lane.strength, "penalty": lane.penalty}
    for name, value in (given | lane.numbers).items():
        if np.ndim(value) or not np.issubdtype(np.asarray(value).dtype, np.number):
            raise TypeError(f"{name} of lane {number} must be a number, got {value!r}")
        if name in given and not 0 <= value < np.inf:
            raise ValueError(f"{name} of lane {number} must be 0 or more, got {value}")


def _structure(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _count(lane: Lane) -> int | str:
    return "all" if lane.rows is None else len(lane.rows)


def _check_rows(rows: np.ndarray | None, lane: int, examples: int) -> None:
    """Refuses rows that the data do not have: a device would read other rows, without an error."""
    if rows is None:
        return
    rows = np.asarray(rows)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"rows of lane {lane} must be a list of integers, got {rows.dtype}{list(rows.shape)}"
        )
    if len(rows) and not (rows.min() >= 0 and rows.max() < examples):
        raise ValueError(
            f"rows of lane {lane} go from {rows.min()} to {rows.max()}, and those of the data "
            f"from 0 to {examples - 1}"
        )


def stack(lanes: Sequence[Lane]) -> Stacked:
    """What lanes have for themselves, one array for all of them."""

    def together(*values: Any) -> Array:
        return jnp.stack([jnp.asarray(value) for value in values])

    def floats(values: Sequence[Any]) -> Array:
        return jnp.asarray(np.asarray(values, np.float32))

    first = lanes[0]
    return Stacked(
        key=together(*(lane.key for lane in lanes)),
        noise_key=together(*(noise_key_of(lane.key) for lane in lanes)),
        scheme=jax.tree.map(together, *(lane.scheme for lane in lanes)),
        numbers={name: floats([lane.numbers[name] for lane in lanes]) for name in first.numbers},
        strength=floats([lane.strength for lane in lanes]),
        penalty=floats([lane.penalty for lane in lanes]),
        rows=None if first.rows is None else together(*(lane.rows for lane in lanes)),
        parts=jax.tree.map(lambda *leaves: floats(leaves), *(dict(lane.parts) for lane in lanes)),
    )
