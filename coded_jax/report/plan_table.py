"""Plans as tables for a terminal: the stages of a code, or a proposal of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table as RichTable

from coded_jax.codes.config import STAGES
from coded_jax.inference.costs import Cost, StageCost, coded_fraction, work_fraction
from coded_jax.inference.rates import Rates
from coded_jax.report.formatting import blocks_text, number_text, size_text
from coded_jax.report.table import make, to_terminal
from coded_jax.splitting import SplitPlan
from coded_jax.staging.planning import StagePlan


def table(stages: Sequence[StageCost], cost: Cost, r: int) -> Group:
    """Returns windows, halos, work and bytes of each stage, and what all of them cost.

    Args:
      stages: from `costs.stage_costs`.
      cost: from `costs.cost_of`.
      r: parity pieces.
    """
    k = next(stage.plan.k for stage in stages if stage.plan)
    rounds = "1 round" if len(cost.rounds) == 1 else f"{len(cost.rounds)} rounds"
    client = cost.client_total / cost.whole_flops
    summary = (
        f"k={k} data and r={r} parity pieces: each of {k + r} devices does "
        f"{work_fraction(stages):.3f} of the coded stages' work, which is "
        f"{100 * coded_fraction(stages):.0f} % of all blocks', and moves "
        f"{_kilobytes(cost)} kB per image in {rounds}; the "
        f"client does {client:.3f} of all blocks' work where results are lost; "
        f"encoding and decoding are {100 * cost.price:.1f} % of the coded stages' work "
        f"and take {cost.memory / 1e3:.1f} kB of memory beside the network"
    )
    return Group(_stages(stages, {}), summary)


def proposal(plan: StagePlan, rates: Rates) -> Group:
    """Returns the stages of a proposal, other chains beside it, and what is in the way.

    Args:
      plan: the proposal, of `plan_stages`.
      rates: the speeds that it was made for.
    """
    names = {plan.parts[-1].blocks: "head"}
    shown = [part for part in plan.parts if part.flops]  # else the client moves values
    chosen = plan.cost_of(plan.chain)
    free = [trip._replace(encode_flops=0.0, decode_flops=0.0) for trip in chosen.rounds]
    uncoded = chosen._replace(rounds=tuple(free), devices=plan.k)
    chains = [
        _Chain("chosen", chosen, plan.chain.coded),
        _Chain("the same, uncoded", uncoded, plan.chain.coded),
    ]
    for other in plan.others:
        grids = sorted({size_text(segment.grid) for segment in other.segments})
        name = f"other, {' '.join(grids)}"
        chains.append(_Chain(name, plan.cost_of(other), other.coded))
    whole = plan.cost.on_every_device(1)
    chains.append(_Chain("whole image, one device", whole, 0.0))
    columns = {
        "chain": lambda x: x.name,
        "rounds": lambda x: str(len(x.cost.rounds)),
        "ms": lambda x: f"{1e3 * rates.seconds(x.cost):.1f}",
        "coded": lambda x: f"{100 * x.coded:.0f} %",
        "device": lambda x: f"{x.cost.device_flops / x.cost.whole_flops:.3f}",
        "client": lambda x: f"{x.cost.client_total / x.cost.whole_flops:.3f}",
        "device kB": lambda x: _kilobytes(x.cost),
    }
    lines = [
        f"k={plan.k} data and r={plan.r} parity pieces; device and client: work over "
        "that of the whole network, losses decoded in every round by a linear code; "
        "ms: of an inference that nothing delays",
        f"stages {STAGES.show(plan.stages)}, grids "
        f"{','.join(map(size_text, plan.grids))}",
        *(f"cannot be split: {n} x {reason}" for reason, n in plan.obstacles),
    ]
    chain_table = to_terminal(make(columns, chains))
    return Group(_stages(shown, names), chain_table, "\n".join(lines))


class _Chain(NamedTuple):
    """A row of a proposal: a chain of stages, its cost, and the part that is coded."""

    name: str
    cost: Cost
    coded: float


def _stages(
    stages: Sequence[StageCost], names: Mapping[tuple[int, int], str]
) -> RichTable:
    """Returns a row for each stage, coded or computed whole; `names` are of blocks that
    are not called by their numbers."""

    def of_plan(
        text: Callable[[SplitPlan, StageCost], str], whole: str = ""
    ) -> Callable[[StageCost], str]:
        return lambda stage: text(stage.plan, stage) if stage.plan else whole

    mega = lambda number: number_text(number / 1e6)
    kilo = lambda number: number_text(number / 1e3)
    columns = {
        "blocks": lambda stage: names.get(stage.blocks, blocks_text(stage.blocks)),
        "input": lambda stage: size_text(stage.input_shape),
        "piece": of_plan(lambda plan, _: size_text(plan.piece_shape), "whole"),
        "halo": of_plan(lambda plan, _: _halos(plan)),
        "share": of_plan(lambda plan, _: size_text(plan.share_shape)),
        "work": of_plan(lambda plan, _: f"{plan.work_fraction:.3f}"),
        "Mflop\npiece/whole": lambda stage: (
            f"{mega(stage.piece_flops)}/" * bool(stage.plan) + mega(stage.flops)
        ),
        "device kB\nin/out": of_plan(
            lambda _, stage: f"{kilo(stage.bytes_in)}/{kilo(stage.bytes_out)}"
        ),
    }
    return to_terminal(make(columns, stages))


def _halos(plan: SplitPlan) -> str:
    """Returns the smallest and largest halo of a piece by axis, as `6-12x0`."""
    return "x".join(
        "-".join(map(str, sorted({min(axis.halos), max(axis.halos)})))
        for axis in (plan.rows, plan.columns)
    )


def _kilobytes(cost: Cost) -> str:
    """Returns the traffic of a device for an image, in kB."""
    return f"{(cost.bytes_in + cost.bytes_out) / 1e3:.1f}"
