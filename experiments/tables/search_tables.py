"""Table of the searches: how each code of the frontier is trained best."""

from __future__ import annotations

from collections import defaultdict

from coded_jax.report import sweep_tables
from coded_jax.report.formatting import percent
from coded_jax.report.sweep_tables import Cell, Sweep
from coded_jax.runs.reading import code_name
from coded_jax.runs.sweep_table import SWEEP
from tables import markdown, stored


def stored_searches() -> list[Sweep]:
    """Returns all stored searches of the frontier, by the names of their folders."""
    paths = sorted(stored.RESULTS.glob(f"searches/*/{SWEEP}"))
    return [sweep_tables.read(path.parent) for path in paths]


def name_of(cell: Cell) -> str:
    """Returns the name of a cell's code in tables, with its size."""
    first = next(iter(cell.trials.values()))[0]
    name = code_name(defaultdict(lambda: None, first), cell.code)
    return f"{name} ({first['k']}, {first['r']})"


def section() -> str:
    """Returns a row for each way to train and a column for each code, `(k, r)` behind
    it, all with the same cells, and where the measurements are from."""
    searches = stored_searches()
    first = searches[0]
    flags = sweep_tables.varied(first.content)
    headings = [*(f"`{flag}`" for flag in flags)]
    headings += [name_of(search.cells[0]) for search in searches]
    rows = [[*cell.values.values()] for cell in first.cells]
    for search in searches:
        chosen = sweep_tables.best(search)
        for row, cell in zip(rows, search.cells, strict=True):
            text = percent(sweep_tables.score(cell))
            row.append(f"**{text}**" if cell is chosen else text)
    commands = "\n".join(f"- `{search.content['command']}`" for search in searches)
    origin = stored.origin_text([search.content for search in searches])
    return "\n\n".join([markdown.table(headings, rows), origin, commands])
