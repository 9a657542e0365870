"""A picture of a mesh: which piece is on which chip; it needs the `plot` extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh

from coded_jax.devices.meshes import DATA, TPU, pieces_on
from coded_jax.report.canvas import new_figure
from coded_jax.report.formatting import size_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 1.35  # inches of a device


def figure_of(mesh: Mesh, k: int, r: int) -> Figure:
    """Draws every device where it is, with its pieces and its part of the batch.

    Args:
      mesh: from `make_mesh`.
      k, r: data and parity pieces.

    Raises:
      ImportError: matplotlib is missing; the `plot` extra brings it.
    """
    from matplotlib.patches import Rectangle

    spots = [_spot(device) for device in mesh.devices.flat]
    layers = sorted({layer for layer, _, _ in spots})
    columns, rows = np.max(spots, axis=0)[1:] + 1
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
        lines = [f"device {device.id}"]
        for kind, numbers in (("data", range(k)), ("parity", range(k, k + r))):
            own = [str(i - numbers.start) for i in held[row] if i in numbers]
            lines += [f"{kind} {', '.join(own)}"] if own else []
        lines += [] if held[row] else ["no piece"]
        lines += ["all images" if parts == 1 else f"images {column + 1}/{parts}"]
        layer, x, y = _spot(device)
        axes, look = panels[layers.index(layer)], {"fc": f"C{row % 10}", "alpha": 0.35}
        axes.add_patch(Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, **look))
        middle = {"ha": "center", "va": "center"}
        axes.text(x + 0.5, y + 0.5, "\n".join(lines), fontsize=7, **middle)
    kind, shape = mesh.devices.flat[0].device_kind, size_text(mesh.devices.shape)
    title = f"{mesh.size} x {kind}, mesh {shape} (piece x data)"
    figure.suptitle(title, fontsize=10)
    return figure


def _spot(device: jax.Device) -> tuple[int, int, int]:
    """Returns a device's layer, column and row; two cores of a chip side by side."""
    if device.platform != TPU:
        return 0, device.id, 0
    x, y, z = device.coords
    cores = 2 if device.device_kind == "TPU7x" else 1
    return z, cores * x + device.core_on_chip, y
