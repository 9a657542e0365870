"""Faults that are injected into a service on this machine: signals to its processes.

They are sent to workers, and to processes of the service's own Ray cluster. Faults that
are drawn for each piece are those of `service.faults`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from coded_jax.checks import first_line

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
MACHINERY = ("raylet", "agent", "gcs")
"""Processes of a Ray cluster that it cannot do without."""
LOOK = 0.005  # seconds between looks at a service, at first
RARER = 0.02  # of the time since the disturbance, later: looks are work, too
PATIENCE = 120.0  # seconds after which that is given up
MOST = 64  # disturbances at the same time


class Disturbed(NamedTuple):
    """One disturbance, and what became of it.

    Attributes:
      kind: as `kill worker`, `freeze gcs` or `reload`.
      at: on the clock of `time.monotonic`.
      noticed: seconds until the service knew of it; None where it was not noticed.
      answering: seconds until all places had a worker that is up; of a cluster that
        is started anew, until as many had one as an answer needs.
      recovered: seconds until a worker that was disturbed was up again, or all were.
      error: why it could not be done, as while a cluster is started anew; else empty.
    """

    kind: str
    at: float
    noticed: float | None
    answering: float | None
    recovered: float | None
    error: str = ""


class Target(NamedTuple):
    """A service to be disturbed.

    Attributes:
      summary: of `Service.summary`, also asked over HTTP.
      process: number of the process of the front end.
      reload: loads its model anew.
    """

    summary: Callable[[], dict[str, Any]]
    process: int
    reload: Callable[[], None]


def disturb(target: Target, kind: str, rng: np.random.Generator) -> Disturbed:
    """Does a disturbance, and waits until the service has recovered from it.

    Args:
      target: with workers that are processes of this machine.
      kind: `reload`, or `kill` or `freeze`, then `worker` or one of `MACHINERY`.
      rng: chooses the worker.

    Raises:
      RuntimeError: there is no such process.
    """
    if kind == "reload":
        begun = time.monotonic()
        target.reload()
        return Disturbed(kind, begun, None, 0.0, time.monotonic() - begun)
    what, whom = kind.split()
    before = target.summary()
    if whom == "worker":
        up = [i for i, worker in enumerate(before["workers"]) if worker["up"]]
        if not up:
            raise RuntimeError("no worker is up")
        index = up[int(rng.integers(len(up)))]
        process = before["workers"][index]["process"]
        processes = [process]
        own = lambda now: now["workers"][index]
        is_same = lambda worker: worker["up"] and worker["process"] == process
        conditions = (
            lambda now: not any(map(is_same, now["workers"])),
            lambda now: all(x["up"] or x["place"] is None for x in now["workers"]),
            lambda now: own(now)["up"] and own(now)["process"] != process,
        )
    else:
        from coded_jax.service.machinery import Machinery  # psutil comes with Ray

        processes = Machinery(target.process).processes(whom)
        if not processes:
            raise RuntimeError(f"no process of the cluster's {whom} is there")
        anew = lambda now: now["cluster_restarts"] > before["cluster_restarts"]
        conditions = (
            lambda now: now["obstacle"] is not None or anew(now),
            lambda now: now["obstacle"] is None and anew(now),
            lambda now: all(worker["up"] for worker in now["workers"]),
        )
    begun = time.monotonic()
    for number in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, SIGNALS[what])
    noticed, answering, recovered = (
        _seconds_until(holds, target, begun) for holds in conditions
    )
    return Disturbed(kind, begun, noticed, answering, recovered)


def _seconds_until(
    holds: Callable[[dict], bool], target: Target, begun: float
) -> float | None:
    """Returns the seconds until it holds; None if it does not for long."""
    while not holds(target.summary()):
        passed = time.monotonic() - begun
        if passed > PATIENCE:
            return None
        time.sleep(max(LOOK, RARER * passed))
    return time.monotonic() - begun


@contextlib.contextmanager
def disturbed(
    target: Target, kinds: Sequence[str], every: float, seed: int = 0
) -> Iterator[list[Disturbed]]:
    """Disturbs a service again and again, in threads, until the context ends and the
    service has recovered from what was done last.

    Args:
      target: to be disturbed.
      kinds: one of them is drawn each time, see `disturb`; none if empty.
      every: seconds from one disturbance to the next.
      seed: of the choices.

    Yields:
      What it did so far; it grows.
    """
    done, over, rng = list[Disturbed](), threading.Event(), np.random.default_rng(seed)

    def once(kind: str, own: np.random.Generator) -> None:
        begun = time.monotonic()
        try:
            done.append(disturb(target, kind, own))
        except (RuntimeError, ValueError, OSError) as error:
            reason = first_line(error)
            done.append(Disturbed(kind, begun, None, None, None, error=reason))

    def run(threads: ThreadPoolExecutor) -> None:
        while kinds and not over.wait(every):
            kind = kinds[int(rng.integers(len(kinds)))]
            own = threads.submit(once, kind, rng.spawn(1)[0])
            if not kind.endswith("worker"):
                own.result()  # workers may be disturbed before others are back

    with ThreadPoolExecutor(MOST) as threads:
        running = threads.submit(run, threads)
        try:
            yield done
        finally:
            over.set()
            running.result()
