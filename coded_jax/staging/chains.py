"""Chains of segments of least cost, by dynamic programming over the cuts.

A chain alternates between segments, one round each, and what the client computes
between them. Its seconds are a sum over both, so that the best chain up to a cut goes
on as any other; of two chains of as many rounds that end there one is left out if the
other takes no more seconds and leaves no more operations to the client.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from coded_jax.inference.costs import Round
from coded_jax.inference.rates import Rates
from coded_jax.staging.segments import CodedSegment, Work

FRONT = 128
"""Chains that are kept for a cut and number of rounds; others lie between them."""


class Chain(NamedTuple):
    """Segments of a network, in their order.

    Attributes:
      segments: the coded ones; the client computes what lies between them.
      seconds: of an inference that nothing delays, losses decoded.
      coded: the part of the operations that is coded.
      device: operations of the busiest device, over those of the network.
    """

    segments: tuple[CodedSegment, ...]
    seconds: float
    coded: float
    device: float


class _Front(NamedTuple):
    """Chains up to a cut, none of which excels another, the fastest first.

    Attributes:
      seconds, client: of each, `[L]`: its time, and operations that are not coded.
      last: number of its last segment, `[L]`; -1 without one.
      before: place of the chain before that segment in the front at its start, `[L]`.
    """

    seconds: np.ndarray
    client: np.ndarray
    last: np.ndarray
    before: np.ndarray


def best_chains(
    found: Iterable[CodedSegment],
    work: Work,
    last: int,
    rates: Rates,
    queries: int,
    most_rounds: int,
    device_price: float = 0.0,
) -> list[Chain]:
    """Returns chains that none of as many rounds excels in seconds and coded part.

    Args:
      found: the segments.
      work: of the network.
      last: number of operations of the network.
      rates: the speeds.
      queries: pieces that are sent in a round.
      most_rounds: of a chain.
      device_price: seconds that count besides for a device's operations, times these
        over those of the network; the larger, the less a device does.

    Returns:
      The fastest first.
    """
    total = work.whole(0, last)
    weight = device_price / total
    cost = lambda trip: rates.round_seconds(trip, queries) + weight * trip.device_flops
    chosen, trips = _fastest(found, cost)
    by_start: dict[int, list[int]] = defaultdict(list)
    for number, segment in enumerate(chosen):
        by_start[segment.start].append(number)
    ends = {segment.end for segment in chosen}
    fronts: dict[tuple[int, int], _Front] = {}  # by cut and rounds
    pending: dict[tuple[int, int], list[_Front]] = defaultdict(list)
    zero = np.zeros(1)
    pending[0, 0] = [_Front(zero, zero, np.array([-1]), np.array([0]))]
    before = 0
    for cut in sorted({0, last, *by_start, *ends}):
        flops = work.whole(before, cut)
        for rounds in range(most_rounds + 1):
            arrived = pending.pop((cut, rounds), [])
            if (before, rounds) in fronts and cut:
                moved = fronts[before, rounds]
                seconds = moved.seconds + rates.client_seconds(flops)
                arrived.append(
                    moved._replace(seconds=seconds, client=moved.client + flops)
                )
            if not arrived:
                continue
            fronts[cut, rounds] = front = _best(arrived)
            if rounds == most_rounds:
                continue
            for number in by_start.get(cut, ()):
                same = np.full(len(front.seconds), number)
                pending[chosen[number].end, rounds + 1].append(
                    _Front(
                        front.seconds + trips[number],
                        front.client,
                        same,
                        np.arange(len(same)),
                    )
                )
        before = cut
    chains = []
    for rounds in range(1, most_rounds + 1):
        front = fronts.get((last, rounds))
        for place in range(0 if front is None else len(front.seconds)):
            segments = _back(fronts, chosen, last, rounds, place)
            seconds, client = (float(x[place]) for x in front[:2])
            device = sum(segment.trip.device_flops for segment in segments)
            seconds -= weight * device
            chains.append(Chain(segments, seconds, 1 - client / total, device / total))
    return sorted(chains, key=lambda chain: chain.seconds)


def _fastest(
    found: Iterable[CodedSegment], cost: Callable[[Round], float]
) -> tuple[list[CodedSegment], list[float]]:
    """Returns the cheapest segment between any two cuts, and the cost of each."""
    best: dict[tuple[int, int], tuple[float, CodedSegment]] = {}
    for segment in found:
        seconds = cost(segment.trip)
        key = segment.start, segment.end
        if key not in best or seconds < best[key][0]:
            best[key] = seconds, segment
    trips, segments = zip(*best.values(), strict=True) if best else ((), ())
    return list(segments), list(trips)


def _best(arrived: list[_Front]) -> _Front:
    """Returns the best chains of several fronts, at most `FRONT` of them."""
    joined = _Front(*map(np.concatenate, zip(*arrived, strict=True)))
    order = np.lexsort((joined.client, joined.seconds))
    client = joined.client[order]
    least = np.minimum.accumulate(client)
    better = np.r_[True, client[1:] < least[:-1] * (1 - 1e-9)]
    kept = order[better]
    if len(kept) > FRONT:  # the ends, and those whose coded parts are spread evenly
        client = -joined.client[kept]
        wanted = np.linspace(client[0], client[-1], FRONT)
        kept = kept[np.unique(np.searchsorted(client, wanted).clip(0, len(kept) - 1))]
    return _Front(*(x[kept] for x in joined))


def _back(
    fronts: dict[tuple[int, int], _Front],
    chosen: list[CodedSegment],
    cut: int,
    rounds: int,
    place: int,
) -> tuple[CodedSegment, ...]:
    """Returns the segments of a chain of a front, walking back from its end."""
    segments: list[CodedSegment] = []
    while rounds:
        front = fronts[cut, rounds]
        segment = chosen[front.last[place]]
        segments.append(segment)
        place, cut, rounds = int(front.before[place]), segment.start, rounds - 1
    return tuple(segments[::-1])
