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
        require("k", self.k, self.k >= 1, "1 or more")
        name, copies = self.quorum
        require("r", self.r, self.r >= 0, "0 or more")
        require("r", self.r, self.r == 0 or name != ALL_DATA.name, "0 with all_data")
        fits = copies is None or len(copies) == self.queries
        accepted = f"that of k + r = {self.queries} queries"
        require("quorum", self.quorum, fits, accepted)
        fits = self.spares == 0 or (self.spares > 0 and name == ALL_DATA.name)
        require("spares", self.spares, fits, "0 or more with all_data, 0 with others")
        require("cost", self.cost, len(self.cost.rounds) > 0, "one of a round or more")
        client, whole = self.cost.client_flops, self.cost.whole_flops
        fits = 0 <= client < math.inf and 0 < whole < math.inf
        require("cost", self.cost, fits, "one of finite operations")
        for trip in self.cost.rounds:
            fits = trip.device_flops > 0 and all(0 <= x < math.inf for x in trip)
            accepted = "one of finite operations of a device, the rest 0 or more,"
            require("cost", trip, fits, accepted)
            fits = self.coded or trip.decode_flops == 0
            require("decode_flops", trip.decode_flops, fits, f"0 with {name}")
        fits = self.hedge_after == math.inf or (
            name == ALL_DATA.name and min(self.hedges) >= 0
        )
        accepted = "0 or more with all_data, inf with the others,"
        require("hedge_after", self.hedge_after, fits, accepted)
        fits = len(self.hedges) == len(self.cost.rounds)
        require("hedge_after", self.hedge_after, fits, "as many as rounds, or one,")

    @property
    def n(self) -> int:
        """Number of devices."""
        return self.queries + self.spares

    @property
    def queries(self) -> int:
        """Number of pieces that are sent, one to a device."""
        return self.k + self.r

    @property
    def coded(self) -> bool:
        """Returns whether a missing data piece is decoded from other results."""
        return decodes(self.quorum)

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
    cost = workload.cost
    rule = _Rule(workload.quorum, workload.k, workload.systematic)
    by_client = machine.client / cost.whole_flops
    total, available = jnp.float32(cost.client_flops * by_client), None
    free, own = [jnp.float32(0.0)] * workload.n, slice(workload.queries)
    for i, trip in enumerate(cost.rounds):
        there, back = machine.ways(trip)
        back += machine.message
        work = trip.device_flops / cost.whole_flops
        sending = [(j + 1) * machine.message for j in range(workload.queries)]
        ways = [there + seconds for seconds in sending]
        sent, waits = _send(total, trip.encode_flops * by_client, free[own], ways)
        draws = draws_of(i)
        first, again = _arrivals(workload.queries, draws, work, back, waits)
        times, copies = first, []
        if workload.hedged:
            after = max(workload.hedges[i], sending[-1])
            others = slice(workload.queries, workload.n)
            spares = _spares(free[others], draws.delay[others], sent)
            times, copies = _hedge(first, again, spares, after, there)
            if machine.message:
                times = _behind(times, copies, machine.message)
        end = _wait(rule, times, sent, trip.decode_flops * by_client)
        total = end.total
        if i + 1 < len(cost.rounds):
            free[own] = _free(free[own], waits, first, sent, end.done, back)
            if copies:
                free = _free_of_copies(free, copies, sent, end.done, back)
        if available is None:
            available = end.arrived
        else:
            available = _fewer(workload.k, available, end.arrived)
    assert available is not None  # there are rounds
    return Completion(total, available)


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
        into, out = (size / self.bandwidth for size in trip[1:3])
        return into + self.link / 2, out + self.link / 2


class _Rule(NamedTuple):
    """The part of a workload that a program is compiled for."""

    quorum: Quorum
    k: int
    systematic: bool


class _Spare(NamedTuple):
    """A device without a piece of its own in a round, `[R]` each.

    Attributes:
      busy: seconds from sending until it has ended what it had begun before.
      dead: whether it never answers.
    """

    busy: jax.Array
    dead: jax.Array


class _Copy(NamedTuple):
    """A piece that is sent once more in a round, `[R]` each.

    Attributes:
      sent: seconds from the sending of the round until it is; infinite if it is not.
      begun: likewise, until its device begins it.
      there: likewise, until its result is there; infinite where the device is dead.
      by: int32, the device that begins it, of the n with pieces first.
    """

    sent: jax.Array
    begun: jax.Array
    there: jax.Array
    by: jax.Array


class _End(NamedTuple):
    """The end of a round, `[R]` each.

    Attributes:
      total: seconds of the request until then, with what is decoded.
      done: seconds from sending until the results sufficed.
      arrived: int32, the results by then, as bits.
    """

    total: jax.Array
    done: jax.Array
    arrived: jax.Array


@jax.jit
def _send(
    total: jax.Array, encode: float, free: list[jax.Array], ways: list[float]
) -> tuple[jax.Array, list[jax.Array]]:
    """Returns the time at which a round is sent, and the seconds after it at which each
    device begins its piece: once it is free and the piece has arrived."""
    sent = total + encode
    answered = sent < jnp.inf  # not so where a round before was never complete
    return sent, [
        jnp.where(answered, jnp.maximum(time - sent, way), way)
        for time, way in zip(free, ways, strict=True)
    ]


# Several programs, so that all comparisons are of times that were rounded once: in one,
# XLA computes them anew, and otherwise, wherever they are used.
@functools.partial(jax.jit, static_argnames="n")
def _arrivals(
    n: int, draws: Draws, fraction: float, back: float, waits: list[jax.Array]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns seconds from sending until the result of each device is there, and those
    from when its piece is begun once more until then; `[R]` each."""
    first, second = (
        list((fraction * compute + delay + back)[:n])
        for compute, delay in (draws[:2], draws[2:])
    )
    return [wait + time for wait, time in zip(waits, first, strict=True)], second


@jax.jit
def _spares(free: list[jax.Array], delays: jax.Array, sent: jax.Array) -> list[_Spare]:
    """Returns the spare devices."""
    return [
        _Spare(time - sent, late == jnp.inf)
        for time, late in zip(free, delays, strict=True)
    ]


@jax.jit
def _hedge(
    first: list[jax.Array],
    second: list[jax.Array],
    spares: list[_Spare],
    after: float,
    there: float,
) -> tuple[list[jax.Array], list[_Copy]]:
    """Returns seconds until each piece has arrived, whoever has computed it, and what
    is sent once more, in the order in which it is.

    As soon as a device has nothing left to do in this round, but not before `after`, it
    is sent the first piece that is missing and was not yet sent once more, as
    `service.gathering` does; of those that are idle at once, spare devices come first.
    """
    never, nothing = jnp.float32(jnp.inf), jnp.float32(0.0)
    idle = [nothing] * len(spares) + first
    answering = _Spare(nothing, jnp.bool_(False))  # who is idle has answered
    devices = [*spares, *[answering] * len(first)]
    own, n = range(len(first)), len(devices)
    places = [*range(len(own), n), *own]
    times, again, copies = [*first], [jnp.bool_(False)] * len(first), []
    for _ in first:  # in each turn a piece is sent, or none is missing
        soonest = functools.reduce(jnp.minimum, idle)
        begin = jnp.maximum(soonest, after)
        found, by = jnp.bool_(False), jnp.int32(0)
        busy, dead = nothing, jnp.bool_(False)
        for place, time, device in zip(places, idle, devices, strict=True):
            one = (time == soonest) & jnp.logical_not(found)
            found, by = found | one, jnp.where(one, place, by)
            busy, dead = jnp.where(one, device.busy, busy), dead | (one & device.dead)
        begun, given, arrives = jnp.maximum(begin + there, busy), False, never
        for i, time in enumerate(first):
            give = (time > begin) & jnp.logical_not(again[i] | given)
            again[i], given = again[i] | give, given | give
            end = jnp.where(give & jnp.logical_not(dead), begun + second[i], never)
            arrives = jnp.minimum(arrives, end)
            times[i] = jnp.minimum(times[i], end)
        idle = [
            jnp.where(by == place, arrives, time)
            for place, time in zip(places, idle, strict=True)
        ]
        copies.append(_Copy(jnp.where(given, begin, never), begun, arrives, by))
    return times, copies


@jax.jit
def _behind(
    times: list[jax.Array], copies: list[_Copy], message: float
) -> list[jax.Array]:
    """Returns seconds until each piece is taken by a client that first sends once more
    what it has begun to."""
    return [
        time + message * sum((copy.sent < time).astype(jnp.float32) for copy in copies)
        for time in times
    ]


@functools.partial(jax.jit, static_argnames="rule")
def _wait(rule: _Rule, times: list[jax.Array], sent: jax.Array, decode: float) -> _End:
    done = waiting_time(rule.quorum, rule.k, times)
    arrived = [(time <= done) & (time < jnp.inf) for time in times]
    bits = [mask.astype(jnp.int32) << i for i, mask in enumerate(arrived)]
    total = sent + done
    if decodes(rule.quorum):
        complete = functools.reduce(jnp.logical_and, arrived[: rule.k])
        total += jnp.where(complete & rule.systematic, 0.0, decode)
    return _End(total, done, functools.reduce(jnp.bitwise_or, bits))


@jax.jit
def _free(
    free: list[jax.Array],
    waits: list[jax.Array],
    first: list[jax.Array],
    sent: jax.Array,
    done: jax.Array,
    back: float,
) -> list[jax.Array]:
    """Returns the times at which devices are free again from pieces that they began
    before the round was over; a piece that is never done blocks nothing."""
    return [
        jnp.where((wait < done) & (sent + time < jnp.inf), sent + time - back, before)
        for before, wait, time in zip(free, waits, first, strict=True)
    ]


@jax.jit
def _free_of_copies(
    free: list[jax.Array],
    copies: list[_Copy],
    sent: jax.Array,
    done: jax.Array,
    back: float,
) -> list[jax.Array]:
    """Returns the times at which devices are free again also from the second copies of
    pieces that they began."""
    for copy in copies:  # those of one device one after the other
        ended = sent + copy.there
        counts = (copy.begun < done) & (ended < jnp.inf)
        free = [
            jnp.where(counts & (copy.by == place), ended - back, time)
            for place, time in enumerate(free)
        ]
    return free


@functools.partial(jax.jit, static_argnames="k")
def _fewer(k: int, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the results of the round that had fewer data pieces, else the first."""
    data = lambda arrived: jax.lax.population_count(arrived & (2**k - 1))
    return jnp.where(data(second) < data(first), second, first)
