"""Data parallelism. No other module uses `jax.pmap`."""

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dropjax.core.site import BATCH_AXES

_AXIS = BATCH_AXES[1]


def replicate(tree: Any, devices: Sequence[Any]) -> Any:
    """Copies a tree of arrays to every device, as the functions of `parallel` expect it.

    Arrays that lie elsewhere would be copied in every call, and would compile a second program.
    """
    everywhere = NamedSharding(Mesh(np.asarray(devices), (_AXIS,)), PartitionSpec())
    if everywhere.is_fully_addressable:
        return jax.device_put(tree, everywhere)
    return jax.tree.map(lambda leaf: _to_all_processes(leaf, everywhere), tree)


def _to_all_processes(leaf: Any, everywhere: NamedSharding) -> Any:
    """A leaf that each process has, as one array over the devices of all processes."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _to_all_processes(jax.random.key_data(leaf), everywhere)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    # Devices of other processes take arrays from the host alone.
    return jax.device_put(np.asarray(leaf), everywhere)


def parallel(
    function: Callable[..., Any], devices: Sequence[Any], *, donate: Sequence[int] = ()
) -> Callable[..., Any]:
    """Compiles `function(device_index, *args)` to run on every device with the same arguments.

    Args:
      function: its arguments are positional. Only the index differs between devices; what it
        returns must be the same on all of them.
      devices: where to run.
      donate: which of `args`, counted from 0, may be overwritten.

    Returns:
      A function of `args`, each replicated, with replicated results.
    """
    # Each process gives the indices of its own devices alone.
    here = jax.process_index()
    index = np.asarray([i for i, device in enumerate(devices) if device.process_index == here])
    arguments = len(inspect.signature(function).parameters) - 1
    mapped = jax.pmap(
        function,
        axis_name=_AXIS,
        in_axes=(0, *[None] * arguments),
        out_axes=None,
        devices=devices,
        donate_argnums=tuple(i + 1 for i in donate),
    )
    return functools.partial(mapped, index)


def sum_over(devices: Sequence[Any], tree: Any) -> Any:
    """Inside `parallel`: each leaf summed over the devices.

    With one device there is nothing to add, but XLA would still copy every leaf (measured on a CPU:
    7 % of the time of an MLP with 2 million weights).
    """
    return jax.lax.psum(tree, _AXIS) if len(devices) > 1 else tree


def mean_over(devices: Sequence[Any], tree: Any) -> Any:
    """Inside `parallel`: leaves of floats averaged over the devices; other leaves stay."""
    if len(devices) == 1:
        return tree

    def mean(leaf: Any) -> Any:
        return jax.lax.pmean(leaf, _AXIS) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

    return jax.tree.map(mean, tree)


def check_devices(devices: Sequence[Any] | None) -> tuple[Any, ...]:
    """The devices to train on: all for None.

    Raises:
      TypeError: `devices` is no list of devices.
      ValueError: the list is empty.
    """
    if devices is None:
        return tuple(jax.devices())
    if not isinstance(devices, Iterable) or not all(isinstance(d, jax.Device) for d in devices):
        raise TypeError(f"devices must be a list such as jax.devices()[:1], got {devices!r}")
    if not len(devices):
        raise ValueError("devices is an empty list; leave it out for all devices")
    return tuple(devices)


def check_batch_size(batch_size: int, devices: int) -> None:
    """Refuses a global batch that does not split evenly over the devices.

    Raises:
      TypeError: it is no whole number.
      ValueError: it does not split evenly; the message has the nearest sizes that do.
    """
    if check_count(batch_size, "batch_size") < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size % devices:
        below = batch_size // devices * devices
        near = [str(n) for n in (below, below + devices) if n]
        raise ValueError(
            f"batch_size={batch_size} does not divide over {devices} devices; "
            f"{' or '.join(near)} would"
        )


def check_count(value: Any, name: str) -> int:
    """Returns a whole number as an int.

    Raises:
      TypeError: `value` is no whole number.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    return operator.index(value)
