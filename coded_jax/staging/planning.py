"""Stages of any CNN: one function in, a chain of stages out, see `plan_stages`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from coded_jax.checks import require, require_sizes
from coded_jax.inference.hardware import Hardware
from coded_jax.splitting.plan import make_plan
from coded_jax.staging.blocks import (
    Network,
    Part,
    blocks_of,
    network_of,
    variables_of,
)
from coded_jax.staging.chains import Chain, best_chains
from coded_jax.staging.graph import Graph
from coded_jax.staging.segments import CodePrice, Grid, Segment, Work, segments
from coded_jax.types import Block, PyTree, SplitPlan, apart

MOST_ROUNDS = 6
PART_OF_MOST = 0.9
"""Part of the operations that can be coded at all that a chain codes by default."""


class StagePlan(NamedTuple):
    """A network as blocks and a head, and which blocks are coded.

    Attributes:
      blocks: see `BaseModel.blocks`; they take `variables`.
      head: `(variables, features [B, M*, M'*, D]) -> logits`.
      variables: those of each block and of the head, by their names.
      stages: first and last block of every coded stage, counted from 1.
      grids: pieces of every coded stage along rows and columns.
      plans: how the input of every coded stage is split.
      chain: its segments, and what it costs.
      others: the runner-up chains, the fastest first.
      obstacles: what cannot be split, and how often, the most frequent first.
    """

    blocks: tuple[Block, ...]
    head: Callable[[PyTree, jax.Array], jax.Array]
    variables: dict[str, dict[str, jax.Array]]
    stages: tuple[tuple[int, int], ...]
    grids: tuple[Grid, ...]
    plans: tuple[SplitPlan, ...]
    chain: Chain
    others: tuple[Chain, ...]
    obstacles: tuple[tuple[str, int], ...]


def plan_stages(
    model: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    k: int,
    r: int,
    *,
    hardware: Hardware | None = None,
    most_rounds: int = MOST_ROUNDS,
    least_coded: float | None = None,
    price: CodePrice | None = None,
) -> StagePlan:
    """Finds the stages of a CNN that cost least, and takes it apart into them.

    The jaxpr of the network says where it can be cut, and what cannot be split: global
    pooling, gates, attention, dense layers over positions. The client computes that,
    between two stages. Of all chains of stages the one is chosen that takes the least
    time on some hardware, by operations, bytes and rounds, see `Hardware.seconds`.

    Args:
      model: the whole network, `(variables, images [B, H, W, C]) -> logits`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      k, r: data and parity pieces.
      hardware: speeds of devices, client and links; the default ones if None.
      most_rounds: coded stages at most.
      least_coded: part of the network's operations that must be coded; if None, nine
        tenths of what can be coded at most in so many rounds.
      price: what the code costs; if None, that of a linear one.

    Raises:
      ValueError: an argument is out of range, the network cannot be traced, or no chain
        codes so much.
    """
    height, width, channels = require_sizes(
        "image_shape", image_shape, "H", "W", "C", least=1
    )
    require("k", k, k >= 2, "2 or more")
    require("r", r, r >= 1, "1 or more")
    require("most_rounds", most_rounds, most_rounds >= 1, "1 or more")
    fits = least_coded is None or 0 <= least_coded <= 1
    require("least_coded", least_coded, fits, "0..1")
    network = network_of(model, variables, (height, width, channels))
    graph = network.graph
    work, last = Work(graph), len(graph.operations)
    price = price or CodePrice.linear(k, r)
    hardware = hardware or Hardware()
    ends = _head_cuts(graph)
    found = [
        segment
        for segment in segments(graph, work, k, price)
        if ends and segment.end <= ends[-1]
    ]
    chain, plans = None, []
    while True:
        chains = best_chains(found, work, last, hardware, k + r, most_rounds)
        most = max((chain.coded for chain in chains), default=0.0)
        least = PART_OF_MOST * most if least_coded is None else least_coded
        chains = [chain for chain in chains if chain.coded >= least]
        if not chains:
            raise ValueError(_too_much(least, most, k, most_rounds, graph))
        chain = chains[0]
        parts = parts_of(graph, chain.segments, ends)
        blocks = blocks_of(network, parts)
        own = variables_of(network, parts, variables)
        plans, refused = _plans(network, blocks, own, parts, chain.segments)
        if not refused:
            break
        found = [segment for segment in found if segment[:3] not in refused]
    stages = tuple((i + 1, i + 1) for i, part in enumerate(parts) if part.coded)
    return StagePlan(
        tuple(blocks[:-1]),
        blocks[-1],
        own,
        stages,
        tuple(segment.grid for segment in chain.segments),
        tuple(plans),
        chain,
        tuple(chains[1:]),
        obstacles(graph),
    )


def _head_cuts(graph: Graph) -> list[int]:
    """Returns the cuts at which a single value is live, which lies on the image."""
    last_use, live, found = graph.last_use, {graph.flat.image}, []
    for cut in range(1, len(graph.operations) + 1):
        live |= set(graph.operations[cut - 1].eqn.outvars)
        live = {v for v in live if last_use.get(v, -1) >= cut}
        if len(live) == 1 and next(iter(live)) in graph.places:
            found.append(cut)
    return found


def parts_of(
    graph: Graph, chosen: Sequence[Segment], ends: Sequence[int]
) -> tuple[Part, ...]:
    """Returns the parts of a network of which some segments are coded.

    Args:
      graph: the network.
      chosen: the segments, in their order.
      ends: the cuts before which a head may begin; it begins at the last one.
    """
    parts, done = [], 0
    for segment in chosen:
        first = not parts and segment.start == 0
        if not first or graph.flat.image in graph.live(segment.end):
            parts.append(Part(done, segment.start, False))
        parts.append(Part(segment.start, segment.end, True))
        done = segment.end
    head = next(cut for cut in ends if cut >= done)
    if head > done:
        parts.append(Part(done, head, False))
    return (*parts, Part(head, len(graph.operations), False))


def _plans(
    network: Network,
    blocks: Sequence[Block],
    variables: PyTree,
    parts: Sequence[Part],
    chosen: Sequence[Segment],
) -> tuple[list[SplitPlan], set[tuple[int, int, Grid]]]:
    """Plans the split of every segment, and returns those that cannot be split."""
    plans, refused, left = [], set(), iter(chosen)
    state = jax.ShapeDtypeStruct((1, *network.image_shape), "float32")
    for block, part in zip(blocks, parts, strict=True):
        if part.coded:
            segment = next(left)
            shape = apart(state)[0].shape[1:]
            try:
                plans.append(make_plan(block, variables, shape, segment.grid))
            except ValueError as error:
                import os
                if os.environ.get("DBG"): print("REFUSED", segment[:3], error)
                refused.add(segment[:3])
        state = jax.eval_shape(block, variables, state)
    return plans, refused


def obstacles(graph: Graph) -> tuple[tuple[str, int], ...]:
    """Returns the operations that cannot be split and why, with their numbers."""
    counts: dict[str, int] = {}
    for op in graph.operations:
        if op.obstacle is not None:
            name = op.eqn.primitive.name
            text = f"{name!r} {op.obstacle.reason}"
            counts[text] = counts.get(text, 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: -item[1]))


def _too_much(least: float, most: float, k: int, most_rounds: int, graph: Graph) -> str:
    text = (
        f"least_coded: {least:g} given, at most {most:.3f} accepted for this network "
        f"with k={k} and most_rounds={most_rounds}"
    )
    found = obstacles(graph)
    return f"{text}; in the way: {found[0][1]} x {found[0][0]}" if found else text
