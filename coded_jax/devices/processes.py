"""Several processes of one run: start them, and agree on what only one of them knows.

Every process runs the same program on the same settings and calls everything here at
the same points; process 0 alone writes files. With one process all of it does nothing.
"""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils


def start(coordinator: str, processes: int | None, process: int | None) -> None:
    """Joins the processes of this run, before any device is used.

    Args:
      coordinator: `host:port` of process 0, reachable by all; `"auto"` where the
        cluster tells (Cloud TPU, Slurm, Open MPI).
      processes: how many there are; None with `"auto"`.
      process: number of this one, `0..processes-1`; None with `"auto"`.

    Raises:
      ValueError: an argument is missing or out of range, or nobody answers there.
    """
    if coordinator == "auto":
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"coordinator: 'auto' given, 'host:port' accepted here ({error})"
            ) from error
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"coordinator: {coordinator!r} given, 'host:port' or 'auto' accepted"
        )
    if processes is None or processes < 1:
        raise ValueError(f"processes: {processes} given, 1 or more accepted")
    if process is None or not 0 <= process < processes:
        raise ValueError(f"process: {process} given, 0..{processes - 1} accepted")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except RuntimeError as error:
        raise ValueError(
            f"coordinator: {coordinator!r} given, one that answers accepted ({error})"
        ) from error


def is_lead() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def require_same(name: str, value: int, accepted: str) -> None:
    """Raises in every process where they have not all the same `value`.

    Raises:
      ValueError: with `name`, the values, and what is `accepted`.
    """
    if jax.process_count() > 1:
        found = multihost_utils.process_allgather(np.asarray(value)).tolist()
        if len(set(found)) > 1:
            raise ValueError(f"{name}: {found} found by the processes, {accepted}")


def any_process(flag: bool) -> bool:
    """Whether `flag` is True in any process, known to all."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())
