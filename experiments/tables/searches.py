"""Tables of sweeps: searches of settings, ablations, studies; and of base models."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.report import sweep_tables
from coded_jax.report.formatting import percent
from coded_jax.report.sweep_tables import Cell, Sweep, mean_and_worst, trials_text
from coded_jax.report.table import Column, Table, make, to_markdown
from coded_jax.runs.kept_base import RECORD
from coded_jax.runs.reading import code_name
from coded_jax.runs.sweep_table import SWEEP
from tables import stored, targets
from tables.sections import Section, linked

ALIKE, OWN = "alike", ("default", "deep", "images")
"""Searches with the same cells for every code of LeNet-5's frontier; and those with
cells of their own, whose names have one of these words."""
BASES = stored.EXPERIMENTS / "bases"


class Row(NamedTuple):
    """A finished cell of a sweep, whose folder `place` is below the results."""

    place: Path
    sweep: Sweep
    cell: Cell

    @property
    def first(self) -> dict[str, Any]:
        """The settings of the cell, as text."""
        return next(iter(self.cell.trials.values()))[0]


def read(kind: str) -> dict[Path, Sweep]:
    """Returns the sweeps of a kind by their folders, below those of all results.

    Args:
      kind: `alike` or one of `OWN`, of searches; `ablations`; `studies`.
    """
    folders = [path.parent for path in sorted(stored.RESULTS.rglob(SWEEP))]
    places = [folder.relative_to(stored.RESULTS) for folder in folders]
    of = lambda name: next((word for word in OWN if word in name), ALIKE)
    kinds = [
        of(place.name) if place.parts[0] == "searches" else place.parts[-2]
        for place in places
    ]
    return {
        place: sweep_tables.read(folder)
        for folder, place, own in zip(folders, places, kinds, strict=True)
        if own == kind
    }


def cells(sweeps: dict[Path, Sweep]) -> Table:
    """Returns a row for each cell of some sweeps, with all that was measured of it."""
    rows = [Row(place, x, cell) for place, x in sweeps.items() for cell in x.cells]
    tried = [(row.cell, *key) for row in rows for key in row.cell.trials]
    lost = sorted({lost for cell, method, lost in tried if method == cell.code})
    rivals = sorted(
        {x for cell, x, most in tried if x != cell.code and most == cell.most}
    )
    of = lambda row, name, scale=100, digits=2: trials_text(
        row.cell.of(row.cell.code, row.cell.most, name), scale, digits
    )
    priced = lambda row: row.first.get("price") is not None
    columns = {
        "sweep": lambda row: row.place.name,
        "measured": lambda row: (
            "history" if row.place.parts[0] == stored.HISTORY else "present"
        ),
        "data": lambda row: data_text(row),
        "network": lambda row: network(row),
        **{x: lambda row, x=x: row.first[x] for x in ("k", "r", "code")},
        "cell": lambda row: " ".join(
            f"{x}={value}" for x, value in row.cell.values.items() if value
        ),
        "best": lambda row: (
            "best"
            if row.place.parts[0] == "searches"
            and row.cell is sweep_tables.best(row.sweep)
            else ""
        ),
        "base": lambda row: of(row, "base_accuracy"),
        **{
            f"{l} lost, {x}": lambda row, l=l, x=x: trials_text(
                row.cell.of(row.cell.code, l, x)
            )
            for l in lost
            for x in ("mean", "worst")
        },
        **{
            f"{rival}, r lost, {x}": lambda row, rival=rival, x=x: trials_text(
                row.cell.of(rival, row.cell.most, x)
            )
            for rival in rivals
            for x in ("mean", "worst")
        },
        "work": lambda row: of(row, "work", 1),
        "code's work, %": lambda row: of(row, "price") if priced(row) else "-",
        "seconds": lambda row: of(row, "train_seconds", 1, 0),
        "part": lambda row: row.first.get("evaluated") or "test",
        "seed": lambda row: row.first["seed"],
        "trials": lambda row: str(len(row.cell.trials[row.cell.code, row.cell.most])),
        "of all cells": lambda row: f"{row.sweep.content['seconds']:.0f} s",
        **{x.header: lambda row, x=x: x.text(row.sweep.content) for x in stored.ORIGIN},
    }
    return make([Column(*item) for item in columns.items()], rows)


def data_text(row: Row) -> str:
    """Returns the data set of a cell."""
    return stored.data_of({**row.sweep.content, "dataset": row.first["dataset"]})


def network(row: Row) -> str:
    """Returns the network of a cell, `vgg16 x 0.5`."""
    return f"{row.first['base_model']} x {float(row.first['base_width']):g}"


def varying(sweep: Sweep) -> Table:
    """Returns the columns of a sweep that are not the same in all rows, without those
    of seconds, which tell machines apart and not codes."""
    headers, rows = sweep_tables.columns(sweep)
    kept = [
        i
        for i, (header, *column) in enumerate(zip(headers, *rows, strict=True))
        if len({*column}) > 1 and header != "seconds"
    ]
    return Table(
        [headers[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
    )


def sweep_section(place: str, name: str = "") -> Section:
    """Returns the cells of a sweep by what varies, and its CSV file if it has a name."""
    sweep = sweep_tables.read(stored.RESULTS / place)
    parts = [first_cell(sweep), to_markdown(varying(sweep))]
    full = cells({Path(place): sweep})
    if name:
        parts += [stored.origin_text([sweep.content]), linked(name, full, "cell")]
    return Section("\n\n".join(filter(None, parts)), {name: full} if name else {})


def first_cell(sweep: Sweep) -> str:
    """Returns what the first cell has, where the others are named by what they have in
    its place; else nothing."""
    if not (sweep.cells and sweep_tables.is_wide(sweep)):
        return ""
    values = sweep.cells[0].values.items()
    first = ", ".join(f"`{flag}={value}`" for flag, value in values if value)
    return f"The first cell has {first}. The others are named by what differs."


def all_cells(kind: str, name: str) -> Section:
    """Returns the line of the CSV file with every cell of a kind of sweeps."""
    sweeps = read(kind)
    origin = stored.origin_text(sweep.content for sweep in sweeps.values())
    full = cells(sweeps)
    return Section(f"{origin}\n\n{linked(name, full, 'cell')}", {name: full})


def alike_section() -> Section:
    """Returns the accuracy of each code of LeNet-5's frontier for each way to train."""
    sweeps = read(ALIKE)
    first = next(iter(sweeps.values()))
    way = lambda cell: ", ".join(sweep_tables.difference(cell, first))

    def score(sweep: Sweep, i: int) -> str:
        text = percent(sweep_tables.score(sweep.cells[i]))
        return f"**{text}**" if sweep.cells[i] is sweep_tables.best(sweep) else text

    columns = [
        Column("code", lambda sweep: name_of(Row(Path(), sweep, sweep.cells[0])))
    ]
    columns += [
        Column(way(cell) or sweep_tables.FIRST, functools.partial(score, i=i))
        for i, cell in enumerate(first.cells)
    ]
    values = ", ".join(f"`{x}={y}`" for x, y in first.cells[0].values.items())
    text = (
        f"The first cell has {values}.\n\n{to_markdown(make(columns, sweeps.values()))}"
    )
    rest = all_cells(ALIKE, "searches.csv")
    return Section(f"{text}\n\n{rest.text}", rest.files)


def name_of(row: Row) -> str:
    """Returns the name of a cell's code in tables, with its size."""
    name = code_name(defaultdict(lambda: None, row.first), row.cell.code)
    return f"{name} ({row.first['k']}, {row.first['r']})"


def best_section(kind: str) -> Section:
    """Returns the best cell of each search of a kind, and all cells as CSV."""

    def flags(row: Row) -> str:
        values = [f"{x}={value}" for x, value in row.cell.values.items() if value]
        if sweep_tables.is_wide(row.sweep):
            values = sweep_tables.difference(row.cell, row.sweep)
        return ", ".join(f"`{value}`" for value in values) or sweep_tables.FIRST

    columns = [
        Column("search", lambda row: f"`{row.place.name}`"),
        Column("network, data", lambda row: f"{network(row)}, {data_text(row)}"),
        Column("k, r", lambda row: f"{row.first['k']}, {row.first['r']}"),
        Column("cells", lambda row: str(len(row.sweep.cells))),
        Column(
            "r lost, mean (worst)",
            lambda row: mean_and_worst(row.cell, row.cell.code, row.cell.most),
        ),
        Column("the best cell", flags),
    ]
    rows = [Row(place, x, sweep_tables.best(x)) for place, x in read(kind).items()]
    rest = all_cells(kind, f"searches_{kind}.csv")
    return Section(f"{to_markdown(make(columns, rows))}\n\n{rest.text}", rest.files)


def bases_section(folder: Path = BASES) -> Section:
    """Returns a row for each base model that is kept for codes on deep networks."""

    def epochs(record: dict[str, Any]) -> str:
        start = record["provenance"]["flags"].get("base_start")
        text = f"{record['network']['epochs']:g}"
        return f"{text} after `{Path(start).name}`" if start else text

    accuracy = lambda part: lambda x: percent(x["base"][f"{part}_accuracy"])
    columns = [
        Column("folder", lambda x: f"`experiments/bases/{x['name']}`"),
        Column(
            "network",
            lambda x: f"{x['network']['model']} x {x['network']['width']:g}",
        ),
        Column("images", lambda x: "x".join(map(str, x["image_shape"][:2]))),
        Column("MB", lambda x: f"{2 * x['network']['numbers'] / 1e6:.1f}"),
        Column("epochs", epochs),
        Column("validation, %", accuracy("validation")),
        Column("test, %", accuracy("test")),
        Column(
            "target",
            lambda x: targets.base(
                x["dataset"], x["network"]["model"], 100 * x["base"]["test_accuracy"]
            ),
        ),
        Column("data", stored.data_of),
        Column("seconds", lambda x: f"{x['timing']['seconds']['base']:.0f}"),
        *stored.ORIGIN,
    ]
    records = [
        {"name": path.parent.name, **json.loads(path.read_text())}
        for path in sorted(folder.glob(f"*/{RECORD}"))
    ]
    parts = [to_markdown(make(columns[:8], records)), stored.origin_text(records)]
    parts += [linked("bases.csv", full := make(columns, records), "base model")]
    return Section("\n\n".join(parts), {"bases.csv": full})


SECTIONS: dict[str, Callable[[], Section]] = {
    "bases": bases_section,
    "searches": alike_section,
    **{f"searches_{x}": functools.partial(best_section, x) for x in OWN},
    "study_parm": functools.partial(sweep_section, "studies/parm", "study_parm.csv"),
    "ablations": functools.partial(all_cells, "ablations", "ablations.csv"),
    **{
        f"ablation_{place.name}": functools.partial(sweep_section, str(place))
        for place in read("ablations")
    },
}
