"""What a request waits for: all pieces, a copy of each, or the first k of n results."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

STRATEGIES = ("uncoded", "hedged", "replication", "coded", "mds")


class Round(NamedTuple):
    """One round trip to the devices: a coded stage, or a layer.

    Attributes:
      work: what each device computes, as a fraction of the whole `F_Conv`.
      moved: bytes that each device receives and returns.
      encode: seconds before anything is sent.
      decode: seconds after the wait, where a data piece has not arrived.
    """

    work: float
    moved: float = 0.0
    encode: float = 0.0
    decode: float = 0.0


@dataclasses.dataclass(frozen=True)
class Work:
    """A way to compute `F_Conv` on `k + r` devices.

    Attributes:
      strategy: one of `STRATEGIES`. `"uncoded"` waits for all k pieces, and has no
        others. `"hedged"` does too, but sends every piece that is missing after
        `hedge_after` seconds once more, with new draws, to the device that was or will
        be the first to finish; that may compute several at a time, which is the best
        that can be hoped for. `"replication"` sends piece `i mod k` to device i and
        waits for a copy of each. `"coded"` waits for any k results. `"mds"` is the
        same: an exact code of every convolution by itself, a round for each (CoCoI,
        2025).
      k, r: pieces, and what is sent beside them.
      rounds: in their order; each begins when the one before has ended.
      hedge_after: seconds from sending, in every round.
      systematic: whether a code decodes nothing if all data pieces have arrived.
      own: seconds that the client computes by itself.

    Raises:
      ValueError: one of them is out of range, or would have no effect.
    """

    strategy: str
    k: int
    r: int
    rounds: tuple[Round, ...]
    hedge_after: float = math.inf
    systematic: bool = True
    own: float = 0.0

    def __post_init__(self) -> None:
        known = self.strategy in STRATEGIES
        check("strategy", self.strategy, known, f"one of {list(STRATEGIES)}")
        check("k", self.k, self.k >= 1, "1 or more")
        if self.strategy in ("uncoded", "hedged"):
            check("r", self.r, self.r == 0, f"0 with {self.strategy}")
        check("r", self.r, self.r >= 0, "0 or more")
        check("rounds", self.rounds, len(self.rounds) > 0, "one or more")
        for each in self.rounds:
            fits = each.work > 0 and all(0 <= value < math.inf for value in each)
            check("rounds", each, fits, "finite work above 0, the others 0 or more,")
            fits = self.coded or each.decode == 0
            check("decode", each.decode, fits, f"0 with {self.strategy}")
        after = self.hedge_after
        fits = after == math.inf if self.strategy != "hedged" else after >= 0
        check("hedge_after", after, fits, "0 or more with hedged, inf with the others,")
        check("own", self.own, 0 <= self.own < math.inf, "0 or more")

    @property
    def n(self) -> int:
        """Devices."""
        return self.k + self.r

    @property
    def coded(self) -> bool:
        """Whether what is missing can be decoded."""
        return self.strategy in ("coded", "mds")


class Draws(NamedTuple):
    """Of R requests: float32 `[n, R]`, or `[n, 1]` where all are alike.

    Attributes:
      compute: seconds that each device would need for the whole `F_Conv`.
      delay: seconds by which its answers are late; infinite for a dead device.
      compute_again, delay_again: those of a piece that is sent once more.
    """

    compute: jax.Array
    delay: jax.Array
    compute_again: jax.Array
    delay_again: jax.Array


def complete(work: Work, bandwidth: float, draws: Draws) -> tuple[jax.Array, jax.Array]:
    """Seconds until all rounds are done, and what had arrived in the first one.

    Device i answers after `work compute_i + delay_i + moved / bandwidth`, in every
    round: the same draws hold for all of them.

    Args:
      work: on the first `work.n` devices.
      bandwidth: bytes per second.
      draws: of the devices.

    Returns:
      Float32 `[R]`, infinite where too few results ever arrive, and int32 `[R]`,
      `sum(arrived * 2^i)` when the first round's wait was over.
    """
    wait = (work.strategy if not work.coded else "coded", work.k, work.systematic)
    after = work.hedge_after if work.strategy == "hedged" else None
    total, first = jnp.float32(work.own), None
    for fraction, moved, encode, decode in work.rounds:
        times = _times(work.n, draws, fraction, moved / bandwidth, after)
        total, available = _wait(*wait, times, total, encode, decode)
        first = available if first is None else first
    assert first is not None  # there is a round
    return total, first


# Two programs, so that all comparisons are of times that were rounded once: in one, XLA
# computes them anew, and otherwise, wherever they are used.
@functools.partial(jax.jit, static_argnames="n")
def _times(
    n: int, draws: Draws, fraction: float, send: float, hedge_after: float | None
) -> list[jax.Array]:
    """Seconds from sending until each of the n results is there, `[R]` each."""
    first, second = (
        list((fraction * compute + delay + send)[:n])
        for compute, delay in (draws[:2], draws[2:])
    )
    if hedge_after is None:
        return first
    start = jnp.maximum(functools.reduce(jnp.minimum, first), hedge_after)
    return [jnp.minimum(a, start + b) for a, b in zip(first, second, strict=True)]


@functools.partial(jax.jit, static_argnames=("strategy", "k", "systematic"))
def _wait(
    strategy: str,
    k: int,
    systematic: bool,
    times: list[jax.Array],
    total: jax.Array,
    encode: float,
    decode: float,
) -> tuple[jax.Array, jax.Array]:
    """`total` after one more round, and what has arrived when its wait is over."""
    if strategy == "replication":
        copies = [functools.reduce(jnp.minimum, times[j::k]) for j in range(k)]
        done = functools.reduce(jnp.maximum, copies)
    else:
        done = smallest(times, k)
    arrived = [(each <= done) & (each < jnp.inf) for each in times]
    bits = [each.astype(jnp.int32) << i for i, each in enumerate(arrived)]
    total += encode + done
    if strategy == "coded":
        complete = functools.reduce(jnp.logical_and, arrived[:k])
        total += jnp.where(complete & systematic, 0.0, decode)
    return total, functools.reduce(jnp.bitwise_or, bits)


def smallest(rows: Sequence[jax.Array], k: int) -> jax.Array:
    """The k-th smallest of n rows, each `[R]`, in every place.

    By exchanges of whole rows, since on CPUs XLA's sort along a short axis is slow.
    """
    rows = list(rows)
    for low, high in sorting_network(len(rows)):
        a, b = rows[low], rows[high]
        rows[low], rows[high] = jnp.minimum(a, b), jnp.maximum(a, b)
    return rows[k - 1]


def sorting_network(n: int) -> Iterator[tuple[int, int]]:
    """Pairs of places to put in order, one after the other, which sort any n values.

    Batcher's merge exchange (Knuth, volume 3, algorithm 5.2.2M): 12 pairs for n = 6.
    """
    p = 1
    while p < n:
        q = p
        while q:
            for j in range(q % p, n - q, 2 * q):
                for i in range(j, j + min(q, n - j - q)):
                    if i // (2 * p) == (i + q) // (2 * p):
                        yield i, i + q
            q //= 2
        p *= 2


def check(name: str, value: object, holds: bool, accepted: str) -> None:
    """Raises a ValueError that names the argument, unless it holds."""
    if not holds:
        raise ValueError(f"{name}: {value} given, {accepted} accepted")
