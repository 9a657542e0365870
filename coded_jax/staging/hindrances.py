"""Tells what keeps a network from being coded, for errors and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from coded_jax.staging.graph import Graph
from coded_jax.staging.segments import (
    CodePrice,
    Work,
    grids_of,
    segments,
    share_of,
    walks,
)

WORTH = 0.01
"""Part of the operations that must be coded at least, unless less is asked for: of
less a device is spared nothing, and every round takes its time."""


def obstacles(graph: Graph) -> tuple[tuple[str, int], ...]:
    """Returns the operations that cannot be split and why, with their numbers."""
    counts: dict[str, int] = {}
    for op in graph.operations:
        if op.obstacle is not None:
            name = op.eqn.primitive.name
            text = f"{name!r} {op.obstacle.reason}"
            counts[text] = counts.get(text, 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: -item[1]))


def hindrance(
    graph: Graph, work: Work, k: int, ends: Sequence[int], most: float
) -> str | None:
    """Returns why no more of a network can be coded; None if nothing single says it.

    Args:
      graph: the network.
      work: of its operations.
      k: data pieces.
      ends: the cuts before which a head may begin.
      most: the part of the operations that can be coded.
    """
    total = work.whole(0, len(graph.operations))
    splittable = [op for op in graph.operations if op.fields is not None]
    beyond = total - sum(op.flops for op in splittable)
    if (found := obstacles(graph)) and beyond >= (1 - most) * total / 2:
        return f"{found[0][1]} x {found[0][0]}"
    if most >= WORTH:
        return None
    made = [v for op in splittable for v in op.eqn.outvars]
    sizes = [graph.places[v].sizes for v in made if v in graph.places]
    if not any(_fits(size, k) for size in sizes):
        rows, columns = max(sizes, key=math.prod, default=(0, 0))
        return f"no value that could be split has more than {rows}x{columns} positions"
    worth = WORTH * total
    if not any(
        work.whole(walk.start, end) >= worth
        for walk, outputs in walks(graph)
        for end, _ in outputs
    ):
        return "the values at its cuts do not fit into one array of one dtype"
    parts = segments(graph, work, k, CodePrice.linear(k, 1))
    parts = [segment for segment in parts if segment.flops >= worth]
    if not parts:
        return "each piece would need the whole image, by its receptive field"
    if not ends or all(segment.end > ends[-1] for segment in parts):
        return "what goes on to the head does not fit into one array"
    return "its operations on a piece would not be those on the image"


def _fits(sizes: tuple[int, int], k: int) -> bool:
    """Returns whether some grid gives each of k pieces a position."""
    rows, columns = sizes
    return any(share_of(rows, a) and share_of(columns, b) for a, b in grids_of(k))
