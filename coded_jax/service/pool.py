"""A pool of workers that may be slow, hang or die, and of spares that stand by.

Pieces are sent to places, each of which a worker holds; it computes them in order.
Pieces that no request waits for any more are dropped before they begin, so that a
straggler catches up. When a worker dies or hangs, a spare takes its place, with the
pieces that are still wanted; it is started anew, and is a spare then. Without a spare
its place waits for it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from coded_jax.service.config import DEFAULTS, ServeConfig
from coded_jax.service.parts import Piece

STARTUP = 120.0  # seconds that a worker may take, on a machine with little else to do
DEPTH = 2  # pieces handed to a worker at once: the next one is there when one is done
TICK = 0.05  # seconds between looks at the workers
BEAT = 1.0  # seconds after which a worker that is idle has to show that it lives
PAUSE = 0.25  # between attempts to reach a worker, of the time since it was lost
LONGEST_PAUSE = 5.0  # seconds
USELESS = 5  # results that raised or are not finite, of twice as many: it is broken
STRIKES = 3  # wrong results after which a worker is started anew
HOPELESS = 20  # attempts in a row, of 7 s or more, after which a start has failed

log = logging.getLogger("coded_jax")

LOSSES = ("died", "hung", "raised", "bad", "wrong", "late")
"""Reasons why a result was not used: its worker ended, or was silent for too long; the
computation raised; not finite or of a wrong shape; others contradict it; others were
faster."""


class WorkerLost(RuntimeError):
    """The worker ended before it delivered a result."""


class Call(NamedTuple):
    """One piece of one request, for one worker.

    Attributes:
      piece: the blocks to compute, and where the share lies in their output.
      query: `[B, h, w, C]`.
      request: number of the request; None for a warm-up.
      stage: number of the coded stage, from 0.
      attempt: 0, or 1 for a hedged call: the same piece sent once more.
    """

    piece: Piece
    query: Any
    request: int | None = None
    stage: int = 0
    attempt: int = 0


class Worker(Protocol):
    """One device, or one process that has a device."""

    def compute(self, call: Call) -> Future:
        """Returns the share `[B, M, M', D]` to come.

        Calls are computed one after the other. The future fails with `WorkerLost` if
        the worker ended, or with the exception that the computation raised.
        """
        ...

    def probe(self) -> Future:
        """Returns a future that is done as soon as the worker can compute: with the
        number of its process, None if it is none."""
        ...

    def watch(self) -> Future:
        """Returns a future that is done as soon as the worker has ended."""
        ...

    def replace(self) -> None:
        """Ends the worker, even one that hangs, and starts it anew."""

    def close(self) -> None:
        """Ends the worker."""


@dataclasses.dataclass(frozen=True, eq=False)  # two jobs may have the same arrays
class _Job:
    call: Call
    deliver: Callable[[Any, int], None]
    wanted: Callable[[], bool]
    patience: float  # seconds of silence that it may take


class _State:
    """The state of one worker, as far as the pool knows it."""

    def __init__(self, number: int, worker: Worker) -> None:
        self.number, self.worker, self.ready = number, worker, False
        self.probe: Future | None = None
        self.watch: Future | None = None  # done when it ends
        self.problem: BaseException | None = None  # of the last probe
        self.process: int | None = None  # its number, of a worker that is a process
        self.since = self.down = time.monotonic()  # of the last sign of life, its end
        self.failures = 0  # attempts to start, in a row
        # Wrong results, and those of all kinds, since it was started.
        self.strikes = self.results = 0
        # How many there were when one raised or was not finite.
        self.useless: collections.deque[int] = collections.deque(maxlen=USELESS)
        self.running: list[_Job] = []
        self.waiting: collections.deque[_Job] = collections.deque()
        self.losses, self.restarts = collections.Counter(), 0
        self.ending: threading.Thread | None = None  # of the worker that it was


def _noted(method: Callable[..., None]) -> Callable[..., None]:
    """Has a method run in the pool's thread, and its caller go on."""

    @functools.wraps(method)
    def leave_note(self: Pool, *arguments: Any, **named: Any) -> None:
        self._notes.put(functools.partial(method, self, *arguments, **named))

    return leave_note


class Pool:
    """Sends pieces to workers, delivers their results, and restarts workers.

    A worker that hangs is noticed by its silence, also one that has nothing to compute,
    as a spare: it is asked now and then.

    One thread owns all states. Other threads leave notes for it and do not wait, but
    for `status` and `idle`: callbacks of Ray run in threads that Ray itself needs.

    Args:
      workers: of the places, then spares.
      config: of which `spares` and `patience` are looked at.
    """

    def __init__(
        self, workers: Sequence[Worker], config: ServeConfig = DEFAULTS
    ) -> None:
        self._config = config
        self._states = [_State(i, worker) for i, worker in enumerate(workers)]
        self._holders = [*self._states]  # of the places, and then the spares
        self._places = len(workers) - config.spares
        self._notes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._states)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Returns all workers, by their numbers."""
        return tuple(state.worker for state in self._states)

    def wrap(self, wrapper: Callable[[int, Worker], Worker]) -> None:
        """Replaces every worker by `wrapper(index, worker)`, for calls from now on."""
        self._wrap(wrapper)
        self._catch_up()

    @_noted
    def _wrap(self, wrapper: Callable[[int, Worker], Worker]) -> None:
        for state in self._states:
            state.worker = wrapper(state.number, state.worker)
            self._watch(state)

    def wait_until_ready(self) -> None:
        """Waits until all workers are up.

        Raises:
          RuntimeError: a worker has not started in time.
        """
        end = time.monotonic() + STARTUP
        while missing := [s for s in self._states if not s.ready]:
            failed = any(state.failures >= HOPELESS for state in missing)
            if failed or time.monotonic() > end or self._closed.wait(0.01):
                problems = sorted({f": {s.problem}" for s in missing if s.problem})
                numbers, reason = [s.number for s in missing], "".join(problems[:1])
                raise RuntimeError(f"workers {numbers} have not started{reason}")

    @_noted
    def send(
        self,
        place: int,
        call: Call,
        deliver: Callable[[Any, int], None],
        wanted: Callable[[], bool],
        patience: float | None = None,
    ) -> None:
        """Has the worker of a place compute a piece, as soon as it is up and free.

        Args:
          place: number of it; the last ones are those of spares.
          call: the piece.
          deliver: called in another thread with the share, or with the exception that
            the computation raised, and the number of the worker. A worker that dies or
            hangs delivers nothing: the piece is sent to the one that takes its place,
            or to itself when it is back.
          wanted: whether a request still waits for the piece; if not, it is dropped.
          patience: seconds, for this piece; the pool's if None.
        """
        state = self._holders[place]
        while state.waiting and not state.waiting[0].wanted():
            state.waiting.popleft()  # also while the worker is down or hangs
        limit = patience or self._config.patience
        state.waiting.append(_Job(call, deliver, wanted, limit))
        self._pump(state)

    def compute_everywhere(self, calls: Sequence[Call]) -> None:
        """Has place i compute call i, spares some of them, and waits for all.

        Raises:
          RuntimeError: a worker did not answer in time, or its computation raised.
        """
        futures = [Future() for _ in self._states]
        for place, future in enumerate(futures):
            self.send(
                place,
                calls[place % len(calls)],
                deliver=lambda result, worker, future=future: future.set_result(result),
                wanted=lambda: True,
                patience=STARTUP,  # it may have to compile first
            )
        for future in futures:
            try:
                result = future.result(STARTUP)
            except TimeoutError:
                problem = f"a worker has not answered within {STARTUP:g} s"
                raise RuntimeError(problem) from None
            if isinstance(result, BaseException):
                raise RuntimeError(f"a worker cannot compute: {result}") from result

    @_noted
    def count_loss(self, worker: int, reason: str) -> None:
        """Counts a result of a worker that was not used, for a reason among `LOSSES`.

        `"late"` is counted for workers that are up alone: of one that is down, the
        reason has been counted. A worker of whom too many are `"wrong"`, or half of the
        last ones `"bad"`, is started anew.
        """
        self._charge(self._states[worker], reason)

    def holder(self, place: int) -> int:
        """Returns the number of the worker that holds a place at the moment."""
        return self._holders[place].number

    @property
    def up(self) -> frozenset[int]:
        """Places whose workers can compute at the moment."""
        held = enumerate(self._holders[: self._places])
        return frozenset(place for place, state in held if state.ready)

    @property
    def idle(self) -> bool:
        """Returns whether every worker is up and has nothing to compute."""
        self._catch_up()
        return all(s.ready and not (s.running or s.waiting) for s in self._states)

    def status(self) -> list[dict[str, Any]]:
        """Returns for each worker whether it is `up`, its `place` (None for a spare),
        the number of its `process` (None if it is none), its `restarts`, and its
        `losses` by reason."""
        self._catch_up()
        held = {s.number: i for i, s in enumerate(self._holders[: self._places])}
        return [
            {
                "up": state.ready,
                "place": held.get(state.number),
                "process": state.process,
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

    def _catch_up(self) -> None:
        """Waits until all notes left so far have been read."""
        read = threading.Event()
        self._notes.put(read.set)
        while not read.wait(TICK) and self._thread.is_alive():
            pass

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._closed.is_set():
            try:
                with contextlib.suppress(queue.Empty):
                    self._notes.get(timeout=TICK)()
                if time.monotonic() - looked >= TICK:
                    looked = time.monotonic()
                    for state in self._states:
                        self._look_at(state)
            except Exception:  # as without file descriptors; the others go on
                log.exception("workers are looked after again")

    def _pump(self, state: _State) -> None:
        """Hands waiting jobs to a worker that is up, `DEPTH` at a time."""
        while state.ready and state.waiting and len(state.running) < DEPTH:
            job = state.waiting.popleft()
            if not job.wanted():
                continue
            if not state.running:
                state.since = time.monotonic()
            state.running.append(job)
            done = functools.partial(self._done, state, job)
            state.worker.compute(job.call).add_done_callback(done)

    @_noted
    def _done(self, state: _State, job: _Job, future: Future) -> None:
        if job not in state.running:
            return  # of a worker that has been replaced meanwhile
        error = future.exception()
        if isinstance(error, WorkerLost):
            self._lose(state, "died")
            return
        state.running.remove(job)
        state.since = time.monotonic()
        state.results += 1
        job.deliver(error if error is not None else future.result(), state.number)
        if error is not None:
            self._charge(state, "raised")
        self._pump(state)

    def _charge(self, state: _State, reason: str) -> None:
        """Counts a loss, and has a worker started anew that errs again and again."""
        state.losses[reason] += reason != "late" or state.ready
        state.strikes += reason == "wrong"
        if reason in ("raised", "bad"):
            state.useless.append(state.results)
        full = len(state.useless) == USELESS
        often = full and state.results - state.useless[0] < 2 * USELESS
        if state.ready and (often or state.strikes >= STRIKES):
            self._lose(state)
            self._replace(state)

    def _watch(self, state: _State) -> None:
        """Has the end of a worker that is up noticed, also of one that is idle."""
        if state.ready:
            state.watch = state.worker.watch()
            state.watch.add_done_callback(functools.partial(self._ended, state))

    @_noted
    def _ended(self, state: _State, watch: Future) -> None:
        if state.watch is watch and state.ready:
            self._lose(state, "died")

    def _lose(self, state: _State, reason: str | None = None) -> None:
        """Notes that a worker is down; its jobs wait for a spare, or for its return."""
        state.ready, state.probe, state.watch = False, None, None
        state.since = state.down = time.monotonic()
        state.strikes = state.results = 0
        state.useless.clear()
        if reason is not None:
            state.losses[reason] += max(sum(job.wanted() for job in state.running), 1)
        state.restarts += 1
        wanted = [job for job in (*state.running, *state.waiting) if job.wanted()]
        state.running, state.waiting = [], collections.deque(wanted)
        self._fill_places()

    def _fill_places(self) -> None:
        """Gives places whose workers are down to spares that are up."""
        up = [state.ready for state in self._holders]
        empty = [place for place in range(self._places) if not up[place]]
        spares = [spare for spare in range(self._places, len(self)) if up[spare]]
        for place, spare in zip(empty, spares, strict=False):
            lost, found = self._holders[place], self._holders[spare]
            self._holders[place], self._holders[spare] = found, lost
            found.waiting.extend(lost.waiting)
            lost.waiting.clear()
            self._pump(found)

    def _look_at(self, state: _State) -> None:
        """Notices workers that hang, and probes those that are idle or down."""
        now = time.monotonic()
        silent = now - state.since
        if state.ending and state.ending.is_alive() and silent < STARTUP:
            return  # what ends the one is not to meet the next one
        if state.running:
            limit = state.running[0].patience
        else:
            if state.ready:
                limit, pause = self._config.patience + BEAT, BEAT
            else:
                pause = min(max(TICK, PAUSE * (now - state.down)), LONGEST_PAUSE)
                limit = STARTUP
            if state.probe is None and silent > pause:
                state.probe = state.worker.probe()
            elif state.probe is not None and state.probe.done():
                self._take_probe(state, state.probe)
                return
        if silent > limit:
            if state.ready:
                self._lose(state, "hung")
            state.probe, state.since = None, now
            self._replace(state)

    def _take_probe(self, state: _State, probe: Future) -> None:
        """Notes what a probe says: that a worker lives, or why it does not."""
        state.probe, state.since = None, time.monotonic()
        if state.ready:
            return
        state.problem = probe.exception()
        state.failures += 1
        if state.problem is None:
            state.ready, state.failures = True, 0
            state.process = probe.result()
            self._watch(state)
            self._pump(state)
            self._fill_places()

    def _replace(self, state: _State) -> None:
        # In a thread: it may take a while, in which the other workers go on.
        state.ending = threading.Thread(target=state.worker.replace, daemon=True)
        state.ending.start()
