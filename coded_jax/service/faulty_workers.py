"""Workers that meet faults on purpose: delayed, raising, corrupted, killed, frozen."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any, Protocol, runtime_checkable

import numpy as np

from coded_jax.service.corruption import corrupted
from coded_jax.service.faults import Fault, Faults, InjectedError, Source
from coded_jax.service.pool import Pool
from coded_jax.service.workers import Call, Worker, WorkerLost

GRACE = 1.0  # seconds in which a thread may end


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

    def __init__(self, worker: Worker, index: int, n: int, faults: Source) -> None:
        self.worker, self.faults = worker, faults
        self._index, self._n = index, n
        self._last: dict[Any, Any] = {}  # its last share of each piece
        self._life = _Life(self)

    def fault_of(self, call: Call) -> Fault:
        """Draws the fault of a call."""
        return self.faults.of_call(call, self._index, self._n)

    def changed(self, share: Any, kind: str, call: Call) -> Any:
        """Returns a result as a fault of this kind leaves it.

        Args:
          share: `[B, M, M', D]`.
          kind: see `Fault`; where the share of another image is to come and there was
            none, zeros come.
          call: that it is the result of.
        """
        place = call.stage, call.piece, np.shape(share)
        other = self._last.get(place)
        self._last[place] = share
        if not kind:
            return share
        if kind == "nan":
            return np.full(share.shape, np.nan, share.dtype)
        right = np.asarray(share)
        another = np.zeros_like(right) if other is None else np.asarray(other)
        draw = (self._index, call.request or 0, call.stage, call.attempt)
        return corrupted(kind, right, another, np.random.default_rng(draw))

    def compute(self, call: Call) -> Future:
        return self._life.send(call)

    def probe(self) -> Future:
        if self._life.ended.done():
            self._life = _Life(self)
        return self.worker.probe()

    def watch(self) -> Future:
        ended: Future = Future()

        def note(_: Future) -> None:
            with contextlib.suppress(InvalidStateError):  # of the other one
                ended.set_result(None)

        for end in (self._life.ended, self.worker.watch()):
            end.add_done_callback(note)
        return ended

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
        self._calls: queue.SimpleQueue[tuple[Call, Future, float] | None] = (
            queue.SimpleQueue()
        )
        # A future, so that a thread can wait for it and for a result at once.
        self.ended: Future[None] = Future()
        self.frozen = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def send(self, call: Call) -> Future:
        """Returns the share to come."""
        future: Future = Future()
        self._calls.put((call, future, time.monotonic()))
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
            call, future, sent = waiting
            fault = self._owner.fault_of(call)
            try:
                share = self._compute(call, fault, sent)
                if fault.back > 0:  # on its way, while the worker goes on
                    back = threading.Timer(fault.back, _deliver, (future, share))
                    back.daemon = True
                    back.start()
                else:
                    future.set_result(share)
            except WorkerLost as error:
                self._drop()  # calls that were behind it in the worker are lost, too
                future.set_exception(error)
            except Exception as error:
                future.set_exception(error)

    def _compute(self, call: Call, fault: Fault, sent: float) -> Any:
        self._sleep(sent + fault.there - time.monotonic(), fault)
        if fault.delay > 0:
            wait([self.ended], timeout=min(fault.delay, threading.TIMEOUT_MAX))
        self._require_alive()
        if fault.kind == "raise":
            raise InjectedError("an exception on purpose")
        begun = time.monotonic()
        computed = self._owner.worker.compute(call)
        wait([self.ended, computed], return_when=FIRST_COMPLETED)
        self._sleep(begun + fault.least - time.monotonic(), fault)
        self._require_alive()
        return self._owner.changed(computed.result(), fault.kind, call)

    def _sleep(self, seconds: float, fault: Fault) -> None:
        """Passes the time, if there is any, unless nobody waits any more."""
        if seconds > 0:
            over = [fault.over] if fault.over else []
            wait([self.ended, *over], timeout=seconds, return_when=FIRST_COMPLETED)

    def _require_alive(self) -> None:
        if self.frozen.is_set():
            wait([self.ended])
        if self.ended.done():
            raise WorkerLost("ended")


def _deliver(future: Future, share: Any) -> None:
    with contextlib.suppress(InvalidStateError):  # the worker has ended meanwhile
        future.set_result(share)


def inject(pool: Pool, faults: Source) -> None:
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
      counts: how many workers it has killed and frozen (`"kill"`, `"freeze"`) so far.
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
