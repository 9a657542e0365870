"""Chains of segments of least cost, by dynamic programming over the cuts.

A chain alternates between segments, one round each, and what the client computes
between them. Its seconds are a sum over both, so that the best chain up to a cut goes
on as any other; of two chains that end there one is left out if the other has no more
rounds, seconds and operations that are not coded.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coded_jax.inference.hardware import Hardware
from coded_jax.staging.segments import Segment, Work

FRONT = 24
"""Chains that are kept at a cut and number of rounds; those of a longer front lie
between others that are kept."""


class Chain(NamedTuple):
    """Segments of a network, in their order.

    Attributes:
      segments: the coded ones; the client computes what lies between them.
      seconds: of an inference that nothing delays, losses decoded.
      coded: the part of the operations that is coded.
    """

    segments: tuple[Segment, ...]
    seconds: float
    coded: float


class _Label(NamedTuple):
    """A chain up to a cut; the client's operations are those that are not coded."""

    seconds: float
    client: float
    segment: Segment | None = None
    before: _Label | None = None


def best_chains(
    found: Iterable[Segment],
    work: Work,
    last: int,
    hardware: Hardware,
    queries: int,
    most_rounds: int,
    least_coded: float,
) -> list[Chain]:
    """Returns the chains that none excels in rounds, seconds and coded operations.

    Args:
      found: the segments.
      work: of the network.
      last: number of operations of the network.
      hardware: the speeds.
      queries: pieces that are sent in a round.
      most_rounds: of a chain.
      least_coded: part of the operations that must be coded.

    Returns:
      The fastest first; none if there is none with so much coded.
    """
    total = work.whole(0, last)
    by_start: dict[int, list[Segment]] = defaultdict(list)
    for segment in found:
        by_start[segment.start].append(segment)
    # fronts[rounds][cut]: of chains that end at the cut.
    fronts: list[dict[int, list[_Label]]] = [
        defaultdict(list) for _ in range(most_rounds + 1)
    ]
    fronts[0][0] = [_Label(0.0, 0.0)]
    places = sorted(
        {0, last, *by_start, *(s.end for x in by_start.values() for s in x)}
    )
    arrived: list[tuple[int, list[_Label]]] = [(0, [])] * (most_rounds + 1)
    for cut in places:
        for rounds in range(most_rounds + 1):
            place, labels = arrived[rounds]
            flops = work.whole(place, cut)
            seconds = hardware.client_seconds(flops)
            moved = [
                x._replace(seconds=x.seconds + seconds, client=x.client + flops)
                for x in labels
            ]
            labels = _front([*moved, *fronts[rounds].pop(cut, [])])
            arrived[rounds] = (cut, labels)
            if rounds == most_rounds:
                continue
            for segment in by_start.get(cut, ()):
                trip = hardware.round_seconds(segment.trip, queries)
                fronts[rounds + 1][segment.end] += [
                    _Label(x.seconds + trip, x.client, segment, x) for x in labels
                ]
    ends = [x for _, labels in arrived[1:] for x in labels]
    chains = [_chain(x, 1 - x.client / total) for x in ends]
    return sorted(
        (chain for chain in chains if chain.coded >= least_coded),
        key=lambda chain: chain.seconds,
    )


def _front(labels: Sequence[_Label]) -> list[_Label]:
    """Returns the labels that none excels, the fastest first."""
    kept: list[_Label] = []
    for label in sorted(labels, key=lambda x: (x.seconds, x.client)):
        if not kept or label.client < kept[-1].client * (1 - 1e-9):
            kept.append(label)
    if len(kept) <= FRONT:
        return kept
    # The fastest, and those whose coded parts are spread evenly.
    least, most = kept[-1].client, kept[0].client
    by_client = [-x.client for x in kept]
    chosen = {
        min(
            bisect.bisect_left(by_client, -(most + (least - most) * i / (FRONT - 1))),
            len(kept) - 1,
        )
        for i in range(FRONT)
    }
    return [kept[i] for i in sorted(chosen | {0, len(kept) - 1})]


def _chain(label: _Label, coded: float) -> Chain:
    segments, at = [], label
    while at is not None:
        if at.segment is not None:
            segments.append(at.segment)
        at = at.before
    return Chain(tuple(segments[::-1]), label.seconds, coded)
