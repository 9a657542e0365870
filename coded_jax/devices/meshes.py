"""The mesh of devices, with the axes `piece` and `data`, and their memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from coded_jax.checks import is_integer, require, require_sizes
from coded_jax.devices.startup import give_threads

PIECE, DATA = "piece", "data"
TPU = "tpu"

Sizes = tuple[int, int]
"""Devices along `piece` and along `data`."""


def make_mesh(
    n: int,
    devices: int | None = None,
    shape: Sizes | None = None,
    available: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Arranges the devices as `piece` x `data`.

    A program of a TPU host runs on all of its chips, or on one: over six of eight an
    all-gather does not compile, and a sum ends the process (libtpu 0.0.42). So every
    chip takes part, and pieces are padded where the chips do not divide them.

    Args:
      n: pieces, data and parity.
      devices: how many to use at most; all if None. Of TPU chips all, or one.
      shape: devices along `piece` and along `data`, see `cheapest` for None.
      available: the devices there are, described ones say; `jax.devices()` if None.

    Raises:
      ValueError: there are not so many devices, or more along `piece` than pieces, a
        part of a TPU host is asked for, or a process of this run would have none.
    """
    if available is None:
        give_threads()
        available = jax.devices()
    most, platform = len(available), available[0].platform
    hosts = len({device.process_index for device in available})
    whole_host = platform == TPU
    count = most if devices is None else devices
    usable, wording = range(1, most + 1), f"1..{most}, the {platform} devices found,"
    if whole_host:
        usable = {most} if hosts > 1 else {1, most}
        wording = f"one of {usable}, all chips of a TPU or one of a host,"
    require("devices", devices, is_integer(count) and count in usable, wording)
    if shape is None:
        sizes = by_cost(n, count, whole_host)
    else:
        pieces, shards = require_sizes("mesh", shape, "piece", "data")
        if whole_host:  # some compute a copy where chips are left
            divisors = [p for p in range(1, count + 1) if count % p == 0]
            meshes = ", ".join(f"{p}x{count // p}" for p in divisors)
            fits = pieces * shards == count
            form = f"one of {meshes}, all {count} chips of the TPU,"
        else:
            fits = pieces <= n and pieces * shards <= count
            form = f"at most {n} along piece, and a product of at most {count} devices,"
        require("mesh", f"{pieces}x{shards}", fits, form)
        sizes = [(pieces, shards)]
    for size in sizes:
        mesh = arrange(available, size)
        if len({device.process_index for device in mesh.devices.flat}) == hosts:
            return mesh
    pieces, shards = sizes[0]
    raise ValueError(
        f"mesh: {pieces}x{shards} given, one with devices of all {hosts} processes "
        "accepted"
    )


def by_cost(n: int, count: int, whole_host: bool = False) -> list[Sizes]:
    """Returns the meshes of at most `count` devices for n pieces, the cheapest first.

    A device computes `ceil(n/p)` pieces of `1/d` of the images; the fewer of these the
    better. Of equals, a piece on each device comes first, and then what exchanges the
    fewest bytes: of `p` devices that share pieces, each sends `(p-1)/p` of its queries.
    A mesh that shares no pieces (`p = 1`) needs no code, and is not among them.

    Args:
      n: pieces.
      count: devices.
      whole_host: whether all of them must take part.
    """
    if count == 1:
        return [(1, 1)]
    sizes = [(p, count // p) for p in range(2, min(n, count) + 1)]
    if whole_host:
        sizes = [(p, d) for p, d in sizes if p * d == count] or [(1, count)]

    def cost(size: Sizes) -> tuple[Fraction, bool, int]:
        pieces, shards = size
        return Fraction(-(-n // pieces), shards), pieces != n, pieces

    return sorted(sizes, key=cost)


def arrange(available: Sequence[jax.Device], shape: Sizes) -> Mesh:
    """Returns the mesh in which devices that share pieces are next to each other.

    So the two all-to-alls stay within a host, where a host has as many, and on a TPU
    between neighbours. Whether a program can run on it is not looked at.

    Args:
      available: the devices, of which the first ones are used.
      shape: devices along `piece` and along `data`.
    """
    pieces, shards = shape
    grid = np.asarray(available[: pieces * shards]).reshape(shards, pieces).T
    # Auto: jax 0.9 makes Explicit the default, where implicit resharding is an error.
    return Mesh(grid, (PIECE, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def pieces_on(mesh: Mesh, n: int) -> list[tuple[int, ...]]:
    """Returns the pieces that each device along `piece` computes; of a device for which
    none is left an empty tuple, though it computes copies of the last one.

    Args:
      mesh: from `make_mesh`.
      n: pieces.
    """
    own = -(-n // mesh.shape[PIECE])
    starts = range(0, own * mesh.shape[PIECE], own)
    return [tuple(range(start, min(start + own, n))) for start in starts]


def padded_size(mesh: Mesh | None, batch: int) -> int:
    """Returns the smallest size from `batch` on that the devices divide."""
    return batch if mesh is None else batch + -batch % mesh.size


def memory_of_device(mesh: Mesh | None) -> int:
    """Returns the bytes that each device of this process has, used or not.

    Devices that a CPU stands for have equal parts of the memory of the host, or of the
    container that this process is in.

    Args:
      mesh: the devices; None for the default one.
    """
    devices = list(mesh.local_devices) if mesh else jax.local_devices()[:1]
    stats = devices[0].memory_stats() or {}  # none of a CPU
    if limit := stats.get("bytes_limit"):
        return limit
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory // len(devices)
