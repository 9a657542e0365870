"""Workers, and a program, that meet faults on purpose."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any, Protocol, runtime_checkable

import numpy as np

from coded_jax.checks import require
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.engine import Engine, Inference
from coded_jax.service.faults import Fault, Faults, InjectedError, Source, corrupted
from coded_jax.service.pool import Call, Pool, Worker, WorkerLost
from coded_jax.service.spmd import Spmd

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
        self.index, self.n = index, n
        self._last: dict[Any, Any] = {}  # its last share of each piece
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
        other = self._last.get(place)
        self._last[place] = share
        if not kind:
            return share
        if kind == "nan":
            return np.full(share.shape, np.nan, share.dtype)
        right = np.asarray(share)
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
        frozen = self._life.frozen.is_set()
        self._life.end()
        if frozen:  # then it does not send itself signals
            self.worker.replace()
        elif isinstance(self.worker, Process):
            self.worker.signal(signal.SIGKILL)
        elif away > 0:
            self._back = Future()
            timer = threading.Timer(away, _settle, (self._back,))
            timer.daemon = True
            timer.start()

    def heal(self) -> None:
        """Lets a worker that was killed be back."""
        _settle(self._back)

    def freeze(self) -> None:
        """Makes the worker stand still, as by SIGSTOP."""
        self._life.frozen.set()
        if isinstance(self.worker, Process):
            self.worker.signal(signal.SIGSTOP)

    def disturb(self, act: Callable[[], None], rate: float, seed: list[int]) -> None:
        """Kills or freezes the worker so many times per second, at random times from
        its first request on."""

        def run() -> None:
            rng = np.random.default_rng(seed)
            self._begun.wait()
            while not self._closed.wait(rng.exponential(1 / rate)):
                act()

        thread = threading.Thread(target=run, daemon=True)
        self._signals.append(thread)
        thread.start()

    def close(self) -> None:
        self._closed.set()
        self._begun.set()
        for thread in self._signals:
            thread.join()
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
        _settle(self.ended)
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
            owner = self._owner
            fault = owner.faults.of_call(call, owner.index, owner.n)
            try:
                share = self._compute(call, fault, sent)
            except Exception as error:
                if isinstance(error, WorkerLost):
                    self._drop()  # calls behind it in the worker are lost, too
                future.set_exception(error)
            else:
                if fault.back > 0:  # on its way, while the worker goes on
                    back = threading.Timer(fault.back, future.set_result, (share,))
                    back.daemon = True
                    back.start()
                else:
                    future.set_result(share)

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


def _settle(future: Future[None]) -> None:
    with contextlib.suppress(InvalidStateError):  # it is done already
        future.set_result(None)


def inject(pool: Pool, faults: Source) -> list[FaultyWorker]:
    """Lets the workers of a pool meet these faults from now on, and no others.

    Returns:
      The workers; kills and freezes need their `disturb` besides.

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
    return [worker for worker in pool.workers if isinstance(worker, FaultyWorker)]


def with_faults(engine: Engine, faults: Faults) -> Engine:
    """Returns an engine whose workers, or whose program, meet faults.

    Raises:
      ValueError: the faults are of another number of workers, or the engine has no
        workers that could be killed, frozen or corrupted.
    """
    if isinstance(engine, Spmd):
        return FaultyProgram(engine.model, faults)
    assert engine.pool is not None  # of an engine that is no program
    for worker in inject(engine.pool, faults):
        acts = (worker.kill, faults.kills), (worker.freeze, faults.freezes)
        for number, (act, rate) in enumerate(acts):
            if rate > 0:  # of all workers together
                seed = [faults.seed, number, worker.index]
                worker.disturb(act, rate / worker.n, seed)
    return engine


class FaultyProgram(Spmd):
    """One program over all devices, which waits for the slowest of them: a delay of one
    delays the response, an exception of one is that of all.

    Raises:
      ValueError: the faults are of another number of devices, or others than these.
    """

    def __init__(self, model: CodedModel, faults: Faults) -> None:
        super().__init__(model)
        others = (faults.nans, faults.corruptions, faults.kills, faults.freezes)
        accepted = "only delays and exceptions, of devices that run one program,"
        require("faults", faults, not any(others), accepted)
        faults.of_request(0, model.pipeline.n)
        self._faults = faults

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Inference:
        begun = time.monotonic()
        drawn = self._faults.of_request(number, self.model.pipeline.n)
        delay = max(fault.delay for fault in drawn) + sum(self._faults.service)
        self._closed.wait(max(min(delay, end - begun, threading.TIMEOUT_MAX), 0))
        if any(fault.kind == "raise" for fault in drawn):
            raise InjectedError("an exception on purpose")
        inference = super().infer(number, images, end, without)
        waited = time.monotonic() - begun
        return inference._replace(seconds={**inference.seconds, "wait": waited})
