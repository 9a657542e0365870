"""A plan for people: a table of its stages, and a picture of its pieces."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.inference.costs import StageCost, coded_fraction, work_fraction
from coded_jax.report.display import blocks_text
from coded_jax.splitting import SplitPlan


def table(costs: Sequence[StageCost], r: int) -> Group:
    """The stages as text: windows, halos, work and bytes of each.

    Args:
      costs: from `costs.stage_costs`.
      r: parity pieces.
    """
    stages = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    stages.add_column("blocks", no_wrap=True)
    for column in (
        "input",
        "piece",
        "halo",
        "share",
        "work",
        "Mflop\npiece/whole",
        "device kB\nin/out",
    ):
        stages.add_column(column, justify="right", no_wrap=True)
    for cost in costs:
        stages.add_row(*_row(cost))
    coded = [cost for cost in costs if cost.plan]
    k = coded[0].plan.k  # type: ignore
    moved = sum(cost.bytes_in + cost.bytes_out for cost in coded) / 1e3
    summary = (
        f"k={k} data and r={r} parity pieces: each of {k + r} devices does "
        f"{work_fraction(costs):.3f} of the coded stages' work, which is "
        f"{100 * coded_fraction(costs):.0f} % of all blocks', "
        f"and moves {moved:.1f} kB per image"
    )
    return Group(stages, summary)


def _row(cost: StageCost) -> list[str]:
    cells = [blocks_text(cost.blocks), _size(cost.input_shape)]
    if cost.plan is None:
        return [*cells, "whole", "", "", "", _short(cost.flops / 1e6), ""]
    return [
        *cells,
        _size(cost.plan.piece_shape),
        _halos(cost.plan),
        _size(cost.plan.share_shape),
        f"{cost.plan.work_fraction:.3f}",
        f"{_short(cost.piece_flops / 1e6)}/{_short(cost.flops / 1e6)}",
        f"{_short(cost.bytes_in / 1e3)}/{_short(cost.bytes_out / 1e3)}",
    ]


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _short(number: float) -> str:
    """With three digits, or all before the point."""
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def _halos(plan: SplitPlan) -> str:
    """Fewest and most rows and columns of a piece, as `6-12x0`."""
    return "x".join(
        "-".join(map(str, sorted({min(axis.halos), max(axis.halos)})))
        for axis in (plan.rows, plan.columns)
    )


def draw(path: str | os.PathLike, image: np.ndarray, plan: SplitPlan) -> None:
    """Draws the data pieces over an image, their overlaps shaded, and each by itself.

    Args:
      path: the file, of a format that matplotlib knows by its ending.
      image: uint8 `[H, W, C]`; its first channel is drawn unless it has three.
      plan: of images of this shape.

    Raises:
      ImportError: matplotlib is missing; the `plot` extra brings it.
      OSError, ValueError: the file cannot be written.
    """
    try:
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ImportError as error:
        raise ImportError("pictures need: pip install 'coded_jax[plot]'") from error
    shown = image if image.shape[-1] == 3 else image[..., 0]
    rows, columns = plan.grid
    figure = Figure(figsize=(4 + 1.8 * columns, max(4, 1.9 * rows)), layout="tight")
    grid = figure.add_gridspec(rows, columns + 2, width_ratios=[2] * 2 + [1] * columns)
    whole = figure.add_subplot(grid[:, :2])
    whole.imshow(shown, cmap="gray")
    cover = np.outer(plan.rows.holders, plan.columns.holders)
    shade = np.zeros((*cover.shape, 4))
    shade[cover > 1] = (1, 0.6, 0, 0.35)
    whole.imshow(shade)
    whole.set_title("overlaps are shaded", fontsize=9)
    for i, top in enumerate(plan.rows.starts):
        for j, left in enumerate(plan.columns.starts):
            number = i * columns + j
            corner, size = (
                (left - 0.5, top - 0.5),
                (plan.columns.window, plan.rows.window),
            )
            whole.add_patch(
                Rectangle(corner, *size, fill=False, edgecolor=f"C{number}", lw=2)
            )
            piece = figure.add_subplot(grid[i, 2 + j])
            bottom, right = top + plan.rows.window, left + plan.columns.window
            piece.imshow(shown[top:bottom, left:right], cmap="gray", vmin=0, vmax=255)
            piece.set_title(
                f"data {number}\nrows {top}-{bottom - 1}\ncolumns {left}-{right - 1}",
                fontsize=7,
                color=f"C{number}",
            )
            piece.set_axis_off()
    whole.set_axis_off()
    figure.savefig(path, dpi=150)
