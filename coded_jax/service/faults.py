"""Faults on purpose: how often which occur, drawn from a seed.

A fault is drawn from a seed, the number of the request, the attempt and the worker: so
several codes can meet the same faults on the same workers. Nothing that computes
requests knows of faults; `serve` wraps its workers where it is asked to.
"""

from __future__ import annotations

import dataclasses
import functools
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from coded_jax.checks import require
from coded_jax.latency.stragglers import Distribution
from coded_jax.service.local import CallThread
from coded_jax.service.pool import Call, Pool, Worker, WorkerLost
from coded_jax.settings import (
    INTEGER,
    between,
    check,
    integers,
    one_of,
    setting,
)

GRACE = 1.0  # seconds in which a thread may end
ROWS = 4096  # requests for which delays are drawn at once, and then again
KINDS = ("zeros", "noise", "share", "bit")
"""Ways in which a result is wrong, see `corrupted`."""
ANY = "any"  # of these
HEDGED = 1_234_577  # added to the number of a request whose piece is sent again


class Fault(NamedTuple):
    """A fault of one piece.

    Attributes:
      delay: seconds that its worker is busy before it begins.
      kind: `"raise"`, `"nan"` (the result is not a number), one of `KINDS` (it is
        wrong), or `""`.
      least: seconds that its computation takes at least: that of a slower machine.
      there, back: seconds that its piece and its result take on their ways, in which
        the worker is free.
      over: done when nobody waits for the result any more, and `least` need not pass.
    """

    delay: float = 0.0
    kind: str = ""
    least: float = 0.0
    there: float = 0.0
    back: float = 0.0
    over: Future | None = None


class Source(Protocol):
    """Whatever says what workers meet: `Faults`, or machines of given speeds."""

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Returns the fault that worker `worker` of n meets with a call."""
        ...


@dataclasses.dataclass(frozen=True)
class Faults:
    """Kinds of faults, and how often they occur.

    Attributes:
      delays: a distribution for each worker, or one for all; no delays if empty.
      service: for each coded stage, seconds that its pieces take at least: on workers
        that are processes of one machine, the computation of slower machines.

    The others say themselves what they are.

    Raises:
      ValueError: a value is out of range.
    """

    delays: tuple[Distribution, ...] = ()
    stragglers: int | None = setting(
        None,
        "workers of a request that are delayed; all by default",
        integers(0),
        INTEGER,
    )
    exceptions: float = setting(0.0, "probability that a piece raises", between(0, 1))
    nans: float = setting(0.0, "probability that a result is NaN", between(0, 1))
    corruptions: float = setting(
        0.0, "probability that a result is finite and wrong", between(0, 1)
    )
    corruption: str = setting(
        ANY,
        "in which way: zeros, noise of the same moments, the share of the image "
        "before, or the top exponent bit of the largest value flipped",
        one_of((ANY, *KINDS)),
    )
    service: tuple[float, ...] = ()
    seed: int = setting(0, "of all draws", integers(0, 2**32 - 1))

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "delays", tuple(self.delays))  # hashable, as a key

    def of_request(self, number: int, n: int, attempt: int = 0) -> list[Fault]:
        """Draws the faults that n workers meet in each stage of a request.

        Args:
          number: of the request, from 0.
          n: number of workers.
          attempt: 1 for pieces that are sent again.

        Raises:
          ValueError: there are delays of another number of workers.
        """
        number += attempt * HEDGED
        delays = _delays(self.delays, self.stragglers, self.seed, n)[number % ROWS]
        draws = np.random.default_rng([self.seed, number]).random((4, n))
        drawn = np.asarray(KINDS)[(draws[3] * len(KINDS)).astype(int)]
        wrong = drawn if self.corruption == ANY else self.corruption
        kinds = np.where(draws[2] < self.corruptions, wrong, "")
        kinds = np.where(draws[1] < self.nans, "nan", kinds)
        kinds = np.where(draws[0] < self.exceptions, "raise", kinds)
        return [Fault(float(d), str(k)) for d, k in zip(delays, kinds, strict=True)]

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Draws the fault that worker `worker` of n meets with a call; none in a
        warm-up."""
        if call.request is None:
            return Fault()
        fault = self.of_request(call.request, n, call.attempt)[worker]
        return fault._replace(least=sum(self.service[call.stage : call.stage + 1]))


@functools.lru_cache(maxsize=16)
def _delays(
    delays: tuple[Distribution, ...], stragglers: int | None, seed: int, n: int
) -> np.ndarray:
    """Draws seconds `[ROWS, n]`."""
    if not delays:
        return np.zeros((ROWS, n))
    accepted = f"1 or {n}, one for every worker,"
    require("delays", len(delays), len(delays) in (1, n), accepted)
    key, every = jax.random.key(seed), delays * (n // len(delays))
    drawn = [
        np.asarray(delay.sample(jax.random.fold_in(key, i), (ROWS,)))
        for i, delay in enumerate(every)
    ]
    if stragglers is None:
        return np.stack(drawn, axis=1)
    ranks = np.random.default_rng(seed).random((ROWS, n)).argsort(axis=1)
    return np.where(ranks.argsort(axis=1) < stragglers, np.stack(drawn, axis=1), 0.0)


def corrupted(
    kind: str, share: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns a wrong result of the same shape and dtype.

    Args:
      kind: `"nan"`; `"zeros"`; `"noise"`, with the mean and the deviation of each
        channel of an image's share, or of all of it where it has one position;
        `"share"`, that of other images; or `"bit"`, the top exponent bit of each
        image's largest value flipped, which makes one of `[1, 2)` infinite or no
        number, one above it almost zero and one below it huge.
      share: `[B, M, M', D]`, the right result.
      other: likewise, of other images; zeros where there were none.
      rng: of the noise.
    """
    if kind in ("nan", "zeros"):
        return np.full_like(share, np.nan if kind == "nan" else 0)
    if kind == "share":
        return other
    if kind == "noise":
        one = share[0].size == share.shape[-1]  # position: no channel deviates
        axes = tuple(range(1, share.ndim if one else share.ndim - 1))
        mean = share.mean(axis=axes, keepdims=True, dtype=np.float64)
        deviation = share.std(axis=axes, keepdims=True, dtype=np.float64)
        return rng.normal(mean, deviation, share.shape).astype(share.dtype)
    wrong = share.reshape(len(share), -1).copy()
    bits = wrong.view(f"u{share.itemsize}")
    top = bits.dtype.type(1 << (8 * share.itemsize - 2))  # behind the sign
    bits[range(len(share)), np.abs(wrong).argmax(axis=1)] ^= top
    return wrong.reshape(share.shape)


class FaultyWorker:
    """A worker that meets faults; it satisfies `Worker` itself.

    Calls pass to the worker one after the other, so that a delay occupies it as it
    would a slow device. A worker that is no process is killed by its wrapper alone,
    which drops its results.

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
        self._away = 0.0  # until when it is, on the clock of `time.monotonic`
        self._begin()

    def _begin(self) -> None:
        """Begins another life, whose calls are none of the one before."""
        meet = lambda call, future, sent: self._meet(life.ended, call, future, sent)
        self._life = life = CallThread(meet)

    def compute(self, call: Call) -> Future:
        return self._life.send(call)

    def probe(self) -> Future:
        if self._life.ended.done():
            self._begin()
        if time.monotonic() >= self._away:
            return self.worker.probe()
        future: Future = Future()
        future.set_exception(WorkerLost("killed"))
        return future

    def watch(self) -> Future:
        life = self._life
        self.worker.watch().add_done_callback(lambda _: life.end())
        return life.ended

    def replace(self) -> None:
        self._life.end()
        self.worker.replace()
        self._begin()

    def kill(self, away: float = 0.0) -> None:
        """Ends the worker as by SIGKILL; one that is no process is back after `away`
        seconds, or when it is healed."""
        self._life.end()
        if self._signal is not None:
            self._signal(signal.SIGKILL)
        else:
            self._away = time.monotonic() + away

    def heal(self) -> None:
        """Lets a worker that was killed be back."""
        self._away = 0.0

    def close(self) -> None:
        self._life.end()
        self._life.thread.join(GRACE)
        self.worker.close()

    def _meet(self, ended: Future, call: Call, future: Future, sent: float) -> None:
        """Passes a call on, and its result back, as its fault allows."""

        def pause(seconds: float, *over: Future | None) -> None:
            if seconds > 0:
                ends = [end for end in (ended, *over) if end is not None]
                seconds = min(seconds, threading.TIMEOUT_MAX)
                wait(ends, seconds, return_when=FIRST_COMPLETED)
            if ended.done():
                raise WorkerLost("ended")

        fault = self.faults.of_call(call, self.index, self.n)
        pause(sent + fault.there - time.monotonic(), fault.over)
        pause(fault.delay)
        if fault.kind == "raise":
            raise RuntimeError("an exception on purpose")
        begun = time.monotonic()
        computed = self.worker.compute(call)
        pause(threading.TIMEOUT_MAX, computed)
        pause(begun + fault.least - time.monotonic(), fault.over)
        share = self._changed(computed.result(), fault.kind, call)
        if fault.back > 0:  # on its way, while the worker goes on
            timer = threading.Timer(fault.back, future.set_result, (share,))
            timer.daemon = True
            timer.start()
        else:
            future.set_result(share)

    def _changed(self, share: Any, kind: str, call: Call) -> Any:
        """Returns the result of a call as a fault of this kind leaves it."""
        place = call.stage, call.piece, np.shape(share)
        other, self._last[place] = self._last.get(place), share
        if not kind:
            return share
        if other is None:
            other = np.zeros_like(share)
        draw = (self.index, call.request or 0, call.stage, call.attempt)
        rng = np.random.default_rng(draw)
        return corrupted(kind, np.asarray(share), np.asarray(other), rng)


def inject(pool: Pool, faults: Source) -> list[FaultyWorker]:
    """Lets the workers of a pool meet these faults from now on, and no others.

    Returns:
      The workers.
    """

    def wrapper(index: int, worker: Worker) -> Worker:
        if not isinstance(worker, FaultyWorker):
            return FaultyWorker(worker, index, len(pool), faults)
        worker.faults = faults
        return worker

    pool.wrap(wrapper)
    return [worker for worker in pool.workers if isinstance(worker, FaultyWorker)]
