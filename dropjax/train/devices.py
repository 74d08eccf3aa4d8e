"""Data parallelism. The one place that knows of `jax.pmap`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "device"
"""The name of the device axis inside `parallel`, for `jax.lax.psum`."""


def replicate(tree: Any, devices: Sequence[Any]) -> Any:
    """A tree of arrays with a copy on every device, placed as `parallel` expects it.

    Anything placed otherwise would be copied anew in every call and compile a second program.
    """
    everywhere = NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec())
    return jax.device_put(tree, everywhere)


def parallel(
    function: Callable[..., Any], devices: Sequence[Any], *, donate: Sequence[int] = ()
) -> Callable[..., Any]:
    """Runs `function(device_index, *args)` on every device with the same arguments.

    Args:
      function: its index is the only thing that differs between devices; what it returns must not
        differ.
      devices: where to run.
      donate: which of `args` (0 is the first) may be overwritten.

    Returns:
      A function of `args`, each replicated, with replicated results.
    """
    index = np.arange(len(devices))
    mapped: dict[int, Callable[..., Any]] = {}

    def call(*args: Any) -> Any:
        if len(args) not in mapped:
            mapped[len(args)] = jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=(0, *[None] * len(args)),
                out_axes=None,
                devices=devices,
                donate_argnums=tuple(i + 1 for i in donate),
            )
        return mapped[len(args)](index, *args)

    return call


def check_batch_size(batch_size: int, devices: int) -> None:
    """Refuses a global batch that does not split evenly over the devices.

    Raises:
      ValueError: it does not; the message has the nearest sizes that do.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size % devices:
        below = batch_size // devices * devices
        near = [str(n) for n in (below, below + devices) if n]
        raise ValueError(
            f"batch_size={batch_size} does not divide over {devices} devices; "
            f"{' or '.join(near)} would"
        )
