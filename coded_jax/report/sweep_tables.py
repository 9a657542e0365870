"""The table of a sweep: a row for each cell, with the flags that vary."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table as RichTable

from coded_jax.report.formatting import mean_std, with_deviation
from coded_jax.report.table import Columns, make, to_terminal
from coded_jax.runs.sweeps import SWEEP, TABLE

Row = dict[str, Any]
MOST_COLUMNS = 6
"""Limits the varied flags that have a column each: cells of more are named by what they
have in the place of the first's values."""
MEASURED = ("tried",)
"""Flags that say what is measured of a cell, and not what it is."""
FIRST = "the first cell"


class Cell(NamedTuple):
    """One finished cell.

    Attributes:
      name: of its folder.
      values: of the varied flags, as text, empty where one is not set.
      code: the method that it is about.
      most: the most lost results that it is made for and that were tried.
      trials: all rows by method and number of lost results.
    """

    name: str
    values: dict[str, str]
    code: str
    most: int
    trials: dict[tuple[str, int], list[Row]]

    @property
    def settings(self) -> list[str]:
        """The varied flags that are set, as `flag=value`."""
        return [f"{flag}={value}" for flag, value in self.values.items() if value]

    def of(
        self, measure: str, method: str | None = None, lost: int | None = None
    ) -> list[float]:
        """Returns a measure in every trial, of `code` and with `most` lost results if
        nothing else is given; none of what was not tried."""
        key = (method or self.code, self.most if lost is None else lost)
        values = [row.get(measure) for row in self.trials.get(key, [])]
        return [value for value in values if value is not None]


class Sweep(NamedTuple):
    """A sweep's folder: the content of `sweep.json`, and the cells in their order."""

    content: dict[str, Any]
    cells: list[Cell]


def read(folder: Path) -> Sweep:
    """Reads `sweep.json` and `table.jsonl`.

    Raises:
      ValueError: one of them is missing or damaged.
    """
    try:
        content = json.loads((folder / SWEEP).read_text())
        lines = (folder / f"{TABLE}.jsonl").read_text().splitlines()
        by_cell: dict[str, list[Row]] = {name: [] for name in content["cells"]}
        for row in map(json.loads, lines):
            if not row.get("error") and row["cell"] in by_cell:
                by_cell[row["cell"]].append(row)
        cells, flags = [], varied(content)
        for name, rows in by_cell.items():
            if not rows:
                continue
            first, trials = rows[0], defaultdict(list)
            for row in rows:
                trials[row["method"], row["lost"]].append(row)
            code, made_for = first["code"], int(first["r"])
            most = max(l for method, l in trials if method == code and l <= made_for)
            values = {flag: first[flag] or "" for flag in flags if flag in first}
            cells.append(Cell(name, values, code, most, dict(trials)))
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"sweep: {str(folder)!r} given, a folder with {SWEEP} and {TABLE}.jsonl "
            "accepted"
        ) from None
    return Sweep(content, cells)


def varied(content: dict[str, Any]) -> list[str]:
    """Returns the flags of the grid and of the variants that tell what a cell is, each
    once."""
    words = [word for text in content["variants"] for word in shlex.split(text)]
    flags = [word.lstrip("-").partition("=")[0] for word in words if word[0] == "-"]
    flags = dict.fromkeys([*content["vary"], *flags])
    return [flag for flag in flags if flag not in MEASURED]


def label(cell: Cell, sweep: Sweep) -> str:
    """Returns the cell's values, or its name where another cell has the same ones, or
    what it has in the place of the first's values where these are many."""
    same = [other for other in sweep.cells if other.values == cell.values]
    if len(same) > 1:
        return cell.name
    if is_wide(sweep):
        return ", ".join(difference(cell, sweep)) or FIRST
    return " ".join(filter(None, cell.values.values()))


def is_wide(sweep: Sweep) -> bool:
    """Returns whether too many flags are varied for a column each."""
    return len(varied(sweep.content)) > MOST_COLUMNS


def difference(cell: Cell, sweep: Sweep) -> list[str]:
    """Returns `flag=value` of each value that the sweep's first cell has not; none of
    the first cell."""
    first = sweep.cells[0].values
    return [f"{k}={v}" for k, v in cell.values.items() if v != first.get(k)]


def trials_text(values: Sequence[float], scale: float = 100, digits: int = 2) -> str:
    """Returns mean and standard deviation over trials; `-` for no value."""
    if not values:
        return "-"
    mean, deviation = mean_std(values)
    return with_deviation(scale * mean, scale * deviation, digits)


def mean_and_worst(
    cell: Cell, method: str | None = None, lost: int | None = None
) -> str:
    """Returns `mean (worst)`; see `Cell.of`."""
    mean, worst = (trials_text(cell.of(x, method, lost)) for x in ("mean", "worst"))
    return mean if mean == worst else f"{mean} ({worst})"


def tried(cells: Iterable[Cell]) -> tuple[list[int], list[str]]:
    """Returns the numbers of lost results that some cells tried with their own codes,
    and the other methods that they tried with the most losses."""
    keys = [(cell, *key) for cell in cells for key in cell.trials]
    lost = sorted({lost for cell, method, lost in keys if method == cell.code})
    rivals = [x for cell, x, l in keys if x != cell.code and l == cell.most]
    return lost, [*dict.fromkeys(rivals)]


def columns(sweep: Sweep) -> Columns:
    """Returns the columns of cells: those that tell them apart, and measures."""
    cells, (counts, rivals) = sweep.cells, tried(sweep.cells)
    flags = [f for f in varied(sweep.content) if any(f in c.values for c in cells)]
    names: Columns = {
        f"`{flag}`": lambda cell, flag=flag: cell.values.get(flag, "") for flag in flags
    }
    if is_wide(sweep):
        names = {"cell": lambda cell: label(cell, sweep)}
    elif len({tuple(cell.values.items()) for cell in cells}) < len(cells):
        names = {"cell": lambda cell: cell.name, **names}
    accuracies = {
        f"{lost} lost, mean (worst)" if lost else "0 lost": (None, lost)
        for lost in counts
    }
    accuracies |= {f"{method}, most lost": (method, None) for method in rivals}
    return {
        **names,
        "base": lambda cell: trials_text(cell.of("base_accuracy")),
        **{
            header: lambda cell, key=key: mean_and_worst(cell, *key)
            for header, key in accuracies.items()
        },
        "work": lambda cell: trials_text(cell.of("work"), scale=1),
        "code's work, %": lambda cell: trials_text(cell.of("price")),
        "seconds": lambda cell: trials_text(cell.of("train_seconds"), 1, digits=0),
    }


def terminal(sweep: Sweep) -> RichTable:
    """Returns the columns that a terminal has room for."""
    shown = {
        name.strip("`"): text
        for name, text in columns(sweep).items()
        if name != "seconds" and not name.endswith("most lost")
    }
    return to_terminal(make(shown, sweep.cells))
