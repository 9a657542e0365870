"""n workers that may be slow, hang or die: who is up, what each one owes, restarts.

A worker computes its pieces in their order. Pieces that nobody waits for any more are
dropped before they begin, so that a straggler catches up. One that dies or hangs is
started anew, and then given what is still waited for.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from coded_jax.serving.workers import Call, Worker, WorkerLost

DEPTH = 2  # pieces handed to a worker at once: the next one is there when one is done
TICK = 0.05  # seconds between looks at the workers
LONGEST_PAUSE = 5.0  # seconds between attempts to start one that fails
HOPELESS = 8  # attempts

LOSSES = ("died", "hung", "raised", "bad", "late")
"""Why a result was lost: its worker ended, or gave no sign for too long; an exception;
not finite, or of another shape; others were faster."""


class _Job(NamedTuple):
    call: Call
    deliver: Callable[[Any], None]
    wanted: Callable[[], bool]
    patience: float  # seconds of silence that it may take


class _State:
    """One worker, as the pool sees it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ready = False
        self.probe: Future | None = None
        self.problem: BaseException | None = None  # of the last probe
        self.failures = 0  # to start, one after the other
        self.since = time.monotonic()  # of the last sign of life
        self.running: list[_Job] = []
        self.waiting: collections.deque[_Job] = collections.deque()
        self.losses = collections.Counter()
        self.restarts = 0


class Pool:
    """Sends pieces to workers and brings their results back.

    One thread has all the state, and nobody ever waits for it but `status`: callbacks
    of Ray, which run in threads that Ray itself needs, only leave it a note.

    Args:
      workers: n of them.
      patience: seconds without any sign after which a worker with work hangs; more than
        any computation and its delay take.
      startup: seconds that a worker may take to start.
      at_end: called by `close`, after the workers have ended.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        patience: float = 5.0,
        startup: float = 60.0,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        if not patience > 0:
            raise ValueError(f"patience: {patience} given, more than 0 accepted")
        self.workers, self._at_end = tuple(workers), at_end
        self._patience, self._startup = patience, startup
        self._states = [_State(worker) for worker in workers]
        self._notes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self.workers)

    def wait_until_ready(self) -> None:
        """Returns when all workers are.

        Raises:
          RuntimeError: one of them has not become so in time.
        """
        end = time.monotonic() + self._startup
        while not all(state.ready for state in self._states):
            failed = max(state.failures for state in self._states) >= HOPELESS
            if failed or time.monotonic() > end or self._closed.wait(0.01):
                missing = [i for i, s in enumerate(self._states) if not s.ready]
                reasons = {str(s.problem) for s in self._states if s.problem}
                reason = ": ".join(["", *sorted(reasons)[:1]])
                raise RuntimeError(f"workers {missing} have not started{reason}")

    def send(
        self,
        worker: int,
        call: Call,
        deliver: Callable[[Any], None],
        wanted: Callable[[], bool],
        patience: float | None = None,
    ) -> None:
        """Lets a worker compute a piece, once it is up and has time.

        Args:
          worker: which one.
          call: the piece.
          deliver: called, in another thread, with the share, or with the exception that
            the computation raised; not for a worker that dies or hangs, which is given
            the piece again when it is back.
          wanted: whether anybody waits for it still; pieces are dropped where not.
          patience: of this piece; the pool's if None.
        """
        limit = self._patience if patience is None else patience
        state, job = self._states[worker], _Job(call, deliver, wanted, limit)

        def note() -> None:
            while state.waiting and not state.waiting[0].wanted():
                state.waiting.popleft()  # of a worker that is down or hangs, too
            state.waiting.append(job)
            self._pump(state)

        self._notes.put(note)

    def compute_everywhere(self, calls: Sequence[Call]) -> None:
        """Lets each worker compute one call, and waits for all of them.

        Raises:
          RuntimeError: one of them has not answered in time, or raised that.
        """
        answers: queue.SimpleQueue = queue.SimpleQueue()
        for worker, call in enumerate(calls):
            # It may have to compile first.
            self.send(worker, call, answers.put, lambda: True, self._startup)
        for _ in calls:
            try:
                result = answers.get(timeout=self._startup)
            except queue.Empty:
                raise RuntimeError(
                    f"a worker has not answered within {self._startup:g} s"
                ) from None
            if isinstance(result, BaseException):
                raise RuntimeError(f"a worker cannot compute: {result}") from result

    def count_loss(self, worker: int, why: str) -> None:
        """Notes why the result of a worker was not used, one of `LOSSES`; that one
        which is down is late, is known."""
        state = self._states[worker]

        def note() -> None:
            state.losses[why] += why != "late" or state.ready

        self._notes.put(note)

    @property
    def idle(self) -> bool:
        """Whether every worker is up, and has nothing to do."""
        self._catch_up()
        return all(s.ready and not (s.running or s.waiting) for s in self._states)

    def status(self) -> list[dict[str, Any]]:
        """Of every worker: whether it is up, its restarts, and its losses by reason."""
        self._catch_up()
        return [
            {
                "up": state.ready,
                "restarts": state.restarts,
                "losses": {why: state.losses[why] for why in LOSSES},
            }
            for state in self._states
        ]

    def close(self) -> None:
        """Ends all workers; what they still owe is never delivered."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        for worker in self.workers:
            worker.close()
        if self._at_end is not None:
            self._at_end()

    def _catch_up(self) -> None:
        """Returns when all notes so far have been read."""
        noted = threading.Event()
        self._notes.put(noted.set)
        while not noted.wait(TICK) and self._thread.is_alive():
            pass

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._closed.is_set():
            with contextlib.suppress(queue.Empty):
                self._notes.get(timeout=TICK)()
            if time.monotonic() - looked >= TICK:
                looked = time.monotonic()
                for state in self._states:
                    self._look_at(state)

    def _pump(self, state: _State) -> None:
        while state.ready and state.waiting and len(state.running) < DEPTH:
            job = state.waiting.popleft()
            if not job.wanted():
                continue
            if not state.running:
                state.since = time.monotonic()
            state.running.append(job)
            note = functools.partial(self._done, state, job)
            state.worker.compute(job.call).add_done_callback(
                lambda done, note=note: self._notes.put(lambda: note(done))
            )

    def _done(self, state: _State, job: _Job, future: Future) -> None:
        if not any(job is each for each in state.running):
            return  # of a worker that has been replaced meanwhile
        error = future.exception()
        if isinstance(error, WorkerLost):
            self._lose(state, "died")
            return
        state.running = [each for each in state.running if each is not job]
        state.since = time.monotonic()
        state.losses["raised"] += error is not None
        job.deliver(error if error is not None else future.result())
        self._pump(state)

    def _lose(self, state: _State, why: str) -> None:
        """Keeps what the worker owes for its return."""
        state.ready, state.probe = False, None
        state.since = time.monotonic()
        state.losses[why] += max(sum(job.wanted() for job in state.running), 1)
        state.restarts += 1
        owed = [job for job in (*state.running, *state.waiting) if job.wanted()]
        state.running, state.waiting = [], collections.deque(owed)

    def _look_at(self, state: _State) -> None:
        silent = time.monotonic() - state.since
        if state.ready:
            if state.running and silent > state.running[0].patience:
                self._lose(state, "hung")
                self._replace(state)
            return
        if state.probe is None:
            if silent < min(TICK * 2**state.failures, LONGEST_PAUSE):
                return
            state.probe = state.worker.probe()
        if not state.probe.done():
            if silent > self._startup:
                state.probe, state.since = None, time.monotonic()
                self._replace(state)
            return
        state.problem = state.probe.exception()
        state.probe, state.since = None, time.monotonic()
        state.failures += 1
        if state.problem is None:
            state.ready, state.failures = True, 0
            self._pump(state)

    def _replace(self, state: _State) -> None:
        # It may take a while, in which the other workers go on.
        threading.Thread(target=state.worker.replace, daemon=True).start()
