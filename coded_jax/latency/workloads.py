"""Workloads: what a strategy asks of the devices, and when a request is complete."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.checks import require
from coded_jax.codes.quorum import ALL_DATA, decodes, waiting_time
from coded_jax.types import Quorum


class RoundTrip(NamedTuple):
    """One trip to the devices and back: a coded stage, or a layer.

    Attributes:
      work: of each device, as a fraction of the whole `F_Conv`.
      payload: bytes that each device receives and returns.
      encode: seconds before anything is sent.
      decode: seconds after the wait, where a data piece has not arrived.
    """

    work: float
    payload: float = 0.0
    encode: float = 0.0
    decode: float = 0.0


@dataclasses.dataclass(frozen=True)
class Workload:
    """A way to compute `F_Conv` on `k + r` devices.

    Attributes:
      quorum: the sets of results that end the wait. `"any_k"` stands for a code, of
        stages or of every convolution by itself (CoCoI, 2025); `"one_of_each"` for
        replication; `"all_data"` for pieces without a code.
      k, r: data pieces, and pieces that are sent beside them.
      round_trips: in their order; each begins when the one before has ended.
      hedge_after: seconds from sending, in every round trip, after which a missing
        piece is sent once more, with new draws, to the device that was or will be the
        first to finish. That device may compute several at a time, which is the best
        that can be hoped for. Infinite where requests are not hedged.
      systematic: whether a code decodes nothing if all data pieces have arrived.
      client_seconds: that the client computes by itself.

    Raises:
      ValueError: a value is out of range, or would have no effect.
    """

    quorum: Quorum
    k: int
    r: int
    round_trips: tuple[RoundTrip, ...]
    hedge_after: float = math.inf
    systematic: bool = True
    client_seconds: float = 0.0

    def __post_init__(self) -> None:
        require("k", self.k, self.k >= 1, "1 or more")
        name, copies = self.quorum
        require("r", self.r, self.r >= 0, "0 or more")
        require("r", self.r, self.r == 0 or name != ALL_DATA.name, "0 with all_data")
        fits = copies is None or len(copies) == self.n
        require("quorum", self.quorum, fits, f"that of k + r = {self.n} queries")
        trips = self.round_trips
        require("round_trips", trips, len(trips) > 0, "one or more")
        for trip in trips:
            fits = trip.work > 0 and all(0 <= value < math.inf for value in trip)
            accepted = "finite work above 0, the others 0 or more,"
            require("round_trips", trip, fits, accepted)
            fits = self.coded or trip.decode == 0
            require("decode", trip.decode, fits, f"0 with {name}")
        fits = self.hedge_after == math.inf or (
            name == ALL_DATA.name and self.hedge_after >= 0
        )
        accepted = "0 or more with all_data, inf with the others,"
        require("hedge_after", self.hedge_after, fits, accepted)
        seconds = self.client_seconds
        require("client_seconds", seconds, 0 <= seconds < math.inf, "0 or more")

    @property
    def n(self) -> int:
        """Number of devices."""
        return self.k + self.r

    @property
    def coded(self) -> bool:
        """Says whether a missing data piece is decoded from other results."""
        return decodes(self.quorum)

    @property
    def hedged(self) -> bool:
        """Says whether missing pieces are sent once more."""
        return self.hedge_after < math.inf


class Draws(NamedTuple):
    """Random times of R requests: float32 `[n, R]`, or `[n, 1]` where all are alike.

    Attributes:
      compute: seconds that each device would need for the whole `F_Conv`.
      delay: seconds by which its results are late; infinite for a dead device.
      compute_again, delay_again: those of a piece that is sent once more.
    """

    compute: jax.Array
    delay: jax.Array
    compute_again: jax.Array
    delay_again: jax.Array


class Completion(NamedTuple):
    """The end of R requests.

    Attributes:
      seconds: float32 `[R]`, until the features are complete; infinite if too few
        results ever arrive.
      available: int32 `[R]`, `sum(arrived * 2^i)` over the results of the first round
        trip, when its wait was over. A hedged piece has arrived, whoever computed it.
    """

    seconds: jax.Array
    available: jax.Array


def complete(workload: Workload, bandwidth: float, draws: Draws) -> Completion:
    """Computes when R requests are complete.

    Device i returns its result after `work compute_i + delay_i + payload / bandwidth`,
    in every round trip: the same draws hold for all of them.

    Args:
      workload: on the first `workload.n` devices.
      bandwidth: bytes per second.
      draws: of the devices.
    """
    after = workload.hedge_after if workload.hedged else None
    rule = _Rule(workload.quorum, workload.k, workload.systematic)
    total, arrived = jnp.float32(workload.client_seconds), []
    for trip in workload.round_trips:
        send = trip.payload / bandwidth
        times = _arrivals(workload.n, draws, trip.work, send, after)
        total, available = _wait(rule, times, total, trip.encode, trip.decode)
        arrived.append(available)
    return Completion(total, arrived[0])


class _Rule(NamedTuple):
    """The part of a workload that a program is compiled for."""

    quorum: Quorum
    k: int
    systematic: bool


# Two programs, so that all comparisons are of times that were rounded once: in one, XLA
# computes them anew, and otherwise, wherever they are used.
@functools.partial(jax.jit, static_argnames="n")
def _arrivals(
    n: int, draws: Draws, fraction: float, send: float, hedge_after: float | None
) -> list[jax.Array]:
    """Returns seconds from sending until each of the n results arrives, `[R]` each."""
    first, second = (
        list((fraction * compute + delay + send)[:n])
        for compute, delay in (draws[:2], draws[2:])
    )
    if hedge_after is None:
        return first
    start = jnp.maximum(functools.reduce(jnp.minimum, first), hedge_after)
    return [jnp.minimum(a, start + b) for a, b in zip(first, second, strict=True)]


@functools.partial(jax.jit, static_argnames="rule")
def _wait(
    rule: _Rule,
    times: list[jax.Array],
    total: jax.Array,
    encode: float,
    decode: float,
) -> tuple[jax.Array, jax.Array]:
    """Returns `total` after one more round trip, and the results that it used."""
    done = waiting_time(rule.quorum, rule.k, times)
    arrived = [(time <= done) & (time < jnp.inf) for time in times]
    bits = [mask.astype(jnp.int32) << i for i, mask in enumerate(arrived)]
    total += encode + done
    if decodes(rule.quorum):
        complete = functools.reduce(jnp.logical_and, arrived[: rule.k])
        total += jnp.where(complete & rule.systematic, 0.0, decode)
    return total, functools.reduce(jnp.bitwise_or, bits)
