"""The stages of a plan as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.inference.costs import Cost, StageCost, coded_fraction, work_fraction
from coded_jax.report.formatting import blocks_text, number_text, size_text
from coded_jax.splitting import SplitPlan

COLUMNS = (
    "input",
    "piece",
    "halo",
    "share",
    "work",
    "Mflop\npiece/whole",
    "device kB\nin/out",
)


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
        f"{(cost.bytes_in + cost.bytes_out) / 1e3:.1f} kB per image in {rounds}; the "
        f"client does {client:.3f} of all blocks' work where results are lost; "
        f"encoding and decoding are {100 * cost.price:.1f} % of the coded stages' work "
        f"and take {cost.memory / 1e3:.1f} kB of memory beside the network"
    )
    return Group(stage_table(stages), summary)


def stage_table(
    stages: Sequence[StageCost], names: Mapping[tuple[int, int], str] | None = None
) -> Table:
    """Returns windows, halos, work and bytes of stages.

    Args:
      stages: coded, or computed whole.
      names: of blocks that are not called by their numbers.
    """
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("blocks", no_wrap=True)
    for column in COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    for stage in stages:
        name = (names or {}).get(stage.blocks, blocks_text(stage.blocks))
        shown.add_row(name, *_row(stage))
    return shown


def _row(cost: StageCost) -> list[str]:
    cells = [size_text(cost.input_shape)]
    if cost.plan is None:
        return [*cells, "whole", "", "", "", number_text(cost.flops / 1e6), ""]
    return [
        *cells,
        size_text(cost.plan.piece_shape),
        _halos(cost.plan),
        size_text(cost.plan.share_shape),
        f"{cost.plan.work_fraction:.3f}",
        f"{number_text(cost.piece_flops / 1e6)}/{number_text(cost.flops / 1e6)}",
        f"{number_text(cost.bytes_in / 1e3)}/{number_text(cost.bytes_out / 1e3)}",
    ]


def _halos(plan: SplitPlan) -> str:
    """Returns the smallest and largest halo of a piece by axis, as `6-12x0`."""
    return "x".join(
        "-".join(map(str, sorted({min(axis.halos), max(axis.halos)})))
        for axis in (plan.rows, plan.columns)
    )
