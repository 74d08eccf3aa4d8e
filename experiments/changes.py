"""Where the numbers of this version differ from those of an older one.

A run that such a change concerns is not resumed, and such a cell of an ablation runs again. What
would depend on the length of a run stands here too: such a run could not be made longer.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator

import jax
import numpy as np
import optax

from dropjax import data
from dropjax.core.keys import Keys
from dropjax.core.literals import parse_call
from dropjax.core.scheme import Learned, Scheme, Sites
from dropjax.core.site import Site
from dropjax.runs import Network
from dropjax.schemes.dropblock import DropBlock
from dropjax.train.optax_spec import LEARNING_RATES
from experiments.flags import Config
from experiments.setup import Resolved, Setup


@dataclasses.dataclass(frozen=True)
class Case:
    """The facts of a run that a change may depend on.

    Args:
      config: of the run.
      network: the model with its scheme.
      dataset: what it is trained on.
      sites: of the network.
      stateful: whether it has mutable variables, such as batch statistics.
    """

    config: Config
    network: Network
    dataset: data.Dataset
    sites: Sites
    stateful: bool

    @classmethod
    def of(cls, run: Setup | Resolved) -> "Case":
        """The facts of a run. If it is not set up yet, its model is traced."""
        if isinstance(run, Setup):
            sites, stateful = run.program.problem.sites or {}, bool(run.mutable)
        else:
            _, mutable, sites = run.traced()
            stateful = bool(mutable)
        return cls(run.config, run.network, run.dataset, sites, stateful)

    def places(self) -> Iterator[tuple[Scheme, Site, tuple[int, ...]]]:
        """Each link of the scheme with each site that it acts on, and the shape of its value."""
        for link in self.network.scheme.links:
            for site, shape in self.sites.values():
                if link.wants(site):
                    yield link, site, shape


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of numbers.

    Args:
      since: the first version that has it, such as (0, 6).
      sentence: what has changed, for the reader of an error message.
      meets: whether a run is concerned.
    """

    since: tuple[int, int]
    sentence: str
    meets: Callable[[Case], bool]


def _dropblock(case: Case) -> bool:
    """Whether the scale of what is kept has changed, if only by rounding."""
    for link, site, shape in case.places():
        if not isinstance(link, DropBlock) or link.normalize == "none":
            continue
        some = link.sample(Keys.of(jax.random.key(0)), site, shape).some  # of any key
        if link.normalize == "expected" or float(np.min(some)) < 1:
            return True
    return False


def _depth_in_transformer(case: Case) -> bool:
    linear = any(getattr(link, "rule", None) == "linear" for link in case.network.scheme.links)
    return linear and case.config.model.startswith("transformer")


def _rate_of_1(case: Case) -> bool:
    """Whether all is dropped at some site; evaluation took the value itself there."""
    rates = (
        rate
        for link, site, _ in case.places()
        for name, rate in link.rates_at(site).items()
        if name != "std" and not link.train_only
    )
    return any(np.float32(rate) >= 1 for rate in rates)


def _penalised_regression(case: Case) -> bool:
    same = case.dataset.outputs == 2 or case.config.penalty in ("0", "0.0")
    return case.dataset.task == "regression" and case.network.scheme.penalises and not same


def _decayed_learning(case: Case) -> bool:
    """Whether the optimiser has a weight decay that acted on what a scheme learns."""
    learn = any(
        isinstance(link, Learned) and type(link).trained is Scheme.trained
        for link in case.network.scheme.links
    )
    if not learn:
        return False
    name, arguments = parse_call(case.config.optimizer)
    parameters = inspect.signature(getattr(optax, name)).parameters
    decays = [decay for decay in ("weight_decay", "weight_decay_rate") if decay in parameters]
    return any(arguments.get(decay, parameters[decay].default) for decay in decays)


def _partial_batch(case: Case) -> bool:
    return case.stateful and len(case.dataset.x_train) % case.config.batch_size != 0


CHANGES: tuple[Change, ...] = (
    Change(
        (0, 6),
        "dropblock scales up also for maps that may be dropped whole",
        _dropblock,
    ),
    Change(
        (0, 6),
        "the linear depth rule counts a transformer's branches, no longer its layers",
        _depth_in_transformer,
    ),
    Change(
        (0, 6),
        "at a rate of 1, where nothing is kept, evaluation is by the mean, which is 0",
        _rate_of_1,
    ),
    Change(
        (0, 6),
        "a penalty of 1 in regression makes the loss the ELBO, whatever the number of targets",
        _penalised_regression,
    ),
    Change(
        (0, 6),
        "weight decay no longer acts on what a scheme has learned",
        _decayed_learning,
    ),
    Change(
        (0, 6),
        "examples that only fill up an epoch's last batch are left out of batch statistics",
        _partial_batch,
    ),
)
"""All of them, the oldest first."""

OF_LENGTH: dict[str, Callable[[Setup], bool]] = {
    "its learning rate is a schedule over the whole run": lambda setup: (
        isinstance(setup.config.learning_rate, str)
        and parse_call(setup.config.learning_rate)[0] in LEARNING_RATES
    ),
    "it averages weights over a share of the whole run": lambda setup: (
        parse_call(setup.config.average)[0] == "last"
    ),
}
"""By a sentence that says it: whether the numbers of a run depend on how many steps it has."""


def is_older(version: str | None) -> bool:
    """Whether some change came after a version. An unknown version counts as the first."""
    return any(_number(version) < change.since for change in CHANGES)


def reasons(version: str | None, case: Case) -> list[str]:
    """Why the numbers of a run would be different now.

    Args:
      version: of dropjax, which began the run; None if it is not known.
      case: the run.

    Returns:
      A sentence for each reason; none if the numbers are the same.
    """
    later = [change for change in CHANGES if _number(version) < change.since]
    return [change.sentence for change in later if change.meets(case)]


def _number(version: str | None) -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def reasons_of_length(setup: Setup) -> list[str]:
    """Why a longer run would have had different numbers from the start."""
    return [sentence for sentence, meets in OF_LENGTH.items() if meets(setup)]
