"""Memory of a device, by which is decided what is kept in it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import jax
from jax.sharding import Mesh

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


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
        memory = min(memory, int(CGROUP_LIMIT.read_text()))
    return memory // len(devices)
