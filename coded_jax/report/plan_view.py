"""Plans as tables, the stages of a code or a proposal of them, and as a picture, which
needs the `plot` extra."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table as RichTable

from coded_jax.codes.config import STAGES
from coded_jax.inference.costs import Cost, StageCost, coded_fraction, work_fraction
from coded_jax.inference.rates import Rates
from coded_jax.report.canvas import new_figure
from coded_jax.report.formatting import blocks_text, number_text, size_text
from coded_jax.report.table import Table, to_terminal
from coded_jax.splitting import Plan, SplitPlan, ViewPlan, split
from coded_jax.splitting.views import text_of
from coded_jax.staging.planning import StagePlan

SHADE = (1, 0.6, 0, 0.35)
"""The colour of pixels that several pieces have, as RGBA."""


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
    moved = cost.total.bytes_in + cost.total.bytes_out
    views = [stage.plan.views for stage in stages if isinstance(stage.plan, ViewPlan)]
    words = "views" if views else "pieces"
    summary = (
        f"k={k} data and r={r} parity {words}: each of {k + r} devices does "
        f"{work_fraction(stages):.3f} of the coded stages' work, which is "
        f"{100 * coded_fraction(stages):.0f} % of all blocks', and moves "
        f"{moved / 1e3:.1f} kB per image in {rounds}; the client does "
        f"{client:.3f} of all blocks' work where results are lost; "
        f"encoding and decoding are {100 * cost.price:.1f} % of the coded stages' work "
        f"and take {cost.memory / 1e3:.1f} kB of memory beside the network"
    )
    for of_image in views:
        summary += (
            f"\nviews {', '.join(map(text_of, of_image))}: rows and columns, m is "
            "mirrored; not exact, answers without losses are estimates, too"
        )
    return Group(_stages(stages, {}), summary)


def proposal(plan: StagePlan, rates: Rates) -> Group:
    """Returns the stages of a proposal, other chains beside it, and what is in the way.

    Args:
      plan: the proposal, of `plan_stages`.
      rates: the speeds that it was made for.
    """
    chosen = plan.cost_of(plan.chain)
    free = [trip._replace(encode_flops=0.0, decode_flops=0.0) for trip in chosen.rounds]
    uncoded = chosen._replace(rounds=tuple(free), devices=plan.k)
    chains = [
        ("chosen", chosen, plan.chain.coded),
        ("the same, uncoded", uncoded, plan.chain.coded),
    ]
    for other in plan.others:
        grids = sorted({size_text(segment.grid) for segment in other.segments})
        chains.append((f"other, {' '.join(grids)}", plan.cost_of(other), other.coded))
    chains.append(("whole image, one device", plan.cost.on_every_device(1), 0.0))
    headers = ["chain", "rounds", "ms", "coded", "device", "client", "device kB"]
    rows = [
        [
            name,
            str(len(cost.rounds)),
            f"{1e3 * rates.seconds(cost):.1f}",
            f"{100 * coded:.0f} %",
            f"{cost.device_flops / cost.whole_flops:.3f}",
            f"{cost.client_total / cost.whole_flops:.3f}",
            f"{(cost.total.bytes_in + cost.total.bytes_out) / 1e3:.1f}",
        ]
        for name, cost, coded in chains
    ]
    lines = [
        f"k={plan.k} data and r={plan.r} parity pieces; device and client: work over "
        "that of the whole network, losses decoded in every round by a linear code; "
        "ms: of an inference that nothing delays",
        f"stages {STAGES.show(plan.stages)}, grids "
        f"{','.join(map(size_text, plan.grids))}",
        *(f"cannot be split: {n} x {reason}" for reason, n in plan.obstacles),
    ]
    shown = [part for part in plan.parts if part.flops]  # else the client moves values
    stages = _stages(shown, {plan.parts[-1].blocks: "head"})
    return Group(stages, to_terminal(Table(headers, rows)), "\n".join(lines))


def _stages(
    stages: Sequence[StageCost], names: Mapping[tuple[int, int], str]
) -> RichTable:
    """Returns a row for each stage, coded or computed whole; `names` are of blocks that
    are not called by their numbers."""
    rows = []
    for stage in stages:
        plan, trip, whole = stage.plan, stage.trip, number_text(stage.flops / 1e6)
        blocks = names.get(stage.blocks, blocks_text(stage.blocks))
        first = [blocks, size_text(stage.input_shape)]
        if plan is None or trip is None:
            rows.append([*first, "whole", "", "", "", whole, ""])
            continue
        kilobytes = (number_text(x / 1e3) for x in (trip.bytes_in, trip.bytes_out))
        cells = [
            size_text(plan.piece_shape),
            _halo_text(plan),
            size_text(plan.share_shape),
            f"{plan.work_fraction:.3f}",
            f"{number_text(trip.device_flops / 1e6)}/{whole}",
            "/".join(kilobytes),
        ]
        rows.append([*first, *cells])
    headers = ["blocks", "input", "piece", "halo", "share", "work"]
    headers += ["Mflop\npiece/whole", "device kB\nin/out"]
    return to_terminal(Table(headers, rows))


def _halo_text(plan: Plan) -> str:
    """Returns the least and the greatest halo along rows and columns."""
    if not isinstance(plan, SplitPlan):
        return "inexact"
    halos = [sorted({min(x.halos), max(x.halos)}) for x in (plan.rows, plan.columns)]
    return "x".join("-".join(map(str, ends)) for ends in halos)


class _Box(NamedTuple):
    """The part of an image that a piece has, by its first row and column."""

    title: str
    top: int
    left: int
    height: int
    width: int


def _boxes(plan: Plan) -> list[_Box]:
    """Returns the places of the data pieces, or of all views."""
    if isinstance(plan, SplitPlan):
        sizes = plan.rows.window, plan.columns.window
        starts = [(i, j) for i in plan.rows.starts for j in plan.columns.starts]
        boxes = [_Box(f"data {i}", *start, *sizes) for i, start in enumerate(starts)]
    else:
        names = [f"data {i}" for i in range(plan.k)]
        names += [f"parity {i}" for i in range(plan.r)]
        views = zip(names, plan.views, strict=True)
        boxes = [_Box(name, *view[:4]) for name, view in views]
    return boxes


def draw(path: str | os.PathLike, image: np.ndarray, plan: Plan) -> None:
    """Draws the data pieces over an image, their overlaps shaded, and each by itself;
    or all views.

    Args:
      path: the file, of a format that matplotlib knows by its ending.
      image: uint8 `[H, W, C]`; its first channel is drawn unless it has three.
      plan: of images of this shape.

    Raises:
      ImportError: matplotlib is missing; the `plot` extra brings it.
      OSError, ValueError: the file cannot be written.
    """
    boxes = _boxes(plan)
    rows, columns = (
        plan.grid if isinstance(plan, SplitPlan) else (-(-len(boxes) // 3), 3)
    )
    figure = new_figure(4 + 1.8 * columns, max(4, 1.9 * rows), layout="tight")
    from matplotlib.patches import Rectangle

    grid = figure.add_gridspec(rows, columns + 2, width_ratios=[2] * 2 + [1] * columns)
    whole = figure.add_subplot(grid[:, :2])
    holders = np.zeros(image.shape[:2], int)
    for box in boxes[: plan.k]:
        bottom, right = box.top + box.height, box.left + box.width
        holders[box.top : bottom, box.left : right] += 1
    pixels = image if image.shape[-1] == 3 else image[..., 0]
    whole.imshow(pixels, cmap="gray")
    whole.imshow((holders > 1)[..., None] * np.array(SHADE))
    whole.set_title("overlaps are shaded", fontsize=9)
    whole.set_axis_off()
    if isinstance(plan, ViewPlan):
        plan = dataclasses.replace(plan, mean=None, std=None)
    pieces = np.round(split(plan, image[None].astype(np.float32))[:, 0])
    for number, (box, piece) in enumerate(zip(boxes, pieces, strict=False)):
        colour, (i, j) = f"C{number}", divmod(number, columns)
        outline = {"fill": False, "edgecolor": colour, "lw": 2}
        corner = box.left - 0.5, box.top - 0.5
        whole.add_patch(Rectangle(corner, box.width, box.height, **outline))
        axes = figure.add_subplot(grid[i, 2 + j])
        shown = piece.astype("u1") if piece.shape[-1] == 3 else piece[..., 0]
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
        bottom, right = box.top + box.height - 1, box.left + box.width - 1
        axes.set_title(
            f"{box.title}\nrows {box.top}-{bottom}\ncolumns {box.left}-{right}",
            fontsize=7,
            color=colour,
        )
        axes.set_axis_off()
    figure.savefig(path, dpi=150)
