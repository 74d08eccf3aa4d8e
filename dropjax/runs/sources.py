"""The files of a scheme or a model of one's own: a run records what they were when it was begun."""

import hashlib
import sys
from pathlib import Path

from dropjax.models.network import Network


def sources(network: Network) -> dict[str, str]:
    """The sha256 of each file that defines a scheme or a model of one's own, by its module.

    The files of their base classes are among them; files that they import otherwise are not.
    """
    classes = [type(network.module), *(type(link) for link in network.scheme.links)]
    known = {"dropjax", "flax", "jax", *sys.stdlib_module_names} - {"__main__"}
    modules = {base.__module__ for cls in classes for base in cls.__mro__}
    hashes = {}
    for module in sorted(modules):
        file = source_file(module)
        if file is not None and file.is_file() and module.partition(".")[0] not in known:
            hashes[module] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashes


def source_file(module: str) -> Path | None:
    """The file of a module that was imported; None if it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else Path(file)


def edited(was: dict[str, str], now: dict[str, str]) -> str | None:
    """Which file was changed, and how that is known; None if none was.

    Args:
      was: `sources` as a run recorded them. A file that is not among them is not compared.
      now: `sources` of the run's network.
    """
    for module in sorted(was):
        if now.get(module) != was[module]:
            return (
                f"{source_file(module) or module} was changed since the run was begun: its sha256 "
                f"was {was[module]}, is {now.get(module)}"
            )
    return None
