"""Disturbances of a service on this machine, made by its operator's worst enemy.

Other than `serving.faults`, which are drawn for each piece, these are signals to
processes: to workers, and to those of the service's own Ray cluster.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from coded_jax.devices.machinery import Machinery
from coded_jax.serving.service import Service

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
MACHINERY = ("raylet", "agent", "gcs")
"""Processes of a Ray cluster that it cannot do without."""
LOOK = 0.005  # seconds between looks whether a worker is back
PATIENCE = 120.0  # seconds after which that is given up


class Disturbed(NamedTuple):
    """One disturbance, and what became of it.

    Attributes:
      kind: as `kill worker`, `freeze gcs` or `reload`.
      at: on the clock of `time.monotonic`.
      noticed: seconds until the service knew of it; None where it was not noticed.
      answering: seconds until all places had a worker that is up.
      recovered: seconds until all workers were up again, spares too.
    """

    kind: str
    at: float
    noticed: float | None
    answering: float | None
    recovered: float | None


def disturb(service: Service, kind: str, rng: np.random.Generator) -> Disturbed:
    """Does a disturbance, and waits until the service has recovered from it.

    Args:
      service: with workers that are processes of this machine.
      kind: `kill` or `freeze`, then `worker` or one of `MACHINERY`.
      rng: chooses the worker.

    Raises:
      RuntimeError: there is no such process.
    """
    what, whom = kind.split()
    if whom == "worker":
        return _disturb_worker(service, kind, SIGNALS[what], rng)
    restarts = lambda: service.summary()["cluster_restarts"]
    before, processes = restarts(), Machinery().processes(whom)
    if not processes:
        raise RuntimeError(f"no process of the cluster's {whom} is there")
    begun = time.monotonic()
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, SIGNALS[what])
    after = lambda held: _seconds(begun, held)
    return Disturbed(
        kind,
        begun,
        after(lambda: service.obstacle() is not None or restarts() > before),
        after(lambda: restarts() > before and service.obstacle() is None),
        after(lambda: all(worker["up"] for worker in _workers(service))),
    )


def _disturb_worker(
    service: Service, kind: str, number: int, rng: np.random.Generator
) -> Disturbed:
    up = [worker for worker in _workers(service) if worker["up"]]
    if not up:
        raise RuntimeError("no worker is up")
    process = up[int(rng.integers(len(up)))]["process"]
    begun = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)

    def lost() -> bool:
        own = [w for w in _workers(service) if w["process"] == process]
        return not any(worker["up"] for worker in own)

    def filled() -> bool:
        return all(w["up"] for w in _workers(service) if w["place"] is not None)

    after = lambda held: _seconds(begun, held)
    noticed, answering = after(lost), after(filled)
    recovered = after(lambda: all(worker["up"] for worker in _workers(service)))
    return Disturbed(kind, begun, noticed, answering, recovered)


def _workers(service: Service) -> list[dict]:
    pool = service.engine.pool
    return pool.status() if pool else []


def _seconds(begun: float, held: Callable[[], bool]) -> float | None:
    """Returns the seconds until it holds; None if it does not for long."""
    while not held():
        if time.monotonic() > begun + PATIENCE:
            return None
        time.sleep(LOOK)
    return time.monotonic() - begun


class Enemy:
    """Disturbs a service again and again, in threads, until it is closed.

    Args:
      service: to be disturbed.
      kinds: one of them is drawn each time; see `disturb`, or `reload`.
      every: seconds from one disturbance to the next.
      seed: of the choices.
      reload: loads the model anew, for the kind `reload`.

    Attributes:
      done: what it did.
    """

    def __init__(
        self,
        service: Service,
        kinds: tuple[str, ...],
        every: float,
        seed: int = 0,
        reload: Callable[[], None] | None = None,
    ) -> None:
        self.done: list[Disturbed] = []
        self._service, self._kinds, self._every = service, kinds, every
        self._rng, self._reload = np.random.default_rng(seed), reload
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def close(self) -> None:
        """Ends it, when the service has recovered from what it did last."""
        self._over.set()
        self._threads[0].join()
        for thread in self._threads[1:]:
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            kind = self._kinds[int(self._rng.integers(len(self._kinds)))]
            thread = threading.Thread(
                target=self._once, args=(kind, self._rng.spawn(1)[0])
            )
            thread.start()
            self._threads.append(thread)

    def _once(self, kind: str, rng: np.random.Generator) -> None:
        if kind != "reload":
            self.done.append(disturb(self._service, kind, rng))
            return
        assert self._reload is not None
        begun = time.monotonic()
        self._reload()
        seconds = time.monotonic() - begun
        self.done.append(Disturbed(kind, begun, None, 0.0, seconds))
