"""Tells what keeps a network from being coded, for errors and tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from coded_jax.staging.graph import Graph
from coded_jax.staging.segments import grids_of, segments

WORTH = 0.01
"""Part of the operations that must be coded at least, unless less is asked for: of
less a device is spared nothing, and every round takes its time."""


def obstacles(graph: Graph) -> tuple[tuple[str, int], ...]:
    """Returns the operations that cannot be split and why, with their numbers, the most
    frequent first."""
    counts = Counter(
        f"{op.eqn.primitive.name!r} {op.obstacle}"
        for op in graph.operations
        if op.obstacle is not None
    )
    return tuple(counts.most_common())


def hindrance(graph: Graph, k: int, ends: Sequence[int], most: float) -> str | None:
    """Returns why no more of a network can be coded; None if nothing single says it.

    Args:
      graph: the network.
      k: data pieces.
      ends: the cuts before which a head may begin.
      most: the part of the operations that can be coded.
    """
    total = graph.flops()
    splittable = [op for op in graph.operations if op.fields is not None]
    beyond = total - sum(op.flops for op in splittable)
    if (found := obstacles(graph)) and beyond >= (1 - most) * total / 2:
        return f"{found[0][1]} x {found[0][0]}"
    if most >= WORTH:
        return None
    made = [v for op in splittable for v in op.eqn.outvars]
    sizes = [graph.places[v].sizes for v in made if v in graph.places]
    has_grid = lambda rows, columns: any(
        (a - 1) * -(-rows // a) < rows and (b - 1) * -(-columns // b) < columns
        for a, b in grids_of(k)
    )
    if not any(has_grid(*size) for size in sizes):
        rows, columns = max(sizes, key=math.prod, default=(0, 0))
        return f"no value that could be split has more than {rows}x{columns} positions"
    worthwhile = lambda k: [
        segment
        for segment in segments(graph, k, 1)
        if segment.flops >= WORTH * total and segment.end <= max(ends, default=0)
    ]
    if not worthwhile(1):
        return "the values at its cuts do not fit into one array of one dtype"
    if not worthwhile(k):
        return "each piece would need the whole image, by its receptive field"
    return "its operations on a piece would not be those on the image"
