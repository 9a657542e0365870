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
      device_price: the client's operations that count besides for each one of a
        device; the more, the less a device does.

    Returns:
      The fastest first.
    """
    total, last = graph.flops(), len(graph.operations)
    weight = rates.client_seconds(device_price)
    cheapest: dict[tuple[int, int], tuple[float, CodedSegment]] = {}  # of all grids
    for segment in found:
        ends = segment.start, segment.end
        cost = rates.round_seconds(segment.trip, queries)
        cost += weight * segment.trip.device_flops
        if ends not in cheapest or cost < cheapest[ends][0]:
            cheapest[ends] = cost, segment
    priced = list(cheapest.values())
    by_start: dict[int, list[int]] = defaultdict(list)
    for number, (_, segment) in enumerate(priced):
        by_start[segment.start].append(number)
    # By cut and rounds the chains that end there, the fastest first, `[L, 4]`: seconds,
    # operations of the client, number of the last segment, and the row of the chain
    # before it in the front at its start.
    fronts: dict[tuple[int, int], np.ndarray] = {}
    arriving: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    arriving[0, 0].append(np.array([[0.0, 0.0, -1.0, 0.0]]))
    before = 0
    for cut in sorted({0, last, *(cut for ends in cheapest for cut in ends)}):
        flops = graph.flops(before, cut)
        by_client = [rates.client_seconds(flops), flops, 0, 0]
        for rounds in range(most_rounds + 1):
            chains = arriving.pop((cut, rounds), [])
            if cut and (before, rounds) in fronts:
                chains.append(fronts[before, rounds] + by_client)
            if not chains:
                continue
            fronts[cut, rounds] = front = _best(np.concatenate(chains))
            for number in by_start[cut] if rounds < most_rounds else ():
                cost, segment = priced[number]
                longer = front + [cost, 0, 0, 0]
                longer[:, 2], longer[:, 3] = number, range(len(front))
                arriving[segment.end, rounds + 1].append(longer)
        before = cut

    def segments_of(cut: int, rounds: int, place: int) -> tuple[CodedSegment, ...]:
        if not rounds:
            return ()
        *_, number, place = map(int, fronts[cut, rounds][place])
        segment = priced[number][1]
        return (*segments_of(segment.start, rounds - 1, place), segment)

    chains = []
    for rounds in range(1, most_rounds + 1):
        for place, row in enumerate(fronts.get((last, rounds), ())):
            segments = segments_of(last, rounds, place)
            device = sum(segment.trip.device_flops for segment in segments)
            seconds, coded = float(row[0]) - weight * device, 1 - float(row[1]) / total
            chains.append(Chain(segments, seconds, coded, device / total))
    return sorted(chains, key=lambda chain: chain.seconds)


def _best(front: np.ndarray) -> np.ndarray:
    """Returns the chains that no other excels, the fastest first, at most `FRONT`."""
    front = front[np.lexsort((front[:, 1], front[:, 0]))]
    client = front[:, 1]
    least = np.minimum.accumulate(client)
    front = front[np.r_[True, client[1:] < least[:-1] * (1 - 1e-9)]]
    if len(front) > FRONT:  # the ends, and those whose coded parts are spread evenly
        coded = -front[:, 1]
        wanted = np.linspace(coded[0], coded[-1], FRONT)
        front = front[np.unique(np.searchsorted(coded, wanted).clip(0, len(front) - 1))]
    return front
