"""Tables of the searches: how each code of the frontier is trained best, which code is
LeNet-5's default, and what the codes on deep networks are made of."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from coded_jax.report import sweep_tables
from coded_jax.report.formatting import percent
from coded_jax.report.sweep_tables import Cell
from coded_jax.runs.reading import code_name
from coded_jax.runs.sweep_table import SWEEP
from tables import markdown, stored, sweep_report

ALIKE, DEFAULT, DEEP, IMAGES = "alike", "default", "deep", "images"
"""Searches with the same cells for every code of the frontier; and those with cells of
their own, for the default code, on deep networks, and where answers are images, which
have that in their names."""


def folders(kind: str) -> list[Path]:
    """Returns the folders of all stored searches of a kind, by name."""
    paths = [path.parent for path in stored.RESULTS.glob(f"searches/*/{SWEEP}")]
    own = (DEFAULT, DEEP, IMAGES)
    of = lambda path: next((x for x in own if x in path.name), ALIKE)
    return sorted(path for path in paths if of(path) == kind)


def name_of(cell: Cell) -> str:
    """Returns the name of a cell's code in tables, with its size."""
    first = next(iter(cell.trials.values()))[0]
    name = code_name(defaultdict(lambda: None, first), cell.code)
    return f"{name} ({first['k']}, {first['r']})"


def section() -> str:
    """Returns a row for each way to train and a column for each code, `(k, r)` behind
    it, all with the same cells, and where the measurements are from."""
    searches = [*map(sweep_tables.read, folders(ALIKE))]
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


def section_of(kind: str) -> str:
    """Returns every cell of the searches of a kind, the best one named."""
    parts = []
    for folder in folders(kind):
        search = sweep_tables.read(folder)
        chosen = sweep_tables.best(search)
        first = next(iter(chosen.trials.values()))[0]
        values = [f"{k}={v}" for k, v in chosen.values.items() if v]
        if wide := sweep_tables.is_wide(search):
            values = sweep_tables.difference(chosen, search)
        best = ", ".join(f"`--{value}`" for value in values)
        if wide:
            best = " with ".join(filter(None, [sweep_tables.FIRST, best]))
        score = percent(sweep_tables.score(chosen))
        network = f"{first['base_model']} x {float(first['base_width']):g}"
        data = stored.data_of({**search.content, "dataset": first["dataset"]})
        title = f"{network} on {data}, k={first['k']} r={first['r']}"
        parts.append(f"{title}, the best is {score} %: {best}.")
        parts.append(sweep_report.section(search))
    return "\n\n".join(parts)
