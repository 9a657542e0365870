"""Tables of sweeps: searches of settings, ablations, studies; and of base models."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.report import sweep_tables
from coded_jax.report.formatting import percent, size_text
from coded_jax.report.sweep_tables import Cell, Sweep, mean_and_worst, trials_text
from coded_jax.report.table import Table, to_markdown
from coded_jax.runs.kept_base import RECORD
from coded_jax.runs.reading import code_name
from coded_jax.runs.sweep_table import SWEEP
from tables import stored, targets
from tables.runs import table_of, with_file
from tables.sections import Section

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

    @property
    def data(self) -> str:
        """The data set."""
        return stored.data_of({**self.sweep.content, "dataset": self.first["dataset"]})

    @property
    def network(self) -> str:
        """The network and its width, `vgg16 x 0.5`."""
        return f"{self.first['base_model']} x {float(self.first['base_width']):g}"

    def of(self, name: str, method: str = "", lost: int | None = None, **form) -> str:
        """Returns a measure as mean ± deviation over trials."""
        most = self.cell.most if lost is None else lost
        return trials_text(self.cell.of(method or self.cell.code, most, name), **form)


def read(kind: str) -> dict[Path, Sweep]:
    """Returns the sweeps of a kind by their folders, below those of all results.

    Args:
      kind: `alike` or one of `OWN`, of searches; `ablations`; `studies`.
    """

    def kind_of(place: Path) -> str:
        if place.parts[0] != "searches":
            return place.parts[-2]
        return next((word for word in OWN if word in place.name), ALIKE)

    folders = [path.parent for path in sorted(stored.RESULTS.rglob(SWEEP))]
    places = [folder.relative_to(stored.RESULTS) for folder in folders]
    return {
        place: sweep_tables.read(stored.RESULTS / place)
        for place in places
        if kind_of(place) == kind
    }


CELL: dict[str, Callable[[Row], str]] = {
    "sweep": lambda row: row.place.name,
    "measured": lambda row: "history" if row.place.parts[0] == stored.HISTORY else "-",
    "data": lambda row: row.data,
    "network": lambda row: row.network,
    **{x: lambda row, x=x: row.first[x] for x in ("k", "r", "code")},
    "cell": lambda row: " ".join(f"{x}={y}" for x, y in row.cell.values.items() if y),
    "best": lambda row: "best" * (row.cell is sweep_tables.best(row.sweep)),
    "base": lambda row: row.of("base_accuracy"),
}
COSTS: dict[str, Callable[[Row], str]] = {
    "work": lambda row: row.of("work", scale=1),
    "code's work, %": lambda row: (
        "-" if row.first.get("price") is None else row.of("price")
    ),
    "seconds": lambda row: row.of("train_seconds", scale=1, digits=0),
    "part": lambda row: row.first.get("evaluated") or "test",
    "seed": lambda row: row.first["seed"],
    "trials": lambda row: str(len(row.cell.trials[row.cell.code, row.cell.most])),
    "of all cells": lambda row: f"{row.sweep.content['seconds']:.0f} s",
    **{x.header: lambda row, x=x: x.text(row.sweep.content) for x in stored.ORIGIN},
}


def cells(sweeps: dict[Path, Sweep]) -> Table:
    """Returns a row for each cell of some sweeps, with all that was measured of it."""
    rows = [Row(place, x, cell) for place, x in sweeps.items() for cell in x.cells]
    tried = [(row.cell, *key) for row in rows for key in row.cell.trials]
    lost = sorted({lost for cell, method, lost in tried if method == cell.code})
    rivals = sorted({x for cell, x, l in tried if x != cell.code and l == cell.most})
    accuracies = {f"{l} lost": ("", l) for l in lost}
    accuracies |= {f"{rival}, r lost": (rival, None) for rival in rivals}
    columns = {
        f"{header}, {part}": lambda row, key=key, part=part: row.of(part, *key)
        for header, key in accuracies.items()
        for part in ("mean", "worst")
    }
    return table_of({**CELL, **columns, **COSTS}, rows)


def varying(sweep: Sweep) -> Table:
    """Returns the columns of a sweep that vary and are not mostly empty, without
    seconds, which tell machines apart and not codes."""
    headers, rows = sweep_tables.columns(sweep)
    kept = [
        column
        for column in zip(headers, *rows, strict=True)
        if len({*column[1:]}) > 1
        and column[0] != "seconds"
        and 2 * column.count("-") <= len(rows)
    ]
    headers, *rows = zip(*kept, strict=True)
    return Table(headers, rows)


def first_cell(sweep: Sweep) -> str:
    """Returns a sentence with the settings of the first cell, where the others are
    named by the settings that differ; else nothing."""
    if not (sweep.cells and sweep_tables.is_wide(sweep)):
        return ""
    values = sweep.cells[0].values.items()
    first = ", ".join(f"`{flag}={value}`" for flag, value in values if value)
    return f"The first cell has {first}. The others are named by what differs."


def cells_text(sweep: Sweep) -> str:
    """Returns the cells of a sweep by what varies."""
    return f"{first_cell(sweep)}\n\n{to_markdown(varying(sweep))}".strip()


def of_cells(text: str, name: str, sweeps: dict[Path, Sweep]) -> Section:
    """Returns a text and the line of the CSV file with every cell of some sweeps."""
    contents = [sweep.content for sweep in sweeps.values()]
    return with_file(text, name, cells(sweeps), "cell", contents)


def alike_section() -> Section:
    """Returns the accuracy of each code of LeNet-5's frontier for each way to train."""
    sweeps = read(ALIKE)
    first = next(iter(sweeps.values())).cells

    def score(i: int, sweep: Sweep) -> str:
        text = percent(sweep_tables.score(sweep.cells[i]))
        return f"**{text}**" if sweep.cells[i] is sweep_tables.best(sweep) else text

    def name(row: Row) -> str:
        code = code_name(defaultdict(lambda: None, row.first), row.cell.code)
        return f"{code} ({row.first['k']}, {row.first['r']})"

    columns = {
        f"`{flag}`": lambda i, flag=flag: first[i].values[flag]
        for flag in first[0].values
    } | {
        name(Row(place, x, x.cells[0])): lambda i, x=x: score(i, x)
        for place, x in sweeps.items()
    }
    text = to_markdown(table_of(columns, range(len(first))))
    return of_cells(text, "searches.csv", sweeps)


def best_section(kind: str) -> Section:
    """Returns the best cell of each search of a kind, and all cells as CSV."""

    def flags(row: Row) -> str:
        values = [f"{x}={value}" for x, value in row.cell.values.items() if value]
        if sweep_tables.is_wide(row.sweep):
            values = sweep_tables.difference(row.cell, row.sweep)
        return ", ".join(f"`{value}`" for value in values) or sweep_tables.FIRST

    accuracy = lambda x: mean_and_worst(x.cell, x.cell.code, x.cell.most)
    columns = {
        "search": lambda row: f"`{row.place.name}`",
        "network, data": lambda row: f"{row.network}, {row.data}",
        "k, r": lambda row: f"{row.first['k']}, {row.first['r']}",
        "cells": lambda row: str(len(row.sweep.cells)),
        "r lost, mean (worst)": accuracy,
        "the best cell": flags,
    }
    sweeps = read(kind)
    rows = [Row(place, x, sweep_tables.best(x)) for place, x in sweeps.items()]
    text = to_markdown(table_of(columns, rows))
    return of_cells(text, f"searches_{kind}.csv", sweeps)


def study_section() -> Section:
    """Returns the study of ParM's code, one change at a time."""
    sweeps = read("studies")
    (sweep,) = sweeps.values()
    return of_cells(cells_text(sweep), "study_parm.csv", sweeps)


def bases_section(folder: Path = BASES) -> Section:
    """Returns a row for each base model that is kept for codes on deep networks."""

    def epochs(record: dict[str, Any]) -> str:
        start = record["provenance"]["flags"].get("base_start")
        text = f"{record['network']['epochs']:g}"
        return f"{text} after `{Path(start).name}`" if start else text

    def target(record: dict[str, Any]) -> str:
        accuracy = 100 * record["base"]["test_accuracy"]
        return targets.base(record["dataset"], record["network"]["model"], accuracy)

    columns = {
        "folder": lambda x: f"`experiments/bases/{x['name']}`",
        "network": lambda x: f"{x['network']['model']} x {x['network']['width']:g}",
        "images": lambda x: size_text(x["image_shape"][:2]),
        "MB": lambda x: f"{2 * x['network']['numbers'] / 1e6:.1f}",
        "epochs": epochs,
        "validation, %": lambda x: percent(x["base"]["validation_accuracy"]),
        "test, %": lambda x: percent(x["base"]["test_accuracy"]),
        "target": target,
        "data": stored.data_of,
        "seconds": lambda x: f"{x['timing']['seconds']['base']:.0f}",
        **dict(stored.ORIGIN),
    }
    records = [
        {"name": path.parent.name, **json.loads(path.read_text())}
        for path in sorted(folder.glob(f"*/{RECORD}"))
    ]
    full = table_of(columns, records)
    text = to_markdown(Table(full.headers[:8], [row[:8] for row in full.rows]))
    return with_file(text, "bases.csv", full, "base model", records)


def _ablation(place: Path) -> Section:
    return Section(cells_text(sweep_tables.read(stored.RESULTS / place)))


SECTIONS: dict[str, Callable[[], Section]] = {
    "bases": bases_section,
    "searches": alike_section,
    **{f"searches_{x}": functools.partial(best_section, x) for x in OWN},
    "study_parm": study_section,
    "ablations": lambda: of_cells("", "ablations.csv", read("ablations")),
    **{
        f"ablation_{place.name}": functools.partial(_ablation, place)
        for place in read("ablations")
    },
}
