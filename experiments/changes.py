"""What this version computes otherwise than an older one: a run is not resumed across that.

Also the place for what of a run depends on its length: such a run cannot be made longer.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable

import optax

from dropjax.core.literals import parse_call
from dropjax.core.noise import select
from dropjax.core.site import Site
from experiments.setup import Setup


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of numbers.

    Args:
      since: the first version that has it, such as (0, 6).
      sentence: what is other, as a reader of an error message should know it.
      meets: whether a run has it.
    """

    since: tuple[int, int]
    sentence: str
    meets: Callable[[Setup], bool]


def _dropblock_on_small_maps(setup: Setup) -> bool:
    """Whether few blocks cover a map of default normalisation."""
    return any(
        type(link).__name__ == "DropBlock"
        and getattr(link, "normalize", None) == "example"
        and any(_is_small(site, shape, link.block_size) for site, shape in _sites_of(setup, number))  # type: ignore[attr-defined]
        for number, link in enumerate(setup.network.scheme.links)
    )


def _sites_of(setup: Setup, number: int) -> list[tuple[Site, tuple[int, ...]]]:
    """The sites of a scheme's link, with the shapes of their values."""
    sites = setup.program.problem.sites or {}
    return list(select(setup.network.scheme.links[number], sites).values())


def _is_small(site: Site, shape: tuple[int, ...], block_size: int | tuple[int, ...]) -> bool:
    names = ("time", "depth", "height", "width")
    spans = [size for name, size in zip(site.axes, shape, strict=True) if name in names]
    blocks = (block_size,) * len(spans) if isinstance(block_size, int) else block_size
    return all(span <= 2 * block for span, block in zip(spans, blocks, strict=True))


def _linear_depth_in_transformer(setup: Setup) -> bool:
    linear = any(getattr(link, "rule", None) == "linear" for link in setup.network.scheme.links)
    return linear and setup.config.model.startswith("transformer")


def _penalised_regression(setup: Setup) -> bool:
    return setup.dataset.task == "regression" and setup.network.scheme.penalises


def _decayed_learning(setup: Setup) -> bool:
    return setup.network.scheme.learns and _decays(setup.config.optimizer)


def _decays(optimizer: str) -> bool:
    """Whether the optimiser of a text has a weight decay that is not 0."""
    name, arguments = parse_call(optimizer)
    parameters = inspect.signature(getattr(optax, name)).parameters
    decays = [of for of in ("weight_decay", "weight_decay_rate") if of in parameters]
    return any(arguments.get(of, parameters[of].default) for of in decays)


def _partial_batch_statistics(setup: Setup) -> bool:
    return bool(setup.mutable) and bool(len(setup.dataset.x_train) % setup.config.batch_size)


CHANGES: tuple[Change, ...] = (
    Change(
        (0, 6),
        "dropblock by default divides by the probability that something of a map is kept as well",
        _dropblock_on_small_maps,
    ),
    Change(
        (0, 6),
        "the linear depth rule counts a transformer's branches, no longer its layers",
        _linear_depth_in_transformer,
    ),
    Change(
        (0, 6),
        "a penalty of 1 in regression is twice what it was, so that the loss is the ELBO's",
        _penalised_regression,
    ),
    Change(
        (0, 6),
        "weight decay no longer acts on what a scheme has learned",
        _decayed_learning,
    ),
    Change(
        (0, 6),
        "a last batch that is not full no longer fills up batch statistics",
        _partial_batch_statistics,
    ),
)
"""All of them, the oldest first."""

OF_LENGTH: dict[str, Callable[[Setup], bool]] = {}
"""What depends on how many steps a run has in all, by a sentence that says so. All schedules of
this version name their steps, so that none is here."""


def reasons(version: str | None, setup: Setup) -> list[str]:
    """Why the numbers of a run would be other ones now.

    Args:
      version: of dropjax, which began the run; None if it is not known.
      setup: the run.

    Returns:
      A sentence each; none if the numbers are the same.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    began = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return [change.sentence for change in CHANGES if began < change.since and change.meets(setup)]


def reasons_of_length(setup: Setup) -> list[str]:
    """Why a longer run would have had other numbers from the start."""
    return [sentence for sentence, meets in OF_LENGTH.items() if meets(setup)]
