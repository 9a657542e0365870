"""The report of a sweep."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Group

from tables import sweep_tables
from tables.markdown import table
from tables.pages import Page


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
    missing, setup = sweep_tables.missing(sweep), sweep_tables.setup(sweep)
    page = Page(folder, f"Sweep {path.resolve().name}")
    page.add(setup)
    if sweep.cells:
        page.add("## Cells", table([*headings, "folder"], linked))
        page.draw("cells", "accuracy by cell", lambda: sweep_tables.figure(sweep))
    page.add(*(["## Cells without results", missing] if missing else []))
    page.write()
    return Group(sweep_tables.terminal(sweep), *([missing] if missing else []), setup)


def _link(path: Path, folder: Path, cell: str) -> str:
    """Returns a link to a cell's folder from that of the report."""
    return f"[{cell}](<{os.path.relpath(path / 'cells' / cell, folder)}>)"
