"""Tables of sweeps: searches of settings, ablations, studies; and of base models."""

from __future__ import annotations

import functools
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.report import sweep_tables
from coded_jax.report.formatting import network_text, percent, size_text
from coded_jax.report.sweep_tables import Cell, Sweep, mean_and_worst, trials_text
from coded_jax.report.table import Table, make, select
from coded_jax.runs.kept_base import RECORD
from coded_jax.runs.reading import code_name
from coded_jax.runs.sweeps import SWEEP
from tables import stored, targets
from tables.stored import Section, section

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
        """The network and its width."""
        return network_text(self.first["base_model"], float(self.first["base_width"]))


def places(kind: str) -> list[Path]:
    """Returns the folders of the sweeps of a kind, below those of all results: `alike`
    or one of `OWN`, of searches; `ablations`; `studies`."""

    def kind_of(place: Path) -> str:
        if place.parts[0] != "searches":
            return place.parts[-2]
        return next((word for word in OWN if word in place.name), ALIKE)

    paths = sorted(stored.RESULTS.rglob(SWEEP))
    folders = [path.parent.relative_to(stored.RESULTS) for path in paths]
    return [place for place in folders if kind_of(place) == kind]


def read(kind: str) -> dict[Path, Sweep]:
    """Returns the sweeps of a kind by their folders; see `places`."""
    return {place: sweep_tables.read(stored.RESULTS / place) for place in places(kind)}


def cells(sweeps: dict[Path, Sweep]) -> Table:
    """Returns a row for each cell of some sweeps, with all that was measured of it."""
    rows = [Row(place, x, cell) for place, x in sweeps.items() for cell in x.cells]
    counts, rivals = sweep_tables.tried(row.cell for row in rows)
    accuracies = {f"{lost} lost": (None, lost) for lost in counts}
    accuracies |= {f"{rival}, r lost": (rival, None) for rival in sorted(rivals)}
    columns = {
        "sweep": lambda row: row.place.name,
        "measured": lambda row: (
            stored.HISTORY if row.place.parts[0] == stored.HISTORY else "-"
        ),
        "data": lambda row: row.data,
        "network": lambda row: row.network,
        **{x: lambda row, x=x: row.first[x] for x in ("k", "r", "code")},
        "cell": lambda row: " ".join(row.cell.settings),
        "best": lambda row: "best" * (row.cell is best(row.sweep)),
        "base": lambda row: trials_text(row.cell.of("base_accuracy")),
        **{
            f"{header}, {part}": lambda row, key=key, part=part: trials_text(
                row.cell.of(part, *key)
            )
            for header, key in accuracies.items()
            for part in ("mean", "worst")
        },
        "work": lambda row: trials_text(row.cell.of("work"), scale=1),
        "code's work, %": lambda row: trials_text(row.cell.of("price")),
        "seconds": lambda row: trials_text(row.cell.of("train_seconds"), 1, digits=0),
        "part": lambda row: row.first.get("evaluated") or "test",
        "seed": lambda row: row.first["seed"],
        "trials": lambda row: str(len(row.cell.of("mean"))),
        "of all cells": lambda row: f"{row.sweep.content['seconds']:.0f} s",
        **stored.origins(lambda row: row.sweep.content),
    }
    return make(columns, rows)


def varying(sweep: Sweep) -> Table:
    """Returns the columns of a sweep that vary and are not mostly empty, without
    seconds, which tell machines apart and not codes."""
    return select(
        make(sweep_tables.columns(sweep), sweep.cells),
        lambda header, texts: (
            header != "seconds"
            and len({*texts}) > 1
            and 2 * texts.count("-") <= len(texts)
        ),
    )


def first_cell(sweep: Sweep) -> str:
    """Returns a sentence with the settings of the first cell, where the others are
    named by the settings that differ; else nothing."""
    if not (sweep.cells and sweep_tables.is_wide(sweep)):
        return ""
    first = ", ".join(f"`{setting}`" for setting in sweep.cells[0].settings)
    return f"The first cell has {first}. The others are named by what differs."


def section_of(sweeps: dict[Path, Sweep], name: str, *parts: str | Table) -> Section:
    """Returns some parts, and the CSV file of a name with every cell of some sweeps."""
    contents = [sweep.content for sweep in sweeps.values()]
    files = {name: (cells(sweeps), "cell")}
    return section(*parts, files=files, contents=contents)


def score(cell: Cell) -> float:
    """Returns the mean accuracy over trials and over the patterns of the most losses
    that a cell is made for: the first cell with the highest is a search's `best`."""
    return statistics.fmean(cell.of("mean"))


best = lambda sweep: max(sweep.cells, key=score)


def alike_section() -> Section:
    """Returns the accuracy of each code of LeNet-5's frontier for each way to train."""
    sweeps = read(ALIKE)

    def code(sweep: Sweep) -> str:
        row = Row(Path(), sweep, sweep.cells[0])
        name = code_name(defaultdict(lambda: None, row.first), row.cell.code)
        return f"{name} ({row.first['k']}, {row.first['r']})"

    def score_text(cell: Cell, sweep: Sweep) -> str:
        text = percent(score(cell))
        return f"**{text}**" if cell is best(sweep) else text

    records = [*zip(*(sweep.cells for sweep in sweeps.values()), strict=True)]
    columns = {
        f"`{flag}`": lambda record, flag=flag: record[0].values[flag]
        for flag in records[0][0].values
    } | {
        code(sweep): lambda record, i=i, sweep=sweep: score_text(record[i], sweep)
        for i, sweep in enumerate(sweeps.values())
    }
    return section_of(sweeps, "searches.csv", make(columns, records))


def best_section(kind: str) -> Section:
    """Returns the best cell of each search of a kind, and all cells as CSV."""

    def settings(row: Row) -> str:
        texts = row.cell.settings
        if sweep_tables.is_wide(row.sweep):
            texts = sweep_tables.difference(row.cell, row.sweep)
        return ", ".join(f"`{text}`" for text in texts) or sweep_tables.FIRST

    columns = {
        "search": lambda row: f"`{row.place.name}`",
        "network, data": lambda row: f"{row.network}, {row.data}",
        "k, r": lambda row: f"{row.first['k']}, {row.first['r']}",
        "cells": lambda row: str(len(row.sweep.cells)),
        "r lost, mean (worst)": lambda row: mean_and_worst(row.cell),
        "the best cell": settings,
    }
    sweeps = read(kind)
    rows = [Row(place, x, best(x)) for place, x in sweeps.items()]
    return section_of(sweeps, f"searches_{kind}.csv", make(columns, rows))


def bases_section(folder: Path = BASES) -> Section:
    """Returns a row for each base model that is kept for codes on deep networks."""

    def epochs(record: dict[str, Any]) -> str:
        start = record["provenance"]["flags"].get("base_start")
        text = f"{record['network']['epochs']:g}"
        return f"{text} after `{Path(start).name}`" if start else text

    short = {
        "folder": lambda x: f"`experiments/bases/{x['name']}`",
        "network": lambda x: network_text(x["network"]["model"], x["network"]["width"]),
        "images": lambda x: size_text(x["image_shape"][:2]),
        "MB": lambda x: f"{2 * x['network']['numbers'] / 1e6:.1f}",
        "epochs": epochs,
        "validation, %": lambda x: percent(x["base"]["validation_accuracy"]),
        "test, %": lambda x: percent(x["base"]["test_accuracy"]),
        "target": lambda x: targets.base(
            x["dataset"], x["network"]["model"], 100 * x["base"]["test_accuracy"]
        ),
    }
    full = {
        **short,
        "data": stored.data_of,
        "seconds": lambda x: f"{x['timing']['seconds']['base']:.0f}",
        **stored.origins(),
    }
    records = [
        {"name": path.parent.name, **json.loads(path.read_text())}
        for path in sorted(folder.glob(f"*/{RECORD}"))
    ]
    files = {"bases.csv": (make(full, records), "base model")}
    return section(make(short, records), files=files, contents=records)


def ablation_section(place: Path) -> Section:
    """Returns the cells of an ablation by what varies."""
    sweep = sweep_tables.read(stored.RESULTS / place)
    return section(first_cell(sweep), varying(sweep))


def study_section() -> Section:
    """Returns the study of ParM's code, one change at a time, and all cells as CSV."""
    sweeps = read("studies")
    return section_of(sweeps, "study_parm.csv", *map(varying, sweeps.values()))


SECTIONS = {
    "bases": bases_section,
    "searches": alike_section,
    **{f"searches_{x}": functools.partial(best_section, x) for x in OWN},
    "study_parm": study_section,
    "ablations": lambda: section_of(read("ablations"), "ablations.csv"),
    **{
        f"ablation_{place.name}": functools.partial(ablation_section, place)
        for place in places("ablations")
    },
}
