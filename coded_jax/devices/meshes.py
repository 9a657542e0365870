"""The mesh of devices, with the axes `piece` and `data`."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from coded_jax.checks import is_integer, require_sizes
from coded_jax.devices.startup import give_threads

PIECE, DATA = "piece", "data"


def make_mesh(
    n: int, devices: int | None = None, shape: tuple[int, int] | None = None
) -> Mesh:
    """Arranges the devices as `piece` x `data`.

    Args:
      n: pieces, data and parity.
      devices: how many to use at most; all if None.
      shape: devices along `piece` and along `data`. If None, one piece each where
        there are n or more devices, and as many batch shards as the rest allows;
        with fewer, all of them along `piece`, with several pieces each.

    Raises:
      ValueError: there are not so many devices, or more along `piece` than pieces, or
        a process of this run would have none.
    """
    give_threads()
    available = jax.devices()
    count = len(available) if devices is None else devices
    if not (is_integer(count) and 1 <= count <= len(available)):
        raise ValueError(
            f"devices: {devices!r} given, 1..{len(available)} accepted, the "
            f"{available[0].platform} devices found"
        )
    count = int(count)
    if shape is not None:
        require_sizes("mesh", shape, "piece", "data")
    sizes = [shape] if shape else [(p, count // p) for p in range(min(n, count), 0, -1)]
    # The first that every process takes part in.
    spanning = [size for size in sizes if _spans_processes(available, size)]
    pieces, shards = (spanning or sizes)[0]
    if not (1 <= pieces <= n and shards >= 1 and pieces * shards <= count):
        raise ValueError(
            f"mesh: {pieces}x{shards} given, piece x data accepted with 1..{n} along "
            f"piece and a product of at most {count}, the number of devices"
        )
    if not spanning:
        raise ValueError(
            f"mesh: {pieces}x{shards} given, one with devices of all "
            f"{jax.process_count()} processes accepted"
        )
    grid = np.asarray(available[: pieces * shards]).reshape(pieces, shards)
    # Auto: jax 0.9 makes Explicit the default, where implicit resharding is an error.
    return Mesh(grid, (PIECE, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def _spans_processes(available: list[jax.Device], shape: tuple[int, int]) -> bool:
    """Returns whether a mesh of this shape has a device of every process."""
    used = {device.process_index for device in available[: shape[0] * shape[1]]}
    return len(used) == jax.process_count()


def padded_size(mesh: Mesh | None, batch: int) -> int:
    """Returns the smallest size from `batch` on that the devices divide."""
    return batch if mesh is None else batch + -batch % mesh.size
