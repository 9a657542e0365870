"""A proposal of `plan_stages` as tables for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.inference.rates import Rates
from coded_jax.report.formatting import size_text
from coded_jax.report.plan_table import stage_table
from coded_jax.staging.chains import Chain
from coded_jax.staging.planning import StagePlan

COLUMNS = ("rounds", "ms", "coded", "device", "client", "device kB")


def tables(plan: StagePlan, rates: Rates) -> Group:
    """Returns the stages of a proposal, other chains beside it, and what is in the way.

    Args:
      plan: the proposal.
      rates: the speeds that it was made for.
    """
    names = {plan.parts[-1].blocks: "head"}
    shown = [part for part in plan.parts if part.flops]  # else the client moves values
    return Group(stage_table(shown, names), _chains(plan, rates), _summary(plan))


def _chains(plan: StagePlan, rates: Rates) -> Table:
    """Returns the chosen chain, the best of other numbers of rounds, and no code."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("chain", no_wrap=True)
    for column in COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_row("chosen", *_cells(plan, plan.chain, rates))
    shown.add_row("the same, uncoded", *_cells(plan, plan.chain, rates, coded=False))
    for chain in plan.others:
        grids = sorted({size_text(segment.grid) for segment in chain.segments})
        shown.add_row(f"other, {' '.join(grids)}", *_cells(plan, chain, rates))
    whole = plan.cost.whole
    seconds = rates.round_seconds(whole, 1)
    kilobytes = (whole.bytes_in + whole.bytes_out) / 1e3
    cells = ["1", f"{1e3 * seconds:.1f}", "0 %", "1.000", "0.000", f"{kilobytes:.1f}"]
    shown.add_row("whole image, one device", *cells)
    return shown


def _cells(
    plan: StagePlan, chain: Chain, rates: Rates, coded: bool = True
) -> list[str]:
    cost = plan.cost_of(chain)
    if not coded:
        free = [t._replace(encode_flops=0.0, decode_flops=0.0) for t in cost.rounds]
        cost = cost._replace(rounds=tuple(free), devices=plan.k)
    return [
        str(len(cost.rounds)),
        f"{1e3 * rates.seconds(cost):.1f}",
        f"{100 * chain.coded:.0f} %",
        f"{cost.device_flops / cost.whole_flops:.3f}",
        f"{cost.client_total / cost.whole_flops:.3f}",
        f"{(cost.bytes_in + cost.bytes_out) / 1e3:.1f}",
    ]


def _summary(plan: StagePlan) -> str:
    stages = ",".join(f"{first}-{last}" for first, last in plan.stages)
    grids = ",".join(map(size_text, plan.grids))
    text = (
        f"k={plan.k} data and r={plan.r} parity pieces; device and client: work over "
        "that of the whole network, losses decoded in every round by a linear code; "
        "ms: of an inference that nothing delays\n"
        f"stages {stages}, grids {grids}"
    )
    found = [f"{count} x {reason}" for reason, count in plan.obstacles]
    return "\n".join([text, *(f"cannot be split: {reason}" for reason in found)])
