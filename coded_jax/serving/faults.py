"""Faults on purpose: wrappers around workers that delay, raise, corrupt, kill, freeze.

A fault is drawn from a seed, the number of the request, the attempt and the worker: so
several codes can meet the same faults on the same workers. Nothing else in this package
knows of faults, but `serve`, which wraps where it is asked to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import queue
import signal
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from coded_jax.checks import require
from coded_jax.latency.stragglers import Distribution
from coded_jax.serving.engine import Engine, Inference
from coded_jax.serving.pool import Pool
from coded_jax.serving.workers import Call, Worker, WorkerLost

ROWS = 4096  # requests for which delays are drawn at once, and then again
HEDGED = 1_234_577  # added to the number of a request whose piece is sent again
GRACE = 1.0  # seconds in which a thread may end


class Fault(NamedTuple):
    """A fault of one piece.

    Attributes:
      delay: seconds that its worker is busy before it begins.
      kind: `"raise"`, `"nan"` (the result is not a number), or `""`.
    """

    delay: float = 0.0
    kind: str = ""


class InjectedError(RuntimeError):
    """An exception on purpose."""


@dataclasses.dataclass(frozen=True)
class Faults:
    """Kinds of faults, and how often they occur.

    Attributes:
      delays: a distribution for each worker, or one for all; no delays if empty.
      stragglers: number of workers that are delayed, drawn anew for each request; all
        if None.
      exceptions, nans: probability that a piece raises or returns NaN.
      kills, freezes: workers that are killed (SIGKILL) and frozen (SIGSTOP) per second,
        each time a worker drawn at random.
      service: for each coded stage, seconds that its pieces take longer: on workers
        that are processes of one machine, the computation of slower machines.
      seed: of all draws.

    Raises:
      ValueError: a value is out of range.
    """

    delays: tuple[Distribution, ...] = ()
    stragglers: int | None = None
    exceptions: float = 0.0
    nans: float = 0.0
    kills: float = 0.0
    freezes: float = 0.0
    service: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("exceptions", "nans"):
            value = getattr(self, name)
            require(name, value, 0 <= value <= 1, "a probability, 0..1,")
        for name in ("kills", "freezes"):
            value = getattr(self, name)
            require(name, value, 0 <= value < 1000, "0..1000 per second")
        object.__setattr__(self, "delays", tuple(self.delays))  # hashable, as a key
        fits = all(0 <= seconds < 1000 for seconds in self.service)
        require("service", self.service, fits, "0..1000 seconds")
        require("seed", self.seed, 0 <= self.seed < 2**32, "0..2^32-1")
        count = self.stragglers
        require("stragglers", count, count is None or count >= 0, "0 or more")

    def of_request(self, number: int, n: int, attempt: int = 0) -> list[Fault]:
        """Draws the faults that n workers meet in each stage of a request.

        Args:
          number: of the request, from 0.
          n: number of workers.
          attempt: 1 for pieces that are sent again.

        Raises:
          ValueError: there are delays of another number of workers, or more stragglers
            than workers.
        """
        number += attempt * HEDGED
        count = self.stragglers
        require("stragglers", count, count is None or count <= n, f"0..{n}")
        delays = np.zeros(n)
        if self.delays:
            delays = _delays(self.delays, self.stragglers, self.seed, n)[number % ROWS]
        draws = np.random.default_rng([self.seed, number]).random((2, n))
        kinds = np.where(draws[1] < self.nans, "nan", "")
        kinds = np.where(draws[0] < self.exceptions, "raise", kinds)
        return [Fault(float(d), str(k)) for d, k in zip(delays, kinds, strict=True)]

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Draws the fault that worker `worker` of n meets with a call; none in a
        warm-up."""
        if call.request is None:
            return Fault()
        fault = self.of_request(call.request, n, call.attempt)[worker]
        service = sum(self.service[call.stage : call.stage + 1])
        return fault._replace(delay=fault.delay + service)


@functools.lru_cache(maxsize=16)
def _delays(
    delays: tuple[Distribution, ...], stragglers: int | None, seed: int, n: int
) -> np.ndarray:
    """Draws seconds `[ROWS, n]`."""
    if len(delays) not in (1, n):
        raise ValueError(
            f"delays: {len(delays)} distributions given, 1 or {n} accepted, one for "
            "every worker"
        )
    key = jax.random.key(seed)
    per_worker = delays * (n if len(delays) == 1 else 1)
    drawn = np.stack(
        [
            np.asarray(delay.sample(jax.random.fold_in(key, i), (ROWS,)))
            for i, delay in enumerate(per_worker)
        ],
        axis=1,
    )
    if stragglers is None:
        return drawn
    ranks = np.random.default_rng(seed).random((ROWS, n)).argsort(axis=1)
    return np.where(ranks.argsort(axis=1) < stragglers, drawn, 0.0)


@runtime_checkable
class Process(Protocol):
    """A worker that is a process, and can be sent signals."""

    def signal(self, number: int) -> None:
        """Sends the process a signal."""
        ...


class FaultyWorker:
    """A worker that meets faults; it satisfies `Worker` itself.

    Calls pass to the worker one after the other, so that a delay occupies it as it
    would a slow device. A worker that is no process is killed and frozen by its wrapper
    alone, which drops or withholds its results.

    Args:
      worker: the worker.
      index: its number, from 0.
      n: number of workers.
      faults: may be exchanged between requests.
    """

    def __init__(self, worker: Worker, index: int, n: int, faults: Faults) -> None:
        self.worker, self.faults = worker, faults
        self._index, self._n = index, n
        self._life = _Life(self)

    def fault_of(self, call: Call) -> Fault:
        """Draws the fault of a call."""
        return self.faults.of_call(call, self._index, self._n)

    def compute(self, call: Call) -> Future:
        return self._life.send(call)

    def probe(self) -> Future:
        if self._life.ended.done():
            self._life = _Life(self)
        return self.worker.probe()

    def replace(self) -> None:
        self._life.end()
        self.worker.replace()
        self._life = _Life(self)

    def kill(self) -> None:
        """Ends the worker as by SIGKILL."""
        frozen = self._life.frozen.is_set()
        self._life.end()
        if frozen:  # then it does not send itself signals
            self.worker.replace()
        elif isinstance(self.worker, Process):
            self.worker.signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Makes the worker stand still, as by SIGSTOP."""
        self._life.frozen.set()
        if isinstance(self.worker, Process):
            self.worker.signal(signal.SIGSTOP)

    def close(self) -> None:
        self._life.end()
        self._life.thread.join(GRACE)
        self.worker.close()


class _Life:
    """The calls of a faulty worker from one start to the next, in a thread."""

    def __init__(self, owner: FaultyWorker) -> None:
        self._owner = owner
        self._calls: queue.SimpleQueue[tuple[Call, Future] | None] = queue.SimpleQueue()
        # A future, so that a thread can wait for it and for a result at once.
        self.ended: Future[None] = Future()
        self.frozen = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def send(self, call: Call) -> Future:
        """Returns the share to come."""
        future: Future = Future()
        self._calls.put((call, future))
        if self.ended.done():
            self._drop()
        return future

    def end(self) -> None:
        """Fails all calls."""
        with contextlib.suppress(InvalidStateError):  # it has ended before
            self.ended.set_result(None)
        self._drop()

    def _drop(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                if (waiting := self._calls.get_nowait()) is not None:
                    waiting[1].set_exception(WorkerLost("ended"))
        if self.ended.done():
            self._calls.put(None)

    def _run(self) -> None:
        while (waiting := self._calls.get()) is not None:
            call, future = waiting
            try:
                future.set_result(self._compute(call))
            except WorkerLost as error:
                self._drop()  # calls that were behind it in the worker are lost, too
                future.set_exception(error)
            except Exception as error:
                future.set_exception(error)

    def _compute(self, call: Call) -> Any:
        fault = self._owner.fault_of(call)
        if fault.delay > 0:
            wait([self.ended], timeout=min(fault.delay, threading.TIMEOUT_MAX))
        self._require_alive()
        if fault.kind == "raise":
            raise InjectedError("an exception on purpose")
        computed = self._owner.worker.compute(call)
        wait([self.ended, computed], return_when=FIRST_COMPLETED)
        self._require_alive()
        share = computed.result()
        if fault.kind == "nan":
            return np.full(share.shape, np.nan, share.dtype)
        return share

    def _require_alive(self) -> None:
        if self.frozen.is_set():
            wait([self.ended])
        if self.ended.done():
            raise WorkerLost("ended")


def inject(pool: Pool, faults: Faults) -> None:
    """Lets the workers of a pool meet these faults from now on, and no others.

    Kills and freezes need a `Disturbance` besides.

    Raises:
      ValueError: there are delays of another number of workers, or more stragglers
        than workers.
    """
    n = len(pool)
    faults.of_request(0, n)

    def wrapper(index: int, worker: Worker) -> Worker:
        if not isinstance(worker, FaultyWorker):
            return FaultyWorker(worker, index, n, faults)
        worker.faults = faults
        return worker

    pool.wrap(wrapper)


class Disturbance:
    """Kills and freezes workers at random times, until it is closed.

    Args:
      faults: how often, and the seed.
      workers: the workers.

    Attributes:
      counts: number of `"kill"`s and `"freeze"`s so far.
    """

    def __init__(self, faults: Faults, workers: Sequence[FaultyWorker]) -> None:
        self._closed, self._workers = threading.Event(), workers
        self.counts = {"kill": 0, "freeze": 0}
        rates = {"kill": faults.kills, "freeze": faults.freezes}
        self._threads = [
            threading.Thread(
                target=self._run, args=(faults.seed, kind, rate), daemon=True
            )
            for kind, rate in rates.items()
            if rate > 0
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, seed: int, kind: str, rate: float) -> None:
        rng = np.random.default_rng([seed, len(kind)])
        while not self._closed.wait(rng.exponential(1 / rate)):
            worker = self._workers[int(rng.integers(len(self._workers)))]
            worker.kill() if kind == "kill" else worker.freeze()
            self.counts[kind] += 1

    def close(self) -> None:
        """Ends it, and waits for its threads."""
        self._closed.set()
        for thread in self._threads:
            thread.join()


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

    def close(self) -> None:
        with self._lock:
            if self._disturbance is not None:
                self._disturbance.close()
        self._engine.close()


class FaultyProgram:
    """An engine of one program over all devices, which waits for the slowest of them:
    a delay of one delays the response, an exception of one is that of all."""

    def __init__(self, engine: Engine, faults: Faults, n: int) -> None:
        fits = not (faults.nans or faults.kills or faults.freezes)
        accepted = "only delays and exceptions, of devices that run one program,"
        require("faults", faults, fits, accepted)
        faults.of_request(0, n)
        self._engine, self._faults, self._n = engine, faults, n
        self._closed = threading.Event()
        self.pool = None

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

    def close(self) -> None:
        self._closed.set()
        self._engine.close()
