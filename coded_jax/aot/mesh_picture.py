"""A picture of a mesh: which piece is on which chip; it needs the `plot` extra."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh

from coded_jax.aot.topologies import place_of
from coded_jax.devices.meshes import DATA, pieces_on
from coded_jax.report.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 1.35  # inches of a device


def draw(path: str | os.PathLike, mesh: Mesh, k: int, r: int) -> None:
    """Draws every device where it is, with its pieces and its part of the batch.

    Args:
      path: the file, of a format that matplotlib knows by its ending.
      mesh: from `make_mesh`.
      k, r: data and parity pieces.

    Raises:
      ImportError: matplotlib is missing; the `plot` extra brings it.
      OSError, ValueError: the file cannot be written.
    """
    figure_of(mesh, k, r).savefig(path, dpi=150)


def figure_of(mesh: Mesh, k: int, r: int) -> Figure:
    """Returns the figure that `draw` writes."""
    from matplotlib.patches import Rectangle

    spots = {device: _spot(device) for device in mesh.devices.flat}
    layers = sorted({spot[0] for spot in spots.values()})
    columns = 1 + max(spot[1] for spot in spots.values())
    rows = 1 + max(spot[2] for spot in spots.values())
    width = max(SIDE * columns * len(layers), 4.5)
    figure = new_figure(width + 0.4, SIDE * rows + 0.9)
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for layer, axes in zip(layers, panels, strict=True):
        axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")
        axes.set_axis_off()
        if len(layers) > 1:
            axes.set_title(f"z = {layer}", fontsize=9)
    held, parts = pieces_on(mesh, k + r), mesh.shape[DATA]
    for (row, column), device in np.ndenumerate(mesh.devices):
        layer, x, y = spots[device]
        data = [str(i) for i in held[row] if i < k]
        parity = [str(i - k) for i in held[row] if i >= k]
        lines = [
            f"device {device.id}",
            f"data {', '.join(data)}" if data else "",
            f"parity {', '.join(parity)}" if parity else "",
            "" if held[row] else "no piece",
            "all images" if parts == 1 else f"images {column + 1}/{parts}",
        ]
        axes, colour = panels[layers.index(layer)], f"C{row % 10}"
        corner = (x + 0.03, y + 0.03)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=colour, alpha=0.35))
        text = "\n".join(filter(None, lines))
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7)
    shape = "x".join(map(str, mesh.devices.shape))
    first = mesh.devices.flat[0]
    title = f"{mesh.size} x {first.device_kind}, mesh {shape} (piece x data)"
    figure.suptitle(title, fontsize=10)
    return figure


def _spot(device: jax.Device) -> tuple[int, int, int]:
    """Returns a device's layer, column and row; two cores of a chip side by side."""
    place = place_of(device)
    if len(place) == 1 or getattr(device, "platform", "") != "tpu":
        return 0, device.id, 0
    x, y, z, core = place
    cores = 2 if device.device_kind == "TPU7x" else 1
    return z, cores * x + core, y
