"""Engines that meet faults on purpose: on their workers, or as one program."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any

from coded_jax.checks import require
from coded_jax.service.engine import Engine, Inference
from coded_jax.service.faults import Faults, InjectedError
from coded_jax.service.faulty_workers import Disturbance, FaultyWorker, inject
from coded_jax.service.pool import Pool


def with_faults(engine: Engine, faults: Faults, n: int) -> Engine:
    """Returns an engine whose n workers, or whose program, meet faults.

    Raises:
      ValueError: the faults are of another number of workers, or the engine has no
        workers that could be killed, frozen or corrupted.
    """
    if engine.pool is None:
        return FaultyProgram(engine, faults, n)
    return FaultyPool(engine, engine.pool, faults)


class FaultyPool:
    """An engine whose workers meet faults; kills and freezes begin with the first
    request."""

    def __init__(self, engine: Engine, pool: Pool, faults: Faults) -> None:
        inject(pool, faults)
        self._engine, self._faults, self.pool = engine, faults, pool
        self._lock = threading.Lock()
        self._disturbance: Disturbance | None = None

    @property
    def restarts(self) -> int:
        return self._engine.restarts

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Inference:
        with self._lock:
            if self._disturbance is None:
                workers = [w for w in self.pool.workers if isinstance(w, FaultyWorker)]
                self._disturbance = Disturbance(self._faults, workers)
        return self._engine.infer(number, images, end, without)

    def warm_up(self, images: Any) -> None:
        self._engine.warm_up(images)

    def obstacle(self) -> str | None:
        return self._engine.obstacle()

    def failure(self) -> str | None:
        return self._engine.failure()

    def close(self) -> None:
        with self._lock:
            if self._disturbance is not None:
                self._disturbance.close()
        self._engine.close()


class FaultyProgram:
    """An engine of one program over all devices, which waits for the slowest of them:
    a delay of one delays the response, an exception of one is that of all."""

    def __init__(self, engine: Engine, faults: Faults, n: int) -> None:
        results = faults.nans or faults.corruptions
        fits = not (results or faults.kills or faults.freezes)
        accepted = "only delays and exceptions, of devices that run one program,"
        require("faults", faults, fits, accepted)
        faults.of_request(0, n)
        self._engine, self._faults, self._n = engine, faults, n
        self._closed = threading.Event()
        self.pool = None

    @property
    def restarts(self) -> int:
        return self._engine.restarts

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Inference:
        begun = time.monotonic()
        drawn = self._faults.of_request(number, self._n)
        delay = max(fault.delay for fault in drawn) + sum(self._faults.service)
        self._closed.wait(max(min(delay, end - begun, threading.TIMEOUT_MAX), 0))
        if any(fault.kind == "raise" for fault in drawn):
            raise InjectedError("an exception on purpose")
        delayed = time.monotonic() - begun
        inference = self._engine.infer(number, images, end, without)
        seconds = {**inference.seconds, "wait": inference.seconds["wait"] + delayed}
        return inference._replace(seconds=seconds)

    def warm_up(self, images: Any) -> None:
        self._engine.warm_up(images)

    def obstacle(self) -> str | None:
        return self._engine.obstacle()

    def failure(self) -> str | None:
        return self._engine.failure()

    def close(self) -> None:
        self._closed.set()
        self._engine.close()
