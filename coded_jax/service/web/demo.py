"""Faults at the push of a button: workers killed, slow or wrong until they are healed.

Each fault is that of one worker, whatever piece it computes. They come on top of those
that the service was started with.
"""

from __future__ import annotations

import threading

from coded_jax.checks import require
from coded_jax.service.faults import Fault, Faults, Source
from coded_jax.service.faulty_workers import FaultyWorker, inject
from coded_jax.service.pool import Call, Pool
from coded_jax.service.service import Service

LATE = 1.0  # seconds
RESTART = 3.0  # seconds, about what a process takes on an idle machine
ACTIONS = ("kill", "slow", "corrupt", "heal")


class Demo:
    """Faults of single workers of a service; it satisfies `Source` itself.

    Args:
      service: whose workers meet them, of an engine that has workers. Where it comes to
        have other ones, these begin without faults.
      restart: seconds after which a worker that is no process is back when it has been
        killed.
    """

    def __init__(self, service: Service, restart: float = RESTART) -> None:
        self._service, self._restart = service, restart
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._workers: list[FaultyWorker] = []
        self._states: list[str] = []
        self._beneath: Source = Faults()
        self._look()

    @property
    def states(self) -> list[str]:
        """The fault of each worker: `"slow"`, `"corrupt"` or `""`."""
        with self._lock:
            self._look()
            return [*self._states]

    def act(self, action: str, worker: int) -> None:
        """Lets a worker fail, or heals it.

        Args:
          action: `"kill"`, as by SIGKILL; `"slow"`, each result is `LATE` seconds late;
            `"corrupt"`, each result is noise with the moments of the right one;
            `"heal"`, none of these any more.
          worker: its number, from 0.

        Raises:
          ValueError: there is no such action or worker.
        """
        require("action", action, action in ACTIONS, f"one of {ACTIONS}")
        with self._lock:
            self._look()
            last = len(self._workers) - 1
            require("worker", worker, 0 <= worker <= last, f"0..{last}")
            if action == "kill":
                self._workers[worker].kill(self._restart)
                return
            if action == "heal":
                self._workers[worker].heal()
            self._states[worker] = "" if action == "heal" else action

    def of_request(self, number: int, n: int, attempt: int = 0) -> list[Fault]:
        """Returns the faults that n workers meet in a request."""
        faults = self._beneath.of_request(number, n, attempt)
        return [self._with(fault, i) for i, fault in enumerate(faults)]

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Returns the fault that worker `worker` of n meets with a call; none in a
        warm-up."""
        fault = self._beneath.of_call(call, worker, n)
        return fault if call.request is None else self._with(fault, worker)

    def _with(self, fault: Fault, worker: int) -> Fault:
        state = self._states[worker]
        if state == "slow":
            return fault._replace(back=fault.back + LATE)
        return fault._replace(kind="noise") if state == "corrupt" else fault

    def _look(self) -> None:
        """Has the present workers meet the faults from now on."""
        pool = self._service.engine.pool
        assert pool is not None
        if pool is self._pool:
            return
        for worker in pool.workers:
            if isinstance(worker, FaultyWorker):
                self._beneath = worker.faults
        self._pool, self._states = pool, [""] * len(pool)
        self._workers = inject(pool, self)
