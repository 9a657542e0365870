"""Workers that meet faults on purpose."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any

import numpy as np

from coded_jax.service.engine import Engine
from coded_jax.service.faults import Faults, InjectedError, Source, corrupted
from coded_jax.service.local import CallThread
from coded_jax.service.pool import Call, Pool, Worker, WorkerLost

GRACE = 1.0  # seconds in which a thread may end


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

    def __init__(self, worker: Worker, index: int, n: int, faults: Source) -> None:
        self.worker, self.faults = worker, faults
        self.index, self.n = index, n
        self._signal: Callable[[int], None] | None = getattr(worker, "signal", None)
        self._last: dict[Any, np.ndarray] = {}  # its last share of each piece
        self._begun, self._closed = threading.Event(), threading.Event()
        self._signals: list[threading.Thread] = []
        self._back: Future[None] = Future()  # done when it may be back
        self._back.set_result(None)
        self._life = _Life(self)

    def changed(self, share: Any, kind: str, call: Call) -> Any:
        """Returns a result as a fault of this kind leaves it.

        Args:
          share: `[B, M, M', D]`.
          kind: see `Fault`; where the share of another image is to come and there was
            none, zeros come.
          call: that it is the result of.
        """
        place = call.stage, call.piece, np.shape(share)
        other, self._last[place] = self._last.get(place), share
        if not kind:
            return share
        right = np.asarray(share)
        if kind == "nan":
            return np.full_like(right, np.nan)
        another = np.zeros_like(right) if other is None else np.asarray(other)
        draw = (self.index, call.request or 0, call.stage, call.attempt)
        return corrupted(kind, right, another, np.random.default_rng(draw))

    def compute(self, call: Call) -> Future:
        if call.request is not None:
            self._begun.set()
        return self._life.send(call)

    def probe(self) -> Future:
        if self._life.ended.done():
            self._life = _Life(self)
        return self.worker.probe() if self._back.done() else self._back

    def watch(self) -> Future:
        ended: Future = Future()
        for end in (self._life.ended, self.worker.watch()):
            end.add_done_callback(lambda _: _settle(ended))
        return ended

    def replace(self) -> None:
        self._life.end()
        self.worker.replace()
        self._life = _Life(self)

    def kill(self, away: float = 0.0) -> None:
        """Ends the worker as by SIGKILL; one that is no process is back after `away`
        seconds, or when it is healed."""
        frozen = self._life.frozen
        self._life.end()
        if frozen:  # then it does not send itself signals
            self.worker.replace()
        elif self._signal is not None:
            self._signal(signal.SIGKILL)
        elif away > 0:
            self._back = Future()
            _after(away, _settle, self._back)

    def heal(self) -> None:
        """Lets a worker that was killed be back."""
        _settle(self._back)

    def freeze(self) -> None:
        """Makes the worker stand still, as by SIGSTOP."""
        self._life.frozen = True
        if self._signal is not None:
            self._signal(signal.SIGSTOP)

    def disturb(self, act: Callable[[], None], rate: float, seed: list[int]) -> None:
        """Kills or freezes the worker so many times per second, at random times from
        its first request on."""

        def run() -> None:
            rng = np.random.default_rng(seed)
            self._begun.wait()
            while not self._closed.wait(rng.exponential(1 / rate)):
                act()

        self._signals.append(threading.Thread(target=run, daemon=True))
        self._signals[-1].start()

    def close(self) -> None:
        self._closed.set()
        self._begun.set()
        for thread in self._signals:
            thread.join()
        self._life.end()
        self._life.thread.join(GRACE)
        self.worker.close()


class _Life(CallThread):
    """The calls of a faulty worker from one start to the next."""

    def __init__(self, owner: FaultyWorker) -> None:
        self._owner, self.frozen = owner, False
        super().__init__(self._meet)

    def _meet(self, call: Call, future: Future, sent: float) -> None:
        """Passes a call on, and its result back, as its fault allows."""
        owner = self._owner
        fault = owner.faults.of_call(call, owner.index, owner.n)
        self._wait(sent + fault.there - time.monotonic(), fault.over)
        self._wait(fault.delay)
        self._require_alive()
        if fault.kind == "raise":
            raise InjectedError("an exception on purpose")
        begun = time.monotonic()
        computed = owner.worker.compute(call)
        self._wait(None, computed)
        self._wait(begun + fault.least - time.monotonic(), fault.over)
        self._require_alive()
        share = owner.changed(computed.result(), fault.kind, call)
        if fault.back > 0:  # on its way, while the worker goes on
            _after(fault.back, future.set_result, share)
        else:
            future.set_result(share)

    def _wait(self, seconds: float | None, over: Future | None = None) -> None:
        """Waits until the worker ends, or something else is over, or for so long."""
        ends = [self.ended] if over is None else [self.ended, over]
        if seconds is None or seconds > 0:
            limit = None if seconds is None else min(seconds, threading.TIMEOUT_MAX)
            wait(ends, limit, return_when=FIRST_COMPLETED)

    def _require_alive(self) -> None:
        if self.frozen:
            wait([self.ended])
        if self.ended.done():
            raise WorkerLost("ended")


def _after(seconds: float, function: Callable, argument: Any) -> None:
    timer = threading.Timer(seconds, function, (argument,))
    timer.daemon = True
    timer.start()


def _settle(future: Future[None]) -> None:
    with contextlib.suppress(InvalidStateError):  # it is done already
        future.set_result(None)


def inject(pool: Pool, faults: Source) -> list[FaultyWorker]:
    """Lets the workers of a pool meet these faults from now on, and no others.

    Returns:
      The workers; kills and freezes need their `disturb` besides.
    """

    def wrapper(index: int, worker: Worker) -> Worker:
        if not isinstance(worker, FaultyWorker):
            return FaultyWorker(worker, index, len(pool), faults)
        worker.faults = faults
        return worker

    pool.wrap(wrapper)
    return [worker for worker in pool.workers if isinstance(worker, FaultyWorker)]


def with_faults(engine: Engine, faults: Faults) -> Engine:
    """Returns an engine whose workers meet faults.

    Raises:
      ValueError: there are delays of another number of workers, or more stragglers
        than workers.
    """
    assert engine.pool is not None  # `serve` refuses faults of other engines
    faults.of_request(0, len(engine.pool))
    for worker in inject(engine.pool, faults):
        acts = (worker.kill, faults.kills), (worker.freeze, faults.freezes)
        for number, (act, rate) in enumerate(acts):
            if rate > 0:  # of all workers together
                seed = [faults.seed, number, worker.index]
                worker.disturb(act, rate / worker.n, seed)
    return engine
