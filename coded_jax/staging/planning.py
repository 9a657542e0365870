"""Stages of any CNN: one function in, a chain of stages out, see `plan_stages`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.checks import is_integer, require
from coded_jax.inference.costs import Cost, Round, StageCost, count_flops
from coded_jax.inference.rates import Rates
from coded_jax.splitting.convolutions import rounded_down
from coded_jax.splitting.flattening import is_array
from coded_jax.splitting.plan import make_plan
from coded_jax.staging.blocks import Part, PartBlock, blocks_of, graph_of, network_of
from coded_jax.staging.chains import Chain, best_chains
from coded_jax.staging.graph import Graph, Sizes
from coded_jax.staging.hindrances import WORTH, hindrance, obstacles
from coded_jax.staging.segments import CodedSegment, segments
from coded_jax.types import BaseModel, PyTree, apart

MOST_ROUNDS = 6
PRICES = 12
HIGHEST_PRICE = 1e3
"""Prices on a device's work that are tried, and the highest, see `best_chains`."""
PART_OF_MOST = 0.9
"""Part of the operations that can be coded at all that a chain codes by default."""


class StagePlan(NamedTuple):
    """A network as blocks and a head, and which blocks are coded.

    Attributes:
      base: its blocks and its head, whose variables are `variables`.
      variables: by `part_1`, `part_2`, ..., those of each block and of the head.
      stages: first and last block of every coded stage, counted from 1.
      grids: pieces of every coded stage along rows and columns.
      k, r: data and parity pieces.
      parts: cost of every block, and of the head, whose `blocks` are one more.
      chain: the coded segments, their seconds and the part of the work that they are.
      others: the fastest chain of every other number of rounds, fewest first.
      obstacles: what cannot be split and how often, the most frequent first.
    """

    base: BaseModel
    variables: dict[str, dict[str, Any]]
    stages: tuple[tuple[int, int], ...]
    grids: tuple[Sizes, ...]
    k: int
    r: int
    parts: tuple[StageCost, ...]
    chain: Chain
    others: tuple[Chain, ...]
    obstacles: tuple[tuple[str, int], ...]

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the settings of a code for these stages, see `CodeConfig`."""
        stages = {"stages": self.stages, "stage_grids": self.grids}
        return {"k": self.k, "r": self.r, **stages}

    def cost_of(self, chain: Chain) -> Cost:
        """Returns the cost of an inference by a chain, for one image."""
        total = sum(part.flops for part in self.parts)
        image, logits = self.parts[0].input_shape, self.parts[-1].output_shape
        whole = Round(total, 4 * math.prod(image), 4 * math.prod(logits))
        rounds = tuple(segment.trip for segment in chain.segments)
        client = total - sum(segment.flops for segment in chain.segments)
        return Cost(rounds, client, whole, self.k + self.r)

    @property
    def cost(self) -> Cost:
        """Returns the cost of an inference, for one image."""
        return self.cost_of(self.chain)


def plan_stages(
    model: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    k: int,
    r: int,
    *,
    rates: Rates | None = None,
    most_rounds: int = MOST_ROUNDS,
    least_coded: float | None = None,
    most_device: float = math.inf,
) -> StagePlan:
    """Finds the stages of a CNN that cost least, and takes it apart into them.

    The jaxpr of the network says where it can be cut, and what cannot be split: global
    pooling, gates, attention, dense layers over positions, branches. The client
    computes that, between two stages, or behind the last one, with the head, where no
    stage needs it. The head begins at the last place where what goes on lies on the
    image and fits into one array. Of all chains of stages the one is chosen that takes
    the least time at some rates, by operations, bytes and rounds, see `Rates.seconds`;
    encoding and decoding cost what they do in a linear code.

    Args:
      model: the whole network, `(variables, images [B, H, W, C]) -> logits`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      k, r: data and parity pieces.
      rates: speeds of devices, client and links; the default ones if None.
      most_rounds: coded stages at most.
      least_coded: part of the network's operations that must be coded; if None, nine
        tenths of what can be coded at most in so many rounds, where that is one
        hundredth or more.
      most_device: operations of the busiest device at most, over those of the network.

    Raises:
      ValueError: an argument is out of range, the network cannot be traced, or no chain
        codes so much.
    """
    limits = {"k": (k, 2), "r": (r, 1), "most_rounds": (most_rounds, 1)}
    for name, (value, least) in limits.items():
        fits = is_integer(value) and value >= least
        require(name, value, fits, f"an integer of {least} or more")
    k, r, most_rounds = map(int, (k, r, most_rounds))  # of NumPy, perhaps
    as_array = lambda leaf: leaf if is_array(leaf) else jnp.asarray(leaf)
    variables = jax.tree.map(as_array, variables)
    network = network_of(model, variables, image_shape)
    graph, rates = graph_of(network), rates or Rates()
    ends = _head_cuts(graph)
    found = [s for s in segments(graph, k, r) if ends and s.end <= ends[-1]]
    while True:
        search = functools.partial(
            best_chains,
            graph,
            found,
            rates=rates,
            queries=k + r,
            most_rounds=most_rounds,
        )
        hindered = functools.partial(hindrance, graph, k, ends)
        chains = _chains(search, hindered, k, least_coded, most_device)
        chosen = chains[0].segments
        blocks = blocks_of(network, parts_of(graph, chosen, ends))
        own = {b.name: b.variables_among(variables) for b in blocks if b.leaves}
        costs, refused = _costs(blocks, own, chosen)
        if not refused:
            break
        found = [segment for segment in found if segment[:3] not in refused]
    coded = [(cost.blocks, cost.trip) for cost in costs if cost.trip]
    segments_of_chain = zip(chosen, coded, strict=True)
    counted = [segment._replace(trip=trip) for segment, (_, trip) in segments_of_chain]
    device = sum(segment.trip.device_flops for segment in counted) / graph.flops()
    # Of as many rounds the first one is the fastest.
    others = {len(chain.segments): chain for chain in reversed(chains)}
    del others[len(chosen)]
    plan = StagePlan(
        base=BaseModel(functools.partial(_given, own), tuple(blocks[:-1]), blocks[-1]),
        variables=own,
        stages=tuple(blocks for blocks, _ in coded),
        grids=tuple(segment.grid for segment in chosen),
        k=k,
        r=r,
        parts=tuple(costs),
        chain=chains[0]._replace(segments=tuple(counted), device=device),
        others=tuple(others[rounds] for rounds in sorted(others)),
        obstacles=obstacles(graph),
    )
    chain = plan.chain._replace(seconds=rates.seconds(plan.cost))
    return plan._replace(chain=chain)


def _chains(
    search: Callable[..., list[Chain]],
    hindered: Callable[[float], str | None],
    k: int,
    least_coded: float | None,
    most_device: float,
) -> list[Chain]:
    """Returns chains within the limits of `plan_stages`, the fastest first.

    Args:
      search: `best_chains`, of a price on a device's work.
      hindered: `hindrance`, of the part that can be coded.
      k, least_coded, most_device: of `plan_stages`.

    Raises:
      ValueError: there is none.
    """
    chains = search()
    most = max((chain.coded for chain in chains), default=0.0)
    least = PART_OF_MOST * most if least_coded is None else least_coded
    if not chains or most < (WORTH if least_coded is None else least):
        name, given = "least_coded", least_coded
        if least_coded is None:
            name, given = "k", k
        reason = hindered(most)
        raise ValueError(
            f"{name}: {given:g} given, but at most {rounded_down(most):g} of the work "
            f"of this network can be coded with k={k} and so few rounds"
            + (f"; in the way: {reason}" if reason else "")
        )

    def within(chains: list[Chain]) -> list[Chain]:
        coded = [chain for chain in chains if chain.coded >= least]
        return [chain for chain in coded if chain.device <= most_device]

    if chosen := within(chains):
        return chosen
    # The least price on a device's work that brings it below the limit.
    low, high = 0.0, HIGHEST_PRICE
    dearest = search(device_price=high)
    best = within(dearest)
    if not best:
        device = min(chain.device for chain in dearest if chain.coded >= least)
        raise ValueError(
            f"most_device: {most_device:g} given, at least {-rounded_down(-device):g} "
            f"accepted for this network with k={k}, so few rounds and {least:.3f} coded"
        )
    for _ in range(PRICES - 1):
        price = (low + high) / 2
        if chosen := within(search(device_price=price)):
            high, best = price, [*best, *chosen]
        else:
            low = price
    return sorted(best, key=lambda chain: chain.seconds)


def _given(variables: PyTree, key: Any, image_shape: Any, classes: int) -> PyTree:
    """Returns variables that are there, as `BaseModel.init`."""
    return variables


def _head_cuts(graph: Graph) -> list[int]:
    """Returns the cuts before which a head may begin, which takes one array: those at
    which a single value is live and lies on the image, and behind the last of them
    those at which several values do, and fit into one array."""
    of_one, of_several = [], []
    for cut, live in enumerate(graph.live[1:], 1):
        if graph.packing(live) is None:
            continue
        if len(live) == 1:
            of_one.append(cut)
            of_several.clear()
        else:
            of_several.append(cut)
    return of_one + of_several


def parts_of(
    graph: Graph, chosen: Sequence[CodedSegment], ends: Sequence[int]
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
        if not first or graph.flat.image in graph.live[segment.end]:
            parts.append(Part(done, segment.start, False))
        parts.append(Part(segment.start, segment.end, True))
        done = segment.end
    head = next(cut for cut in ends if cut >= done)
    kept = parts and any(graph.made_by[v] < parts[-1].start for v in graph.live[head])
    if head > done or kept:  # of nothing but packing, perhaps
        parts.append(Part(done, head, False))
    return (*parts, Part(head, len(graph.operations), False))


def _costs(
    blocks: Sequence[PartBlock], variables: PyTree, chosen: Sequence[CodedSegment]
) -> tuple[list[StageCost], set[tuple[int, int, Sizes]]]:
    """Plans the split of every segment.

    Returns:
      The costs of all parts, and the segments that cannot be split after all.
    """
    costs, refused, left = [], set(), iter(chosen)
    network, graph = blocks[0].network, graph_of(blocks[0].network)
    state = jax.ShapeDtypeStruct((1, *network.image_shape), "float32")
    for i, block in enumerate(blocks):
        part, (_, height, width, channels) = block.parts[i], apart(state)[0].shape
        shape = (height, width, channels)
        state = jax.eval_shape(block, variables, state)
        cost = StageCost(
            blocks=(i + 1, i + 1),
            input_shape=shape,
            output_shape=apart(state)[0].shape[1:],
            flops=graph.flops(part.start, part.end),
        )
        if part.coded:
            segment = next(left)
            try:
                plan = make_plan(block, variables, shape, segment.grid)
            except ValueError:  # by an operation that depends on the size, for instance
                refused.add(segment[:3])
                continue
            # Anew, since the matrices of a resize have less of both on a piece.
            flops = count_flops(block, variables, plan.piece_shape)
            trip = segment.trip._replace(device_flops=flops)
            cost = cost._replace(plan=plan, trip=trip)
        costs.append(cost)
    return costs, refused
