"""Faults on purpose: stragglers, exceptions, corrupted results, kills, freezes.

What a piece meets is drawn by the front end from a seed, and carried out by the worker;
so several codes can be given the same faults on the same workers.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from coded_jax.latency.stragglers import Distribution

ROWS = 4096  # requests for which delays are drawn at once, and then again


class Fault(NamedTuple):
    """What happens to one piece.

    Attributes:
      delay: seconds that its worker sleeps before it begins.
      kind: `"raise"`, `"nan"` (the result is not a number), or `""`.
    """

    delay: float = 0.0
    kind: str = ""


class InjectedError(RuntimeError):
    """What a worker raises that was told to."""


@dataclasses.dataclass(frozen=True)
class Faults:
    """How often what happens.

    Attributes:
      delays: of every worker its distribution, or one for all; none if empty.
      stragglers: how many workers of a request are delayed, drawn anew for each; all if
        None.
      exceptions, nans: probability that a piece meets one.
      kills, freezes: workers killed (SIGKILL) and frozen (SIGSTOP) per second, each
        time another one drawn.
      service: of every coded stage, seconds that each of its pieces takes longer: on
        workers that are processes of one machine, the computation of slower ones.
      seed: fixes the draws.
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
            _check(name, value, 0 <= value <= 1, "a probability, 0..1,")
        for name in ("kills", "freezes"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < 1000, "0..1000 per second")
        object.__setattr__(self, "delays", tuple(self.delays))  # hashable, as a key
        fits = all(0 <= seconds < 1000 for seconds in self.service)
        _check("service", self.service, fits, "0..1000 seconds")
        _check("seed", self.seed, 0 <= self.seed < 2**32, "0..2^32-1")
        count = self.stragglers
        _check("stragglers", count, count is None or count >= 0, "0 or more")

    def of_request(self, number: int, n: int) -> list[Fault]:
        """What the n workers meet with request `number`, counted from 0, in each of its
        stages.

        Raises:
          ValueError: there are delays of another number of workers, or more stragglers.
        """
        count = self.stragglers
        _check("stragglers", count, count is None or count <= n, f"0..{n}")
        delays = np.zeros(n)
        if self.delays:
            delays = _delays(self.delays, self.stragglers, self.seed, n)[number % ROWS]
        draws = np.random.default_rng([self.seed, number]).random((2, n))
        kinds = np.where(draws[1] < self.nans, "nan", "")
        kinds = np.where(draws[0] < self.exceptions, "raise", kinds)
        return [Fault(float(d), str(k)) for d, k in zip(delays, kinds, strict=True)]


@functools.lru_cache(maxsize=16)
def _delays(
    delays: tuple[Distribution, ...], stragglers: int | None, seed: int, n: int
) -> np.ndarray:
    """Seconds `[ROWS, n]`."""
    if len(delays) not in (1, n):
        raise ValueError(
            f"delays: {len(delays)} distributions given, 1 or {n} accepted, one for "
            "every worker"
        )
    key = jax.random.key(seed)
    each = delays * (n if len(delays) == 1 else 1)
    drawn = np.stack(
        [
            np.asarray(delay.sample(jax.random.fold_in(key, i), (ROWS,)))
            for i, delay in enumerate(each)
        ],
        axis=1,
    )
    if stragglers is None:
        return drawn
    ranks = np.random.default_rng(seed).random((ROWS, n)).argsort(axis=1)
    return np.where(ranks.argsort(axis=1) < stragglers, drawn, 0.0)


def meet(fault: Fault, stopped: threading.Event | None = None) -> None:
    """Carries out, in a worker, what precedes the computation.

    Args:
      fault: what to do.
      stopped: ends a delay early.

    Raises:
      InjectedError: it was to be raised.
    """
    if fault.delay > 0:
        seconds = min(fault.delay, threading.TIMEOUT_MAX)
        (stopped or threading.Event()).wait(seconds)
    if fault.kind == "raise":
        raise InjectedError("an exception that was asked for")


class Disturbance:
    """Kills and freezes workers at random times, until it is closed."""

    def __init__(self, faults: Faults, workers: Sequence) -> None:
        self._closed = threading.Event()
        self.done = {"kill": 0, "freeze": 0}
        self._threads = [
            threading.Thread(
                target=self._run, args=(faults.seed, kind, rate, workers), daemon=True
            )
            for kind, rate in (("kill", faults.kills), ("freeze", faults.freezes))
            if rate > 0
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, seed: int, kind: str, rate: float, workers: Sequence) -> None:
        rng = np.random.default_rng([seed, len(kind)])
        while not self._closed.wait(rng.exponential(1 / rate)):
            workers[int(rng.integers(len(workers)))].disturb(kind)
            self.done[kind] += 1

    def close(self) -> None:
        """Ends it, and waits for its threads."""
        self._closed.set()
        for thread in self._threads:
            thread.join()


def _check(name: str, value: object, holds: bool, accepted: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {value!r} given, {accepted} accepted")
