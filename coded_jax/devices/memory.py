"""Memory of a device, by which is decided what is kept in it."""

from __future__ import annotations

import os
from pathlib import Path

import jax
from jax.sharding import Mesh

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_of_device(mesh: Mesh | None) -> int:
    """Returns the bytes that each device of this process has, used or not.

    Devices that a CPU stands for have equal parts of the host's memory.

    Args:
      mesh: the devices; None for the default one.
    """
    devices = list(mesh.local_devices) if mesh else jax.local_devices()[:1]
    stats = devices[0].memory_stats() or {}  # none of a CPU
    return stats.get("bytes_limit") or memory_of_host() // len(devices)


def memory_of_host() -> int:
    """Returns the bytes of the host, or of the container that this process is in."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(memory, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return memory
