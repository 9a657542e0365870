"""Latencies of requests on slow and failing devices, with every strategy on the same
draws: what each asks of the devices, and when a request is complete."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes.quorum import waiting_time
from coded_jax.inference.costs import Cost
from coded_jax.latency.machines import Draws, Machine, draws
from coded_jax.types import Quorum

CHUNK = 2**17
"""Requests drawn at once, at most. A million of them, on 6 devices and with five
strategies, take 0.2 s on 2 CPU cores; in chunks of 2^15 or 2^20, twice as long."""

QUANTILES = {"p50": 500, "p99": 990, "p99.9": 999}
"""Names of quantiles, and how many of 1000 requests take no longer."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """A way to compute `F_Conv` on n devices: `k + r`, and spare ones.

    Attributes:
      quorum: the sets of results that end the wait. `"any_k"` stands for a code, of
        stages or of every convolution by itself (CoCoI, 2025); `"one_of_each"` for
        replication; `"all_data"` for pieces without a code.
      k, r: data pieces, and pieces that are sent beside them; no pieces at all where
        the client computes everything.
      cost: its record; `decode_flops`, none without a code, count in a round where a
        data piece has not arrived.
      hedge_after: for each round, seconds from sending after which a missing piece is
        sent once more, with new draws, to a device that has nothing else to do. Empty
        where requests are not hedged. For pieces without a code alone.
      systematic: whether a code decodes nothing if all data pieces have arrived.
      spares: devices without a piece of their own, which hedged pieces are sent to.
    """

    quorum: Quorum
    k: int
    r: int
    cost: Cost
    hedge_after: tuple[float, ...] = ()
    systematic: bool = True
    spares: int = 0

    @property
    def n(self) -> int:
        """Number of devices."""
        return self.queries + self.spares

    @property
    def queries(self) -> int:
        """Number of pieces that are sent, one to a device."""
        return self.k + self.r


class Latencies(NamedTuple):
    """Latencies of R requests.

    Attributes:
      seconds: float32 `[R]`, until the features are complete; infinite if too few
        results ever arrive.
      available: int32 `[R]`, `sum(arrived * 2^i)` over the results that had arrived
        when the wait was over: of the round in which most data pieces were missing, and
        of equals the first. A hedged piece has arrived, whoever computed it.
    """

    seconds: jax.Array | np.ndarray
    available: jax.Array | np.ndarray


def simulate(
    key: jax.Array,
    n: int,
    requests: int,
    machine: Machine,
    workloads: Sequence[Workload],
) -> list[Latencies]:
    """Simulates R requests with every workload, on the same draws.

    Args:
      key: of the draws.
      n: devices; each workload uses the first of them.
      requests: R.
      machine: the devices.
      workloads: one or more.

    Returns:
      Arrays of NumPy.
    """
    chunks = -(-requests // CHUNK)
    size = -(-requests // chunks)
    twice = max(len(workload.hedge_after) for workload in workloads)
    parts: list[list[Latencies]] = []
    for chunk in range(chunks):
        draws_of = draws(jax.random.fold_in(key, chunk), n, size, machine, twice)
        parts.append([complete(own, machine, draws_of) for own in workloads])

    def joined(arrays: tuple) -> np.ndarray:
        whole = [np.broadcast_to(array, size) for array in arrays]
        return np.concatenate(whole)[:requests]

    return [
        Latencies(*map(joined, zip(*completed, strict=True)))
        for completed in zip(*parts, strict=True)
    ]


def summary(seconds: np.ndarray) -> dict[str, float]:
    """Returns statistics of latencies.

    Args:
      seconds: float32 `[R]`, as of `Latencies`.

    Returns:
      Those of `QUANTILES`, the least time within which that share of all requests is
      complete, infinite if that share never is; and `gap`, the last one less the first
      (Kosaian et al. 2019).
    """
    ranks = [-(-len(seconds) * share // 1000) - 1 for share in QUANTILES.values()]
    ordered = np.partition(seconds, ranks)[ranks].tolist()
    gap = ordered[-1] - ordered[0] if ordered[-1] < math.inf else math.inf
    return {**dict(zip(QUANTILES, ordered, strict=True)), "gap": gap}


def complete(
    workload: Workload, machine: Machine, draws_of: Callable[[int], Draws]
) -> Latencies:
    """Computes when R requests are complete; without rounds, scalars for all of them.

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
      machine: the fixed speeds; what it draws is in `draws_of`.
      draws_of: number of a round, from 0 -> draws of the devices in it.
    """
    cost, k = workload.cost, workload.k
    by_client = machine.client / cost.whole_flops
    total, available = jnp.float32(cost.client_flops * by_client), None
    idle_from = [jnp.float32(0.0)] * workload.n
    sending = [(i + 1) * machine.message for i in range(workload.queries)]
    for i, trip in enumerate(cost.rounds):
        there, back = machine.ways(trip)
        back += machine.message
        # Infinite where a round before was never complete.
        sent = total + trip.encode_flops * by_client
        ways = [there + seconds for seconds in sending]
        work = trip.device_flops / cost.whole_flops
        begun = _begin(sent, idle_from, draws_of(i), ways=ways, work=work, back=back)
        if workload.hedge_after:
            after = max(workload.hedge_after[i], sending[-1])
            arrivals, copies = _hedge(
                begun, after=after, there=there, message=machine.message
            )
            begun = begun._replace(arrivals=arrivals, copies=copies)
        decode = trip.decode_flops * by_client
        decodes = (0.0 if workload.systematic else decode, decode)
        done, total, available = _end(
            sent, begun, available, quorum=workload.quorum, k=k, decodes=decodes
        )
        if i + 1 < len(cost.rounds):
            idle_from = _idle_from(idle_from, sent, begun, done, back)
    return Latencies(total, jnp.int32(0) if available is None else available)


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


class _Round(NamedTuple):
    """A round that has begun, in seconds from its sending.

    Attributes:
      begun: until each device begins its piece.
      results: until the result of each device is there.
      again: of each piece, from when it is begun once more until it is there.
      busy: until each spare device has ended what it had begun before.
      dead: whether each spare device never answers.
      arrivals: until the client has taken each piece, whoever has computed it; none
        where `results` are all that comes.
      copies: what is sent once more, in the order in which it is.
    """

    begun: Rows
    results: Rows
    again: Rows
    busy: Rows
    dead: Rows
    arrivals: Rows = []
    copies: list[_Copy] = []


@jax.jit
def _begin(
    sent: jax.Array,
    idle_from: Rows,
    draws: Draws,
    *,
    ways: list[float],
    work: float,
    back: float,
) -> _Round:
    """Begins a round: a device its piece, once it is idle and the piece is there."""
    queries, n = len(ways), len(idle_from)
    idle = [time - sent for time in idle_from]
    begun = [jnp.maximum(*both) for both in zip(idle, ways, strict=False)]
    first = work * draws.compute + draws.delay + back
    again = work * draws.compute_again + draws.delay_again + back
    results = [x + y for x, y in zip(begun, first, strict=False)]
    dead = list(draws.delay[queries:n] == jnp.inf)
    return _Round(begun, results, list(again[:queries]), idle[queries:], dead)


@jax.jit
def _hedge(
    begun: _Round, *, after: float, there: float, message: float
) -> tuple[Rows, list[_Copy]]:
    """Returns `arrivals` and `copies` of a round whose pieces are hedged.

    As soon as a device has nothing left to do in this round, but not before `after`, it
    is sent the first piece that is missing and was not yet sent once more, as
    `service.gathering` does; of those that are idle at once, spare devices come first.
    """
    first, spares, never = begun.results, len(begun.busy), jnp.float32(jnp.inf)
    pieces = range(len(first))
    # Whoever has answered is idle, and not dead.
    devices = [*range(len(first), len(first) + spares), *pieces]
    idle = [jnp.float32(0.0)] * spares + first
    busy = begun.busy + [jnp.float32(0.0)] * len(first)
    dead = begun.dead + [jnp.bool_(False)] * len(first)
    arrivals, resent = [*first], [jnp.bool_(False)] * len(first)
    copies = []
    for _ in pieces:  # in each turn one is sent, or none is missing
        soonest = functools.reduce(jnp.minimum, idle)
        begin = jnp.maximum(soonest, after)
        helper = _first_of([time == soonest for time in idle])
        piece = _first_of([(first[i] > begin) & ~resent[i] for i in pieces])
        start = jnp.maximum(begin + there, _chosen(helper, busy))
        lost, result = _chosen(helper, dead), never
        for i in pieces:
            end = jnp.where(piece[i] & ~lost, start + begun.again[i], never)
            arrivals[i] = jnp.minimum(arrivals[i], end)
            result = jnp.minimum(result, end)
            resent[i] |= piece[i]
        pairs = zip(helper, idle, strict=True)
        idle = [jnp.where(helps, result, time) for helps, time in pairs]
        sent = jnp.where(functools.reduce(jnp.logical_or, piece), begin, never)
        device = _chosen(helper, [jnp.int32(i) for i in devices])
        copies.append(_Copy(sent, start, result, device))
    # Before it takes a result, the client sends once more what it has begun to.
    behind = lambda time: sum((x.sent < time).astype(jnp.float32) for x in copies)
    return [time + message * behind(time) for time in arrivals], copies


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
    pairs = zip(masks, values, strict=True)
    return functools.reduce(jnp.add, [jnp.where(mask, x, nothing) for mask, x in pairs])


@functools.partial(jax.jit, static_argnames=("quorum", "k"))
def _end(
    sent: jax.Array,
    begun: _Round,
    before: jax.Array | None,
    *,
    quorum: Quorum,
    k: int,
    decodes: tuple[float, float],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ends a round when its results suffice.

    Args:
      sent: seconds of the request until the round was sent.
      begun: the round.
      before: `Latencies.available` of the rounds before; None in the first one.
      quorum, k: of the workload.
      decodes: seconds of the decoder where all data pieces are there, and elsewhere.

    Returns:
      Seconds of the round until its results suffice, those of the request until they
      are decoded, and `Latencies.available` up to this round.
    """
    arrivals = begun.arrivals or begun.results
    done = waiting_time(quorum, k, arrivals)
    arrived = [(time <= done) & (time < jnp.inf) for time in arrivals]
    complete = functools.reduce(jnp.logical_and, arrived[:k])
    total = sent + done + jnp.where(complete, *decodes)
    bits = [mask.astype(jnp.int32) << i for i, mask in enumerate(arrived)]
    available = functools.reduce(jnp.bitwise_or, bits)
    if before is not None:
        data = lambda bits: jax.lax.population_count(bits & (2**k - 1))
        available = jnp.where(data(available) < data(before), available, before)
    return done, total, available


@jax.jit
def _idle_from(
    before: Rows, sent: jax.Array, begun: _Round, done: jax.Array, back: float
) -> Rows:
    """Returns the times at which devices are idle again from pieces that they began
    before the round was over; a piece that is never done blocks nothing."""

    def idle(wait: jax.Array, time: jax.Array, otherwise: jax.Array) -> jax.Array:
        ended = sent + time
        counts = (wait < done) & (ended < jnp.inf)
        return jnp.where(counts, ended - back, otherwise)

    n = len(begun.results)
    times = [*map(idle, begun.begun, begun.results, before[:n]), *before[n:]]
    for copy in begun.copies:  # those of one device one after the other
        times = [
            jnp.where(copy.device == i, idle(copy.begun, copy.there, time), time)
            for i, time in enumerate(times)
        ]
    return times
