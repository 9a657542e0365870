"""The mesh of devices, with the axes `piece` and `data`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from coded_jax.checks import is_integer, require_sizes
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
    whole_host = available[0].platform == TPU
    count = _count(devices, available)
    if shape is not None:
        require_sizes("mesh", shape, "piece", "data")
        shape = (int(shape[0]), int(shape[1]))
        _require_fitting(n, shape, count, whole_host)
    sizes = [shape] if shape else by_cost(n, count, whole_host)
    hosts = {device.process_index for device in available}
    spanning = [
        size
        for size in sizes
        if len({d.process_index for d in available[: size[0] * size[1]]}) == len(hosts)
    ]
    if not spanning:
        pieces, shards = sizes[0]
        raise ValueError(
            f"mesh: {pieces}x{shards} given, one with devices of all {len(hosts)} "
            "processes accepted"
        )
    return arrange(available, spanning[0])


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


def _count(devices: int | None, available: Sequence[jax.Device]) -> int:
    """Returns the number of devices that are used.

    Raises:
      ValueError: there are not so many, or they are some chips of a TPU host.
    """
    most, platform = len(available), available[0].platform
    count = most if devices is None else devices
    if not (is_integer(count) and 1 <= count <= most):
        raise ValueError(
            f"devices: {devices!r} given, 1..{most} accepted, the {platform} devices "
            "found"
        )
    hosts = len({device.process_index for device in available})
    if platform == TPU and count != most and (count, hosts) != (1, 1):
        one = "1 or " if hosts == 1 else ""
        raise ValueError(
            f"devices: {devices!r} given, {one}{most} accepted: a program takes all "
            "chips of a TPU, or one of a host by itself"
        )
    return int(count)


def _require_fitting(n: int, shape: Sizes, count: int, whole_host: bool) -> None:
    """Raises ValueError for a shape that the pieces or the devices do not fill."""
    pieces, shards = shape
    if whole_host and not (pieces * shards == count and min(shape) >= 1):
        accepted = ", ".join(
            f"{p}x{count // p}" for p in range(1, count + 1) if count % p == 0
        )
        raise ValueError(
            f"mesh: {pieces}x{shards} given, one of all {count} chips of the TPU "
            f"accepted: {accepted}"
        )
    most = count if whole_host else n  # some compute a copy where chips are left
    if not (1 <= pieces <= most and shards >= 1 and pieces * shards <= count):
        raise ValueError(
            f"mesh: {pieces}x{shards} given, piece x data accepted with 1..{n} along "
            f"piece and a product of at most {count}, the number of devices"
        )


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
