"""The pieces of a plan drawn over an image; it needs the `plot` extra."""

from __future__ import annotations

import os
from itertools import product

import numpy as np

from coded_jax.report.canvas import new_figure
from coded_jax.splitting import SplitPlan

SHADE = (1, 0.6, 0, 0.35)
"""The colour of pixels that several pieces have, as RGBA."""


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
    rows, columns = plan.grid
    figure = new_figure(4 + 1.8 * columns, max(4, 1.9 * rows), layout="tight")
    from matplotlib.patches import Rectangle

    grid = figure.add_gridspec(rows, columns + 2, width_ratios=[2] * 2 + [1] * columns)
    whole = figure.add_subplot(grid[:, :2])
    overlaps = np.outer(plan.rows.holders, plan.columns.holders) > 1
    pixels = image if image.shape[-1] == 3 else image[..., 0]
    whole.imshow(pixels, cmap="gray")
    whole.imshow(overlaps[..., None] * np.array(SHADE))
    whole.set_title("overlaps are shaded", fontsize=9)
    whole.set_axis_off()
    height, width = plan.rows.window, plan.columns.window
    starts = product(plan.rows.starts, plan.columns.starts)
    for number, (top, left) in enumerate(starts):
        colour = f"C{number}"
        outline = {"fill": False, "edgecolor": colour, "lw": 2}
        whole.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, **outline))
        i, j = divmod(number, columns)
        piece = figure.add_subplot(grid[i, 2 + j])
        bottom, right = top + height, left + width
        piece.imshow(pixels[top:bottom, left:right], cmap="gray", vmin=0, vmax=255)
        piece.set_title(
            f"data {number}\nrows {top}-{bottom - 1}\ncolumns {left}-{right - 1}",
            fontsize=7,
            color=colour,
        )
        piece.set_axis_off()
    figure.savefig(path, dpi=150)
