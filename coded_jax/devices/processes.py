"""Several processes of one run: starting them, and agreeing on values.

Every process runs the same program on the same settings and calls everything here at
the same points; process 0 alone writes files. With one process all of it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from coded_jax.checks import require


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
    arguments = ()
    if coordinator != "auto":
        host, _, port = coordinator.rpartition(":")
        address = host and port.isdecimal() and 0 < int(port) < 2**16
        require("coordinator", coordinator, bool(address), "'host:port' or 'auto'")
        count, number = processes or 0, -1 if process is None else process
        require("process", process, 0 <= number < count, "0..processes-1")
        arguments = coordinator, processes, process
    try:
        jax.distributed.initialize(*arguments)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"coordinator: {coordinator!r} given, one that answers accepted ({error})"
        ) from error


def is_lead() -> bool:
    """Returns whether this process writes the files."""
    return jax.process_index() == 0


def require_same(name: str, value: int, accepted: str) -> None:
    """Checks that all processes have the same `value`.

    Raises:
      ValueError: they have not; raised in all of them, with `name`, the values and what
        is `accepted`.
    """
    if jax.process_count() > 1:
        values = multihost_utils.process_allgather(np.asarray(value)).tolist()
        if len(set(values)) > 1:
            raise ValueError(f"{name}: {values} found by the processes, {accepted}")


def any_process(flag: bool) -> bool:
    """Returns, in all processes, whether `flag` is True in any of them."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def by_lead(action: Callable[[], None]) -> None:
    """Runs `action` in process 0; raises in every process if it fails there."""
    problem = None
    try:
        if is_lead():
            action()
    except Exception as error:
        problem = error
    # Asked in any case: the others wait for the answer.
    if any_process(problem is not None):
        raise problem or OSError("process 0 could not write")
