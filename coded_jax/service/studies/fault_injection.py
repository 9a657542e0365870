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
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from coded_jax.checks import first_line

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
MACHINERY = ("raylet", "agent", "gcs")
"""Processes of a Ray cluster that it cannot do without."""
LOOK = 0.005  # seconds between looks at a service, at first
RARER = 0.02  # of the time since the disturbance, later: looks are work, too
PATIENCE = 120.0  # seconds after which that is given up


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
        up = [worker for worker in before["workers"] if worker["up"]]
        if not up:
            raise RuntimeError("no worker is up")
        chosen = up[int(rng.integers(len(up)))]
        index, process = before["workers"].index(chosen), chosen["process"]
        begun = _send([process], SIGNALS[what])

        def lost(workers: list[dict]) -> bool:
            return not any(w["up"] for w in workers if w["process"] == process)

        def filled(workers: list[dict]) -> bool:
            return all(w["up"] for w in workers if w["place"] is not None)

        def is_back(workers: list[dict]) -> bool:
            return workers[index]["up"] and workers[index]["process"] != process

        of_workers = lambda holds: lambda summary: holds(summary["workers"])
        conditions = [*map(of_workers, (lost, filled, is_back))]
    else:
        from coded_jax.service.machinery import Machinery  # psutil comes with Ray

        processes = Machinery(target.process).processes(whom)
        if not processes:
            raise RuntimeError(f"no process of the cluster's {whom} is there")
        begun = _send(processes, SIGNALS[what])

        def anew(summary: dict) -> bool:
            return summary["cluster_restarts"] > before["cluster_restarts"]

        conditions = [
            lambda summary: summary["obstacle"] is not None or anew(summary),
            lambda summary: summary["obstacle"] is None and anew(summary),
            lambda summary: all(worker["up"] for worker in summary["workers"]),
        ]
    noticed, answering, recovered = [_seconds(target, begun, x) for x in conditions]
    return Disturbed(kind, begun, noticed, answering, recovered)


def _send(processes: list[int], number: int) -> float:
    """Sends a signal, and returns when."""
    begun = time.monotonic()
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
    return begun


def _seconds(
    target: Target, begun: float, holds: Callable[[dict], bool]
) -> float | None:
    """Returns the seconds until it holds; None if it does not for long."""
    while not holds(target.summary()):
        passed = time.monotonic() - begun
        if passed > PATIENCE:
            return None
        time.sleep(max(LOOK, RARER * passed))
    return time.monotonic() - begun


class FaultInjector:
    """Disturbs a service again and again, in threads, until it is closed.

    Args:
      target: to be disturbed.
      kinds: one of them is drawn each time; see `disturb`.
      every: seconds from one disturbance to the next.
      seed: of the choices.

    Attributes:
      done: what it did.
    """

    def __init__(
        self,
        target: Target,
        kinds: tuple[str, ...],
        every: float,
        seed: int = 0,
    ) -> None:
        self.done: list[Disturbed] = []
        self._target, self._kinds, self._every = target, kinds, every
        self._rng = np.random.default_rng(seed)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def close(self) -> None:
        """Ends it, when the service has recovered from what it did last."""
        self._over.set()
        for thread in self._threads:  # the first one ends before it starts others
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            kind = self._kinds[int(self._rng.integers(len(self._kinds)))]
            drawn = kind, self._rng.spawn(1)[0]
            if kind.endswith("worker"):  # the next may come before it has recovered
                self._threads.append(threading.Thread(target=self._once, args=drawn))
                self._threads[-1].start()
            else:
                self._once(*drawn)

    def _once(self, kind: str, rng: np.random.Generator) -> None:
        begun = time.monotonic()
        try:
            done = disturb(self._target, kind, rng)
        except (RuntimeError, ValueError, OSError) as error:
            done = Disturbed(kind, begun, None, None, None, first_line(error))
        self.done.append(done)
