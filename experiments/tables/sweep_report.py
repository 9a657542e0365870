"""The report of a sweep, and its section of a document."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group

from coded_jax.report import canvas, sweep_tables
from coded_jax.report.sweep_tables import Sweep
from tables import stored
from tables.markdown import table
from tables.pages import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def report(path: Path, folder: Path) -> Group:
    """Writes `report.md`, `report.html` and their figure.

    Args:
      path: the sweep's folder.
      folder: where they are written.

    Returns:
      The same table for a terminal.

    Raises:
      ValueError: there is no sweep, or the folder cannot be made.
    """
    sweep = sweep_tables.read(path)
    headings, rows = sweep_tables.columns(sweep)
    links = [_link(path, folder, cell.name) for cell in sweep.cells]
    linked = [[*row, link] for row, link in zip(rows, links, strict=True)]
    left_out, made_by = missing(sweep), setup(sweep)
    page = Page(folder, f"Sweep {path.resolve().name}")
    page.add(made_by)
    if sweep.cells:
        page.add("## Cells", first_cell(sweep), table([*headings, "folder"], linked))
        page.draw("cells", "accuracy by cell", lambda: figure(sweep))
    page.add(*(["## Cells without results", left_out] if left_out else []))
    page.write()
    lines = [left_out, made_by] if left_out else [made_by]
    return Group(sweep_tables.terminal(sweep), *lines)


def _link(path: Path, folder: Path, cell: str) -> str:
    """Returns a link to a cell's folder from that of the report."""
    return f"[{cell}](<{os.path.relpath(path / 'cells' / cell, folder)}>)"


def missing(sweep: Sweep) -> str:
    """Returns the cells without results, a line each."""
    errors, finished = sweep.content["failed"], {cell.name for cell in sweep.cells}
    return "\n".join(
        f"- `{name}` failed: {errors[name]}"
        if name in errors
        else f"- `{name}` has not run"
        for name in sweep.content["cells"]
        if name not in finished
    )


def setup(sweep: Sweep) -> str:
    """Returns machine, seeds, time and command of the measurements."""
    command = f"`{sweep.content['command']}`"
    rows = [row for cell in sweep.cells for own in cell.trials.values() for row in own]
    if not rows:
        return f"No cell has finished: {command}"
    seeds = ", ".join(sorted({row["seed"] for row in rows}))
    trials = len({row["trial"] for row in rows})
    parts = {row.get("evaluated") or "test" for row in rows}
    scored = ", on the validation part" if parts == {"validation"} else ""
    return (
        f"{stored.origin_text([sweep.content])} Seed {seeds}, {trials} "
        f"trial{'s' if trials > 1 else ''} each, in {sweep.content['seconds']:.0f} s "
        f"of training and evaluation{scored}: {command}"
    )


def section(sweep: Sweep) -> str:
    """Returns the table, what is missing from it, and how it was measured."""
    parts = [first_cell(sweep), table(*sweep_tables.columns(sweep))]
    parts += [missing(sweep), setup(sweep)]
    return "\n\n".join(part for part in parts if part)


def first_cell(sweep: Sweep) -> str:
    """Returns what the first cell has, where the others are named by what they have in
    its place; else nothing."""
    if not (sweep.cells and sweep_tables.is_wide(sweep)):
        return ""
    cell = sweep.cells[0]
    finished = "" if cell.name == sweep.content["cells"][0] else "finished "
    first = ", ".join(
        f"`{flag}={value}`" for flag, value in cell.values.items() if value
    )
    return (
        f"The first {finished}cell has {first}. Every other one is named by the values "
        "in which it differs from that."
    )


def figure(sweep: Sweep) -> Figure:
    """Draws mean and worst accuracy of every cell with the most lost results.

    Raises:
      ImportError: matplotlib is missing.
    """
    cells = sweep.cells
    drawn = canvas.new_figure(3 + 0.6 * len(cells), 4.5)
    axes = drawn.add_subplot()
    places = range(len(cells))
    for measure, marker in (("mean", "o"), ("worst", "v")):
        by_cell = [cell.of(cell.code, cell.most, measure) for cell in cells]
        means = [100 * statistics.fmean(values) for values in by_cell]
        deviations = [100 * statistics.stdev(v) if len(v) > 1 else 0 for v in by_cell]
        axes.errorbar(places, means, deviations, fmt=marker, capsize=3, label=measure)
    bases = [cell.of(cell.code, cell.most, "base_accuracy")[0] for cell in cells]
    axes.plot(places, [100 * base for base in bases], "k_", ms=18, label="base")
    axes.set_xticks(places, [sweep_tables.label(cell, sweep) for cell in cells])
    axes.tick_params(axis="x", rotation=90)
    axes.set_xlim(-0.7, len(cells) - 0.3)
    varied = ", ".join(sweep_tables.varied(sweep.content))
    wide = sweep_tables.is_wide(sweep)
    axes.set(xlabel="cell" if wide else varied, ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    drawn.legend(loc="outside right upper")
    return drawn
