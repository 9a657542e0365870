"""Tables of the searches: how each code of the frontier is trained best, and which code
is LeNet-5's default."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from coded_jax.report import sweep_tables
from coded_jax.report.formatting import percent
from coded_jax.report.sweep_tables import Cell
from coded_jax.runs.reading import code_name
from coded_jax.runs.sweep_table import SWEEP
from tables import markdown, stored, sweep_report

DEFAULT = "default"
"""Is in the names of searches that have cells of their own, for the default code."""


def folders(of_the_default: bool) -> list[Path]:
    """Returns the folders of all stored searches, by name: those that have the same
    cells for every code of the frontier, or those for the default code."""
    paths = [path.parent for path in stored.RESULTS.glob(f"searches/*/{SWEEP}")]
    return sorted(x for x in paths if (DEFAULT in x.name) == of_the_default)


def name_of(cell: Cell) -> str:
    """Returns the name of a cell's code in tables, with its size."""
    first = next(iter(cell.trials.values()))[0]
    name = code_name(defaultdict(lambda: None, first), cell.code)
    return f"{name} ({first['k']}, {first['r']})"


def section() -> str:
    """Returns a row for each way to train and a column for each code, `(k, r)` behind
    it, all with the same cells, and where the measurements are from."""
    searches = [*map(sweep_tables.read, folders(of_the_default=False))]
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


def default_section() -> str:
    """Returns every cell of the searches for the default code, the best one named."""
    parts = []
    for folder in folders(of_the_default=True):
        search = sweep_tables.read(folder)
        chosen = sweep_tables.best(search)
        first = next(iter(chosen.trials.values()))[0]
        values = ", ".join(f"`--{k}={v}`" for k, v in chosen.values.items() if v)
        score = percent(sweep_tables.score(chosen))
        parts.append(f"k={first['k']} r={first['r']}, the best is {score} %: {values}.")
        parts.append(sweep_report.section(search))
    return "\n\n".join(parts)
