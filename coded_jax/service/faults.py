"""Faults on purpose: how often which occur, drawn from a seed.

A fault is drawn from a seed, the number of the request, the attempt and the worker: so
several codes can meet the same faults on the same workers. Nothing that computes
requests knows of faults; `serve` wraps its workers where it is asked to.
"""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import jax
import numpy as np

from coded_jax.checks import require
from coded_jax.latency.stragglers import Distribution
from coded_jax.service.pool import Call

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

    def of_request(self, number: int, n: int, attempt: int = 0) -> list[Fault]:
        """Returns the faults that n workers meet in a request."""
        ...

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Returns the fault that worker `worker` of n meets with a call."""
        ...


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
      corruptions: probability that a result is wrong.
      corruption: in which way, one of `KINDS`, or `"any"` of them, drawn anew for each
        result.
      kills, freezes: workers that are killed (SIGKILL) and frozen (SIGSTOP) per second,
        each time a worker drawn at random.
      service: for each coded stage, seconds that its pieces take at least: on workers
        that are processes of one machine, the computation of slower machines.
      seed: of all draws.

    Raises:
      ValueError: a value is out of range.
    """

    delays: tuple[Distribution, ...] = ()
    stragglers: int | None = None
    exceptions: float = 0.0
    nans: float = 0.0
    corruptions: float = 0.0
    corruption: str = ANY
    kills: float = 0.0
    freezes: float = 0.0
    service: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "delays", tuple(self.delays))  # hashable, as a key
        for name in ("exceptions", "nans", "corruptions"):
            value = getattr(self, name)
            require(name, value, 0 <= value <= 1, "a probability, 0..1,")
        for name in ("kills", "freezes"):
            value = getattr(self, name)
            require(name, value, 0 <= value < 1000, "0..1000 per second")
        known = self.corruption in (ANY, *KINDS)
        require("corruption", self.corruption, known, f"one of {(ANY, *KINDS)}")
        short = all(0 <= seconds < 1000 for seconds in self.service)
        require("service", self.service, short, "0..1000 seconds")
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
    if len(delays) not in (1, n):
        raise ValueError(
            f"delays: {len(delays)} distributions given, 1 or {n} accepted, one for "
            "every worker"
        )
    key = jax.random.key(seed)
    drawn = np.stack(
        [
            np.asarray(
                delays[i % len(delays)].sample(jax.random.fold_in(key, i), (ROWS,))
            )
            for i in range(n)
        ],
        axis=1,
    )
    if stragglers is None:
        return drawn
    ranks = np.random.default_rng(seed).random((ROWS, n)).argsort(axis=1)
    return np.where(ranks.argsort(axis=1) < stragglers, drawn, 0.0)


def corrupted(
    kind: str, share: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns a wrong result of the same shape and dtype.

    Args:
      kind: `"zeros"`; `"noise"`, with the mean and the deviation of each channel of an
        image's share, or of all of it where it has one position; `"share"`, that of
        other images; or `"bit"`, the top exponent bit of each image's largest value
        flipped, which makes one of `[1, 2)` infinite or no number, one above it almost
        zero and one below it huge.
      share: `[B, M, M', D]`, the right result.
      other: likewise, of other images.
      rng: of the noise.
    """
    if kind == "zeros":
        return np.zeros_like(share)
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
