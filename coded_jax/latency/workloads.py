"""Workloads: what a strategy asks of the devices, and when a request is complete."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.checks import require
from coded_jax.codes.quorum import ALL_DATA, decodes, waiting_time
from coded_jax.inference.costs import Cost, Round
from coded_jax.types import Quorum


@dataclasses.dataclass(frozen=True)
class Workload:
    """A way to compute `F_Conv` on n devices: `k + r`, and spare ones.

    Attributes:
      quorum: the sets of results that end the wait. `"any_k"` stands for a code, of
        stages or of every convolution by itself (CoCoI, 2025); `"one_of_each"` for
        replication; `"all_data"` for pieces without a code.
      k, r: data pieces, and pieces that are sent beside them.
      cost: its record; `decode_flops` count in a round where a data piece has not
        arrived.
      hedge_after: seconds from sending, of all rounds or of each, after which a missing
        piece is sent once more, with new draws, to a device that has nothing else to
        do. Infinite where requests are not hedged.
      systematic: whether a code decodes nothing if all data pieces have arrived.
      spares: devices without a piece of their own, which hedged pieces are sent to.

    Raises:
      ValueError: a value is out of range, or would have no effect.
    """

    quorum: Quorum
    k: int
    r: int
    cost: Cost
    hedge_after: float | tuple[float, ...] = math.inf
    systematic: bool = True
    spares: int = 0

    def __post_init__(self) -> None:
        name, copies = self.quorum
        require("k", self.k, self.k >= 1, "1 or more")
        if name == ALL_DATA.name:
            require("r", self.r, self.r == 0, "0 with all_data")
            fits = len(self.hedges) == len(self.cost.rounds) and min(self.hedges) >= 0
            accepted = "0 or more, one number or as many as rounds,"
        else:
            fits, accepted = not self.hedged, f"inf with {name}"
        require("hedge_after", self.hedge_after, fits, accepted)
        if copies is not None:
            accepted = f"that of k + r = {self.queries} queries"
            require("quorum", self.quorum, len(copies) == self.queries, accepted)

    @property
    def n(self) -> int:
        """Number of devices."""
        return self.queries + self.spares

    @property
    def queries(self) -> int:
        """Number of pieces that are sent, one to a device."""
        return self.k + self.r

    @property
    def hedged(self) -> bool:
        """Returns whether missing pieces are sent once more."""
        return self.hedge_after != math.inf

    @property
    def hedges(self) -> tuple[float, ...]:
        """Seconds of `hedge_after` in each round."""
        if isinstance(self.hedge_after, tuple):
            return self.hedge_after
        return (self.hedge_after,) * len(self.cost.rounds)


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
      available: int32 `[R]`, `sum(arrived * 2^i)` over the results that had arrived
        when the wait was over: of the round in which most data pieces were missing, and
        of equals the first. A hedged piece has arrived, whoever computed it.
    """

    seconds: jax.Array
    available: jax.Array


class Speeds(NamedTuple):
    """Speeds that are not drawn.

    Attributes:
      client: seconds that the client needs for the whole `F_Conv`.
      bandwidth: bytes per second between a device and the client.
      link: seconds that every round trip takes besides.
      message: seconds of the client for each message that it sends or takes.
    """

    client: float
    bandwidth: float = math.inf
    link: float = 0.0
    message: float = 0.0

    def ways(self, trip: Round) -> tuple[float, float]:
        """Returns the seconds that a piece takes to its device, and a result back."""
        there, back = (x / self.bandwidth for x in (trip.bytes_in, trip.bytes_out))
        return there + self.link / 2, back + self.link / 2


def complete(
    workload: Workload, machine: Speeds, draws_of: Callable[[int], Draws]
) -> Completion:
    """Computes when R requests are complete.

    Device i returns its result after `work compute_i + delay_i + bytes / bandwidth +
    link`, in every round, with the part of `F_Conv` that it has in the round as `work`,
    and half of `link` for each way; the client needs its part of `client` seconds for
    whatever it computes. A device that nobody has waited for goes on with its piece,
    and begins that of the next round when it is done, not when its result has arrived;
    a piece that it has not begun is dropped when its round is over. So it is with
    pieces that are sent once more. Nobody knows that a spare device is dead, or busy
    with such a piece of a former round: it is sent one like the others.

    The client sends its pieces one after the other, `message` seconds each, and takes
    as long for each result; what it sends once more comes after all of them, and keeps
    it from taking others.

    Args:
      workload: on the first `workload.n` devices.
      machine: the speeds.
      draws_of: number of a round, from 0 -> draws of the devices in it.
    """
    cost, queries = workload.cost, workload.queries
    by_client = machine.client / cost.whole_flops
    total, available = jnp.float32(cost.client_flops * by_client), None
    idle_from = [jnp.float32(0.0)] * workload.n
    sending = [(i + 1) * machine.message for i in range(queries)]
    for i, trip in enumerate(cost.rounds):
        there, back = machine.ways(trip)
        back += machine.message
        ways = [there + seconds for seconds in sending]
        encode, decode = trip.encode_flops * by_client, trip.decode_flops * by_client
        sent, begun = _send(total, encode, idle_from[:queries], ways)
        draws, work = draws_of(i), trip.device_flops / cost.whole_flops
        first, again = _results(draws, work, back, begun)
        arrivals, copies = first, []
        if workload.hedged:
            delays = draws.delay[queries : workload.n]
            spares = _spares(idle_from[queries:], delays, sent)
            after = max(workload.hedges[i], sending[-1])
            arrivals, copies = _hedge(
                first, again, spares, after=after, there=there, message=machine.message
            )
        done, total, arrived = _wait(
            arrivals,
            sent,
            decode,
            quorum=workload.quorum,
            k=workload.k,
            systematic=workload.systematic,
        )
        if i + 1 < len(cost.rounds):
            idle_from = _idle_from(
                idle_from, begun, first, copies, sent=sent, done=done, back=back
            )
        if available is None:
            available = arrived
        else:
            available = _fewer(workload.k, available, arrived)
    assert available is not None  # there are rounds
    return Completion(total, available)


# Below, devices and pieces are lists of arrays `[R]`, not an axis: XLA's CPU backend
# reduces a leading axis 20 times more slowly than it takes elementwise minima. And
# there are several programs, so that all comparisons are of times that were rounded
# once: in one, XLA computes them anew, and otherwise, wherever they are used.
Rows = list[jax.Array]


class _Copy(NamedTuple):
    """A piece that is sent once more in a round, `[R]` each.

    Attributes:
      sent: seconds from the sending of the round until it is; infinite if it is not.
      begun: likewise, until its device begins it.
      there: likewise, until its result is there; infinite where the device is dead.
      device: int32, the one that begins it.
    """

    sent: jax.Array
    begun: jax.Array
    there: jax.Array
    device: jax.Array


class _Spares(NamedTuple):
    """Devices without a piece of their own in a round.

    Attributes:
      busy: seconds from sending until each has ended what it had begun before.
      dead: whether it never answers.
    """

    busy: Rows
    dead: Rows


@jax.jit
def _send(
    total: jax.Array, encode: float, idle_from: Rows, ways: list[float]
) -> tuple[jax.Array, Rows]:
    """Returns the time at which a round is sent, and the seconds after it at which each
    device begins its piece: once it is idle and the piece has arrived."""
    sent = total + encode  # infinite where a round before was never complete
    pairs = zip(idle_from, ways, strict=True)
    return sent, [jnp.maximum(idle - sent, way) for idle, way in pairs]


@jax.jit
def _results(
    draws: Draws, fraction: float, back: float, begun: Rows
) -> tuple[Rows, Rows]:
    """Returns seconds from sending until the result of each device is there, and those
    from when its piece is begun once more until then."""
    first = fraction * draws.compute + draws.delay + back
    again = fraction * draws.compute_again + draws.delay_again + back
    queries = len(begun)
    return [x + y for x, y in zip(begun, first, strict=False)], list(again[:queries])


@jax.jit
def _spares(idle_from: Rows, delays: jax.Array, sent: jax.Array) -> _Spares:
    """Returns the devices that have no piece."""
    return _Spares([idle - sent for idle in idle_from], list(delays == jnp.inf))


@jax.jit
def _hedge(
    first: Rows,
    again: Rows,
    spares: _Spares,
    *,
    after: float,
    there: float,
    message: float,
) -> tuple[Rows, list[_Copy]]:
    """Returns seconds until the client has taken each piece, whoever has computed it,
    and what is sent once more, in the order in which it is.

    As soon as a device has nothing left to do in this round, but not before `after`, it
    is sent the first piece that is missing and was not yet sent once more, as
    `service.gathering` does; of those that are idle at once, spare devices come first.
    """
    pieces, never = range(len(first)), jnp.float32(jnp.inf)
    # Whoever has answered is idle, and not dead.
    devices = [*range(len(first), len(first) + len(spares.busy)), *pieces]
    idle = [jnp.float32(0.0)] * len(spares.busy) + first
    busy = spares.busy + [jnp.float32(0.0)] * len(first)
    dead = spares.dead + [jnp.bool_(False)] * len(first)
    arrivals, resent = [*first], [jnp.bool_(False)] * len(first)
    copies = []
    for _ in pieces:  # in each turn one is sent, or none is missing
        soonest = functools.reduce(jnp.minimum, idle)
        begin = jnp.maximum(soonest, after)
        helper = _first_of([time == soonest for time in idle])
        piece = _first_of([(first[i] > begin) & ~resent[i] for i in pieces])
        begun = jnp.maximum(begin + there, _chosen(helper, busy))
        lost = _chosen(helper, dead)
        result = never
        for i in pieces:
            end = jnp.where(piece[i] & ~lost, begun + again[i], never)
            arrivals[i], result = (
                jnp.minimum(arrivals[i], end),
                jnp.minimum(result, end),
            )
            resent[i] |= piece[i]
        idle = [
            jnp.where(x, result, time) for x, time in zip(helper, idle, strict=True)
        ]
        sent = jnp.where(functools.reduce(jnp.logical_or, piece), begin, never)
        device = _chosen(helper, [jnp.int32(i) for i in devices])
        copies.append(_Copy(sent, begun, result, device))
    # Before it takes a result, the client sends once more what it has begun to.
    behind = [
        sum((copy.sent < x).astype(jnp.float32) for copy in copies) for x in arrivals
    ]
    return [
        x + message * count for x, count in zip(arrivals, behind, strict=True)
    ], copies


def _first_of(masks: Rows) -> Rows:
    """Returns masks of the first of some devices or pieces for which theirs is True."""
    before, firsts = jnp.bool_(False), []
    for mask in masks:
        firsts.append(mask & ~before)
        before |= mask
    return firsts


def _chosen(masks: Rows, values: Rows) -> jax.Array:
    """Returns the value whose mask, of one at most, is True; 0 or False without one."""
    nothing = jnp.zeros((), values[0].dtype)
    chosen = [
        jnp.where(mask, x, nothing) for mask, x in zip(masks, values, strict=True)
    ]
    return functools.reduce(jnp.add, chosen)


@functools.partial(jax.jit, static_argnames=("quorum", "k", "systematic"))
def _wait(
    arrivals: Rows,
    sent: jax.Array,
    decode: float,
    *,
    quorum: Quorum,
    k: int,
    systematic: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns seconds from sending until the results suffice, those of the request
    until they are decoded, and the results by then, as bits."""
    done = waiting_time(quorum, k, arrivals)
    arrived = [(time <= done) & (time < jnp.inf) for time in arrivals]
    bits = [mask.astype(jnp.int32) << i for i, mask in enumerate(arrived)]
    total = sent + done
    if decodes(quorum):
        complete = functools.reduce(jnp.logical_and, arrived[:k])
        total += jnp.where(complete & systematic, 0.0, decode)
    return done, total, functools.reduce(jnp.bitwise_or, bits)


@jax.jit
def _idle_from(
    before: Rows,
    begun: Rows,
    first: Rows,
    copies: list[_Copy],
    *,
    sent: jax.Array,
    done: jax.Array,
    back: float,
) -> Rows:
    """Returns the times at which devices are idle again from pieces that they began
    before the round was over; a piece that is never done blocks nothing."""

    def idle(wait: jax.Array, time: jax.Array, otherwise: jax.Array) -> jax.Array:
        ended = sent + time
        counts = (wait < done) & (ended < jnp.inf)
        return jnp.where(counts, ended - back, otherwise)

    n = len(first)
    times = [*map(idle, begun, first, before[:n]), *before[n:]]
    for copy in copies:  # those of one device one after the other
        times = [
            jnp.where(copy.device == i, idle(copy.begun, copy.there, time), time)
            for i, time in enumerate(times)
        ]
    return times


@functools.partial(jax.jit, static_argnames="k")
def _fewer(k: int, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the results of the round that had fewer data pieces, else the first."""
    data = lambda arrived: jax.lax.population_count(arrived & (2**k - 1))
    return jnp.where(data(second) < data(first), second, first)
