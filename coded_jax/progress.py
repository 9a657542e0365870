"""What the terminal shows of long work: bars, or a live table of a run's phases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table


def progress_bars(console: Console) -> Progress:
    """Bars with a note; nothing is drawn where there is no terminal."""
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not (console.is_terminal or console.is_jupyter),
    )


CELLS = ("loss", "score", "by_lost", "rate", "speed")
"""Of a row, empty until something is known of them."""


class LiveTable(Progress):
    """A row for each phase of a run, with what was logged of it last.

    Attributes:
      headings: of the columns.
      tells: whether phases print lines where there is no terminal for the table.
    """

    headings: Sequence[str] = ()
    tells: bool = True

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """All rows below the headings of their columns."""
        table = Table(*self.headings, box=box.SIMPLE_HEAD, pad_edge=False)
        for task in tasks:
            if task.visible:
                shown: list[Any] = list(self.columns)
                table.add_row(*(show(task) for show in shown))
        return table


def live_table(console: Console, tells: bool = True) -> LiveTable:
    """Shows the phases of a run; nothing is drawn where there is no terminal."""
    columns: dict[str, ProgressColumn] = {
        "phase": TextColumn("{task.description}"),
        "": BarColumn(16),
        "step": MofNCompleteColumn(),
        "loss": TextColumn("{task.fields[loss]}"),
        "validation": TextColumn("{task.fields[score]}"),
        "by lost": TextColumn("{task.fields[by_lost]}"),
        "rate": TextColumn("{task.fields[rate]}"),
        "images/s": TextColumn("{task.fields[speed]}"),
        "time": TimeElapsedColumn(),
        "left": TimeRemainingColumn(),
    }
    shown = console.is_terminal or console.is_jupyter
    # Time left is that of the mean speed so far: cells of a sweep take minutes.
    settings = {"disable": not shown, "speed_estimate_period": math.inf}
    table = LiveTable(*columns.values(), console=console, **settings)
    table.headings, table.tells = list(columns), tells
    return table


def add_row(table: Progress, phase: str, total: int) -> Any:
    """A row of a live table: its number, for `update` and `advance`."""
    empty: dict[str, Any] = dict.fromkeys(CELLS, "")
    row = table.add_task(phase, total=total, **empty)
    table.advance(row, 0)  # the clock starts
    return row
