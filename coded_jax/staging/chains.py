"""Chains of segments of least cost, by dynamic programming over the cuts.

A chain alternates between segments, one round each, and what the client computes
between them. Its seconds are a sum over both, so that the best chain up to a cut goes
on as any other; of two chains of as many rounds that end there one is left out if the
other takes no more seconds and leaves no more operations to the client.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from coded_jax.inference.rates import Rates
from coded_jax.staging.graph import Graph
from coded_jax.staging.segments import CodedSegment

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
    graph: Graph,
    found: Iterable[CodedSegment],
    *,
    rates: Rates,
    queries: int,
    most_rounds: int,
    device_price: float = 0.0,
) -> list[Chain]:
    """Returns chains that none of as many rounds excels in seconds and coded part.

    Args:
      graph: the network.
      found: its segments.
      rates: the speeds.
      queries: pieces that are sent in a round.
      most_rounds: of a chain.
      device_price: seconds that count besides for a device's operations, times these
        over those of the network; the larger, the less a device does.

    Returns:
      The fastest first.
    """
    total, last = graph.flops(), len(graph.operations)
    weight = device_price / total
    cheapest: dict[tuple[int, int], tuple[float, CodedSegment]] = {}
    for segment in found:
        cost = rates.round_seconds(segment.trip, queries)
        cost += weight * segment.trip.device_flops
        others = cheapest.get((segment.start, segment.end))
        if others is None or cost < others[0]:
            cheapest[segment.start, segment.end] = cost, segment
    chosen = [segment for _, segment in cheapest.values()]
    by_start: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for number, (cost, segment) in enumerate(cheapest.values()):
        by_start[segment.start].append((number, cost))
    fronts: dict[tuple[int, int], _Front] = {}  # by cut and rounds
    pending: dict[tuple[int, int], list[_Front]] = defaultdict(list)
    zero = np.zeros(1)
    pending[0, 0] = [_Front(zero, zero, np.array([-1]), np.array([0]))]
    before = 0
    for cut in sorted({0, last, *by_start, *(segment.end for segment in chosen)}):
        flops = graph.flops(before, cut)
        for rounds in range(most_rounds + 1):
            arrived = pending.pop((cut, rounds), [])
            if (before, rounds) in fronts and cut:
                moved = fronts[before, rounds]
                seconds = moved.seconds + rates.client_seconds(flops)
                client = moved.client + flops
                arrived.append(moved._replace(seconds=seconds, client=client))
            if not arrived:
                continue
            fronts[cut, rounds] = front = _best(arrived)
            if rounds == most_rounds:
                continue
            places = np.arange(len(front.seconds))
            for number, cost in by_start.get(cut, ()):
                later = _Front(
                    seconds=front.seconds + cost,
                    client=front.client,
                    last=np.full(len(places), number),
                    before=places,
                )
                pending[chosen[number].end, rounds + 1].append(later)
        before = cut
    chains = []
    for rounds in range(1, most_rounds + 1):
        if (front := fronts.get((last, rounds))) is None:
            continue
        for place, seconds in enumerate(front.seconds.tolist()):
            segments = _back(fronts, chosen, (last, rounds), place)
            device = sum(segment.trip.device_flops for segment in segments)
            coded = 1 - float(front.client[place]) / total
            seconds -= weight * device
            chains.append(Chain(segments, seconds, coded, device / total))
    return sorted(chains, key=lambda chain: chain.seconds)


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
    end: tuple[int, int],
    place: int,
) -> tuple[CodedSegment, ...]:
    """Returns the segments of a chain of the front at an end, walking back from it."""
    segments: list[CodedSegment] = []
    cut, rounds = end
    while rounds:
        front = fronts[cut, rounds]
        segment = chosen[front.last[place]]
        segments.append(segment)
        place, cut, rounds = int(front.before[place]), segment.start, rounds - 1
    return tuple(segments[::-1])
