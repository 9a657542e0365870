"""Load of a service: requests per second against latency, as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from coded_jax.report import canvas
from tables import markdown, stored

COLUMNS = (
    "together",
    "sent",
    "answered",
    "of a batch",
    "p50 ms",
    "p99 ms",
    "slowest ms",
    "refused",
    "wrong",
)
"""Images of a batch, at most; requests per second; images of a batch, on average."""


def rows(points: list[dict[str, Any]]) -> list[list[str]]:
    """Returns a row for each rate, of each number of requests that are joined."""
    time = lambda seconds: "" if seconds is None else f"{1e3 * seconds:.0f}"
    return [
        [
            str(point["together"]),
            f"{point['rate']:g}",
            f"{point['per_second']:.0f}",
            f"{point['images_per_batch']:.1f}",
            *(time(point[name]) for name in ("p50", "p99", "slowest")),
            f"{100 * point['lost'] / point['requests']:.1f} %",
            str(point["wrong"]),
        ]
        for point in points
    ]


def terminal(points: list[dict[str, Any]]) -> Table:
    """Returns the table for a terminal."""
    table = Table(box=box.SIMPLE, padding=0)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in rows(points):
        table.add_row(*row)
    return table


def section() -> str:
    """Returns the table of the stored measurement, and what made it."""
    (content,) = stored.contents("load")
    table = markdown.table(COLUMNS, rows(content["points"]))
    return f"{table}\n\n`{content['command']}`. {stored.origin_text([content])}"


def draw(path: Path, points: list[dict[str, Any]]) -> None:
    """Draws median and p99 against answered requests per second.

    Args:
      path: of the picture.
      points: of `load.json`.

    Raises:
      ImportError: matplotlib is missing.
    """
    figure = canvas.new_figure(8, 4.5)
    axes = figure.subplots()
    for i, together in enumerate(sorted({point["together"] for point in points})):
        own = [point for point in points if point["together"] == together]
        rate = [point["per_second"] for point in own]
        label = "each by itself" if together == 1 else f"up to {together} together"
        for name, style in (("p50", "-"), ("p99", "--")):
            milliseconds = [1e3 * point[name] for point in own]
            axes.plot(
                rate,
                milliseconds,
                style,
                color=f"C{i}",
                marker="o",
                label=label if name == "p50" else None,
            )
    axes.set(xlabel="requests answered per second", ylabel="milliseconds; dashed: p99")
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.save(figure, path, 100)
