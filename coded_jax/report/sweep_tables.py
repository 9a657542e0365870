"""The table of a sweep: a row for each cell, with the flags that vary."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from coded_jax.report import frontier
from coded_jax.report.formatting import with_deviation
from coded_jax.runs.sweep_table import SWEEP, TABLE

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

    def of(self, method: str, lost: int, measure: str) -> list[float]:
        """Returns a measure in every trial; none of what was not tried."""
        return [row[measure] for row in self.trials.get((method, lost), [])]


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
        rows = [row for row in map(json.loads, lines) if not row.get("error")]
        cells = [_cell(name, rows, content) for name in content["cells"]]
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"sweep: {str(folder)!r} given, a folder with {SWEEP} and {TABLE}.jsonl "
            "accepted"
        ) from None
    return Sweep(content, [cell for cell in cells if cell is not None])


def _cell(name: str, rows: list[Row], content: dict[str, Any]) -> Cell | None:
    own = [row for row in rows if row["cell"] == name]
    if not own:
        return None
    first, trials = own[0], {}
    for row in own:
        trials.setdefault((row["method"], row["lost"]), []).append(row)
    values = {f: first[f] or "" for f in varied(content) if f in first}
    code = first["code"]
    lost_counts = [lost for method, lost in trials if method == code]
    most = max(lost for lost in lost_counts if lost <= int(first["r"]))
    return Cell(name, values, code, most, trials)


def varied(content: dict[str, Any]) -> list[str]:
    """Returns the flags of the grid and of the variants that tell what a cell is, each
    once."""
    words = [word for text in content["variants"] for word in shlex.split(text)]
    flags = [word.lstrip("-").partition("=")[0] for word in words if word[0] == "-"]
    flags = dict.fromkeys([*content["vary"], *flags])
    return [flag for flag in flags if flag not in MEASURED]


def score(cell: Cell) -> float:
    """Returns the mean accuracy over trials and over the patterns of the most losses
    that a cell is made for: what searches go by."""
    return statistics.fmean(cell.of(cell.code, cell.most, "mean"))


def best(sweep: Sweep) -> Cell:
    """Returns the first cell with the highest score: what a search chooses."""
    return max(sweep.cells, key=score)


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
    mean, deviation = frontier.mean_std([scale * value for value in values])
    return with_deviation(mean, deviation, digits)


def mean_and_worst(cell: Cell, method: str, lost: int) -> str:
    """Returns `mean (worst)`."""
    mean, worst = (trials_text(cell.of(method, lost, x)) for x in ("mean", "worst"))
    return mean if mean == worst else f"{mean} ({worst})"


def columns(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Returns headings, and a row for each cell."""
    cells = sweep.cells
    names, cell_rows = _named_cells(sweep)
    lost = sorted({l for c in cells for method, l in c.trials if method == c.code})
    rivals = [
        method
        for method in dict.fromkeys(method for c in cells for method, _ in c.trials)
        if any(method != c.code and (method, c.most) in c.trials for c in cells)
    ]
    headings = [*names, "base"]
    headings += [f"{l} lost, mean (worst)" if l else "0 lost" for l in lost]
    headings += [f"{method}, most lost" for method in rivals]
    # Tables of before have no prices.
    own = (row for cell in cells for row in cell.trials[cell.code, cell.most])
    priced = all(row.get("price") is not None for row in own)
    headings += ["work", *["code's work, %"] * priced, "seconds"]
    rows = []
    for cell, named in zip(cells, cell_rows, strict=True):
        row = [*named, trials_text(cell.of(cell.code, cell.most, "base_accuracy"))]
        row += [mean_and_worst(cell, cell.code, l) for l in lost]
        row += [mean_and_worst(cell, method, cell.most) for method in rivals]
        row.append(trials_text(cell.of(cell.code, cell.most, "work"), 1))
        if priced:
            row.append(trials_text(cell.of(cell.code, cell.most, "price")))
        row.append(trials_text(cell.of(cell.code, cell.most, "train_seconds"), 1, 0))
        rows.append(row)
    return headings, rows


def _named_cells(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Returns the headings of the columns that tell cells apart, and these columns."""
    cells = sweep.cells
    if is_wide(sweep):
        return ["cell"], [[label(cell, sweep)] for cell in cells]
    flags = [f for f in varied(sweep.content) if any(f in c.values for c in cells)]
    named = len({tuple(cell.values.items()) for cell in cells}) < len(cells)
    headings = [*["cell"] * named, *(f"`{flag}`" for flag in flags)]
    return headings, [
        [*[cell.name] * named, *(cell.values.get(flag, "") for flag in flags)]
        for cell in cells
    ]


def terminal(sweep: Sweep) -> Table:
    """Returns the columns that a terminal has room for."""
    headings, rows = columns(sweep)
    kept = [
        i
        for i, name in enumerate(headings)
        if name != "seconds" and not name.endswith("most lost")
    ]
    table = Table(*(headings[i].strip("`") for i in kept), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    return table
