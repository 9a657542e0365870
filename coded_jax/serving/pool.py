"""A pool of n workers that may be slow, hang or die.

A worker computes its pieces in order. Pieces that no request waits for any more are
dropped before they begin, so that a straggler catches up. A worker that dies or hangs
is started anew, and then sent the pieces that are still wanted.
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
LONGEST_PAUSE = 5.0  # seconds between attempts to start a worker that fails
HOPELESS = 8  # attempts

LOSSES = ("died", "hung", "raised", "bad", "late")
"""Reasons why a result was not used: its worker ended, or was silent for too long; the
computation raised; not finite or of a wrong shape; others were faster."""


class _Job(NamedTuple):
    call: Call
    deliver: Callable[[Any], None]
    wanted: Callable[[], bool]
    patience: float  # seconds of silence that it may take


class _State:
    """The state of one worker, as far as the pool knows it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ready = False
        self.probe: Future | None = None
        self.problem: BaseException | None = None  # of the last probe
        self.failures = 0  # attempts to start, in a row
        self.since = time.monotonic()  # of the last sign of life
        self.running: list[_Job] = []
        self.waiting: collections.deque[_Job] = collections.deque()
        self.losses = collections.Counter()
        self.restarts = 0


class Pool:
    """Sends pieces to workers, delivers their results, and restarts workers.

    One thread owns all states. Other threads leave notes for it and do not wait, but
    for `status` and `idle`: callbacks of Ray run in threads that Ray itself needs.

    Args:
      workers: n of them.
      patience: seconds of silence after which a busy worker counts as hung; more than
        a computation with its delay takes.
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
        self._at_end = at_end
        self._patience, self._startup = patience, startup
        self._states = [_State(worker) for worker in workers]
        self._notes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._states)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The n workers."""
        return tuple(state.worker for state in self._states)

    def wrap(self, wrapper: Callable[[int, Worker], Worker]) -> None:
        """Replaces every worker by `wrapper(index, worker)`, for calls from now on."""

        def note() -> None:
            for index, state in enumerate(self._states):
                state.worker = wrapper(index, state.worker)

        self._notes.put(note)
        self._catch_up()

    def wait_until_ready(self) -> None:
        """Returns when all workers are up.

        Raises:
          RuntimeError: a worker has not started in time.
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
        """Has a worker compute a piece, as soon as it is up and free.

        Args:
          worker: index of the worker.
          call: the piece.
          deliver: called in another thread with the share, or with the exception that
            the computation raised. A worker that dies or hangs delivers nothing, and is
            sent the piece again when it is back.
          wanted: whether a request still waits for the piece; if not, it is dropped.
          patience: seconds, for this piece; the pool's if None.
        """
        limit = self._patience if patience is None else patience
        state, job = self._states[worker], _Job(call, deliver, wanted, limit)

        def note() -> None:
            while state.waiting and not state.waiting[0].wanted():
                state.waiting.popleft()  # also while the worker is down or hangs
            state.waiting.append(job)
            self._pump(state)

        self._notes.put(note)

    def compute_everywhere(self, calls: Sequence[Call]) -> None:
        """Has worker i compute call i, and waits for all of them.

        Raises:
          RuntimeError: a worker did not answer in time, or its computation raised.
        """
        inbox: queue.SimpleQueue = queue.SimpleQueue()
        for worker, call in enumerate(calls):
            # It may have to compile first.
            self.send(worker, call, inbox.put, lambda: True, self._startup)
        for _ in calls:
            try:
                result = inbox.get(timeout=self._startup)
            except queue.Empty:
                raise RuntimeError(
                    f"a worker has not answered within {self._startup:g} s"
                ) from None
            if isinstance(result, BaseException):
                raise RuntimeError(f"a worker cannot compute: {result}") from result

    def count_loss(self, worker: int, reason: str) -> None:
        """Counts a result that was not used, for a reason among `LOSSES`.

        `"late"` is counted for workers that are up alone: of one that is down, the
        reason has been counted.
        """
        state = self._states[worker]

        def note() -> None:
            state.losses[reason] += reason != "late" or state.ready

        self._notes.put(note)

    @property
    def idle(self) -> bool:
        """Says whether every worker is up and has nothing to compute."""
        self._catch_up()
        return all(s.ready and not (s.running or s.waiting) for s in self._states)

    def status(self) -> list[dict[str, Any]]:
        """Returns for each worker whether it is `up`, its `restarts`, and its `losses`
        by reason."""
        self._catch_up()
        return [
            {
                "up": state.ready,
                "restarts": state.restarts,
                "losses": {reason: state.losses[reason] for reason in LOSSES},
            }
            for state in self._states
        ]

    def close(self) -> None:
        """Ends all workers; results that are outstanding are never delivered."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        for worker in self.workers:
            worker.close()
        if self._at_end is not None:
            self._at_end()

    def _catch_up(self) -> None:
        """Returns when all notes left so far have been read."""
        read = threading.Event()
        self._notes.put(read.set)
        while not read.wait(TICK) and self._thread.is_alive():
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
        """Hands waiting jobs to a worker that is up, `DEPTH` at a time."""
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
        if not any(job is running for running in state.running):
            return  # of a worker that has been replaced meanwhile
        error = future.exception()
        if isinstance(error, WorkerLost):
            self._lose(state, "died")
            return
        state.running = [running for running in state.running if running is not job]
        state.since = time.monotonic()
        state.losses["raised"] += error is not None
        job.deliver(error if error is not None else future.result())
        self._pump(state)

    def _lose(self, state: _State, reason: str) -> None:
        """Notes that a worker is down; its jobs wait for its return."""
        state.ready, state.probe = False, None
        state.since = time.monotonic()
        state.losses[reason] += max(sum(job.wanted() for job in state.running), 1)
        state.restarts += 1
        wanted = [job for job in (*state.running, *state.waiting) if job.wanted()]
        state.running, state.waiting = [], collections.deque(wanted)

    def _look_at(self, state: _State) -> None:
        """Notices workers that hang, and probes those that are down."""
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
        # In a thread: it may take a while, in which the other workers go on.
        threading.Thread(target=state.worker.replace, daemon=True).start()
