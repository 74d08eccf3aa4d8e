"""A resumed run: its record has the flags that are not given; given ones must agree with it."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import dropjax
from dropjax import data, schemes
from dropjax.core.spec import lacks_rate
from dropjax.runs.sources import edited, source_file
from experiments import changes
from experiments import flags as training
from experiments.experiment import Experiment
from experiments.flags import DECLARED, Config, Flags
from experiments.setup import LaunchError, Setup, launching, resolve


def check_experiment(experiment: Experiment, record: dict[str, Any]) -> None:
    """Refuses the run of another experiment.

    Raises:
      LaunchError: it is one.
    """
    if (was := record.get("experiment", experiment.name)) != experiment.name:
        raise LaunchError(
            f"the run is of experiment {was}, not {experiment.name}: python -m experiments.{was} "
            "--resume continues it"
        )


def flags_of(given: Flags, typed: Collection[str] | None, record: dict[str, Any]) -> Flags:
    """The flags of a run that is resumed: those of its record, but for those that were given.

    A flag that the version which began the run did not have is at its default.

    Args:
      given: the flags of the command.
      typed: the names of those that somebody gave; None for all that are not None.
      record: the run's config.json.

    Raises:
      LaunchError: one differs from the record, or the record has one that this version has not.
    """
    was = record["flags"]
    if unknown := sorted(was.keys() - DECLARED.keys()):
        raise LaunchError(
            f"the run has flags that dropjax {dropjax.__version__} does not know: "
            f"{', '.join(unknown)}; resume it with {_version(record) or 'the version'} that began "
            "it"
        )
    own = {k: v for k, v in vars(given).items() if (v is not None if typed is None else k in typed)}
    with launching():
        if "dropout" in own and "rate" not in own and lacks_rate(own["dropout"]):
            own["rate"] = was.get("rate")
        if "rate" in own and "dropout" not in own:
            links = schemes.parse(was["dropout"]).links
            rates = [link.rate for link in links if hasattr(link, "rate")]  # type: ignore[attr-defined]
            if own.pop("rate") not in rates:
                _refuse("rate", ", ".join(map(str, rates)) or None, given.rate)
    recorded = training.flags_of(was)
    _check_dataset(own.get("dataset"), recorded.dataset)
    _check_epochs(own.get("epochs"), recorded.epochs)
    return dataclasses.replace(recorded, **own)


def check_file(flags: Flags) -> None:
    """Refuses a run whose own .npz file is no longer where the record says.

    Raises:
      LaunchError: it is not there; the message says how to name another place.
    """
    if flags.dataset.endswith(".npz") and not Path(flags.dataset).expanduser().is_file():
        raise LaunchError(
            f"dataset={flags.dataset}: there is no such file. If it lies elsewhere now, say where: "
            "--dataset=FILE"
        )


def changed(config: Config) -> dict[str, Any]:
    """The flags of a resumed run that may be other ones than those of its record."""
    return {name: getattr(config, name) for name in training.may_be("larger", "place", "file")}


def check_agreement(
    experiment: Experiment,
    flags: Flags,
    record: dict[str, Any],
    load: Callable[..., data.Dataset],
) -> None:
    """Refuses flags whose meaning differs from those of the record.

    This version resolves both, so that `--dropout=bernoulli` agrees with its full text.

    Args:
      experiment: which.
      flags: from `flags_of`.
      record: the run's config.json.
      load: reads a data set.

    Raises:
      LaunchError: one differs; the message names it.
    """
    recorded = flags_of(Flags(), (), record)
    # Where the data lies now; that they are the same is checked by their hash.
    recorded = dataclasses.replace(recorded, data_dir=flags.data_dir)
    if _both_own(recorded.dataset, flags.dataset):
        recorded = dataclasses.replace(recorded, dataset=flags.dataset)
    names = training.may_be("same", "file")
    asked = (*names, *training.may_be("scheme"))
    if all(getattr(flags, name) == getattr(recorded, name) for name in asked):
        return
    was, now = (
        vars(resolve(experiment, each, lambda line: None, load).config)
        for each in (recorded, flags)
    )
    for name in names:
        if training.means(name, was[name]) != training.means(name, now[name]):
            _refuse(name, was[name], now[name])


def check_numbers(path: Path, record: dict[str, Any], setup: Setup) -> None:
    """Refuses a run that this version would continue with different numbers.

    Args:
      path: its folder.
      record: its config.json.
      setup: the run as this version sets it up.

    Raises:
      LaunchError: it would; the message says why.
    """
    version = _version(record)
    if why := changes.reasons(version, changes.Case.of(setup)):
        lines = "".join(f"\n  {sentence}" for sentence in why)
        raise LaunchError(
            f"the run in {path} was begun by dropjax {version}, and {dropjax.__version__} would go "
            f"on with other numbers:{lines}\nResume it with the version that began it, or begin it "
            "anew (--overwrite)"
        )
    more = setup.config.epochs > record["flags"]["epochs"]
    if more and (why := changes.reasons_of_length(setup)):
        raise LaunchError(f"--epochs: the run cannot be made longer: {'; '.join(why)}")


def check_sources(record: dict[str, Any], sources: dict[str, str]) -> list[str]:
    """Refuses a run whose scheme or model was edited.

    Args:
      record: its config.json.
      sources: from `setup.sources`.

    Returns:
      A note, if the record does not say what the files were.

    Raises:
      LaunchError: a file is another one; the message names it.
    """
    if not sources:
        return []
    if "sources" not in record:
        files = ", ".join(str(source_file(module)) for module in sources)
        return [
            f"NOTE: the run is of a version that did not record what was in {files}; it is resumed "
            "with what is there now"
        ]
    if why := edited(record["sources"], sources):
        raise LaunchError(f"{why}. Put it back as it was, or begin the run anew (--overwrite)")
    return []


def _check_dataset(given: str | None, was: str) -> None:
    """Refuses another data set before it is read. An own .npz file may lie elsewhere."""
    if given not in (None, "auto", was) and not _both_own(given, was):
        _refuse("dataset", was, given)


def _both_own(*names: str) -> bool:
    return all(name.endswith(".npz") for name in names)


def _check_epochs(given: int | None, was: int | None) -> None:
    if given is not None and was is not None and given < was:
        raise LaunchError(
            f"--epochs: was {was}, is {given}: a run can be made longer, not shorter. Leave the "
            f"flag out, or begin a run of {given} epochs in another folder"
        )


def _refuse(name: str, was: Any, now: Any) -> None:
    raise LaunchError(
        f"--{name}: was {was}, is {now}: the run goes on with what it was begun with. Leave the "
        "flag out, or begin another run in another folder"
    )


def _version(record: dict[str, Any]) -> str | None:
    return record.get("environment", {}).get("dropjax")
