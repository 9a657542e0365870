"""Faults at the push of a button: workers killed, slow or wrong until they are healed.

Each fault is that of one worker, whatever piece it computes. They come on top of those
that the service was started with.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from coded_jax.checks import require
from coded_jax.service.faults import Fault, Faults, Source
from coded_jax.service.faulty_workers import FaultyWorker, Process, inject
from coded_jax.service.pool import Call, Pool, Worker
from coded_jax.service.service import Service

LATE = 1.0  # seconds
RESTART = 3.0  # seconds, about what a process takes on an idle machine
ACTIONS = ("kill", "slow", "corrupt", "heal")
SLOW, CORRUPT = "slow", "corrupt"


class Demo:
    """Faults of single workers of a service; it satisfies `Source` itself.

    Args:
      service: whose workers meet them. Where it comes to have other ones, these begin
        without faults.
      restart: seconds after which a worker that is no process is back when it has been
        killed.

    Raises:
      ValueError: the service has one program in the place of workers.
    """

    def __init__(self, service: Service, restart: float = RESTART) -> None:
        self._service, self._restart = service, restart
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._states: list[str] = []
        self._beneath: Source = Faults()
        self._workers()

    @property
    def states(self) -> list[str]:
        """The fault of each worker: `"slow"`, `"corrupt"` or `""`."""
        with self._lock:
            self._workers()
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
            workers = self._workers()
            numbers = range(len(workers))
            require("worker", worker, worker in numbers, f"0..{len(workers) - 1}")
            target = workers[worker]
            stand_in = target.worker if isinstance(target.worker, _StandIn) else None
            if action == "kill":
                if stand_in is not None:
                    stand_in.fall(self._restart)
                target.kill()
                return
            if action == "heal" and stand_in is not None:
                stand_in.rise()
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
        if state == SLOW:
            return fault._replace(back=fault.back + LATE)
        return fault._replace(kind="noise") if state == CORRUPT else fault

    def _workers(self) -> list[FaultyWorker]:
        """Returns the present workers, which meet the faults from now on."""
        pool = self._service.engine.pool
        if pool is None:
            raise ValueError(
                "demo: an engine of one program given, one with workers "
                "accepted, as local or ray"
            )
        if pool is not self._pool:
            self._states = [""] * len(pool)
            for worker in pool.workers:
                if isinstance(worker, FaultyWorker):
                    self._beneath = worker.faults
            inject(pool, self)
            self._pool = pool
        workers = [w for w in pool.workers if isinstance(w, FaultyWorker)]
        for worker in workers:
            if not isinstance(worker.worker, Process | _StandIn):
                worker.worker = _StandIn(worker.worker)
        return workers


class _StandIn:
    """A worker that is no process, and when it was killed is back as late as one."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._risen = threading.Event()
        self._until = 0.0

    def fall(self, seconds: float) -> None:
        """Lets it be away for some seconds."""
        self._until = time.monotonic() + seconds
        self._risen.clear()

    def rise(self) -> None:
        """Lets it be back."""
        self._until = 0.0
        self._risen.set()

    def compute(self, call: Call) -> Future:
        return self._worker.compute(call)

    def probe(self) -> Future:
        away = self._until - time.monotonic()
        if away <= 0:
            return self._worker.probe()
        future: Future = Future()

        def wait() -> None:
            self._risen.wait(away)
            future.set_result(None)

        threading.Thread(target=wait, daemon=True).start()
        return future

    def watch(self) -> Future:
        return self._worker.watch()

    def replace(self) -> None:
        self._worker.replace()

    def close(self) -> None:
        self._worker.close()
