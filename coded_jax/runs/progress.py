"""What the terminal shows of long work: bars, or a live table of a run's phases."""

from __future__ import annotations

import math
from collections.abc import Iterable
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


WIDE = 100
NARROW = ("", "rate", "img/s")
"""Columns that a terminal of less than `WIDE` is left without."""
CELLS = ("loss", "score", "by_lost", "rate", "speed")
"""Of a row, empty until something is known of them."""


class LiveTable(Progress):
    """A row for each phase of a run, with what was logged of it last.

    Args:
      columns: by heading.
      tells: whether phases print lines where there is no terminal for the table.
      settings: of `rich.progress.Progress`.
    """

    def __init__(
        self, columns: dict[str, ProgressColumn], *, tells: bool, **settings: Any
    ) -> None:
        self._headings, self.tells = list(columns), tells
        super().__init__(*columns.values(), **settings)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Returns all rows below the headings of their columns."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for heading in self._headings:
            table.add_column(heading, no_wrap=True)
        for task in tasks:
            if task.visible:
                shown: list[Any] = list(self.columns)
                table.add_row(*(show(task) for show in shown))
        return table


def live_table(console: Console, tells: bool = True) -> LiveTable:
    """Shows the phases of a run; nothing is drawn where there is no terminal.

    A terminal of less than `WIDE` columns is left without those of `NARROW`.
    """
    columns: dict[str, ProgressColumn] = {
        "phase": TextColumn("{task.description}"),
        "": BarColumn(12),
        "step": MofNCompleteColumn(),
        "loss": TextColumn("{task.fields[loss]}"),
        "valid": TextColumn("{task.fields[score]}"),
        "by lost": TextColumn("{task.fields[by_lost]}"),
        "rate": TextColumn("{task.fields[rate]}"),
        "img/s": TextColumn("{task.fields[speed]}"),
        "time": TimeElapsedColumn(),
        "left": TimeRemainingColumn(),
    }
    if console.width < WIDE:
        columns = {n: c for n, c in columns.items() if n not in NARROW}
    # Time left is that of the mean speed so far: cells of a sweep take minutes.
    return LiveTable(
        columns,
        tells=tells,
        console=console,
        disable=not (console.is_terminal or console.is_jupyter),
        speed_estimate_period=math.inf,
    )


def add_row(table: Progress, phase: str, total: int) -> Any:
    """A row of a live table: its number, for `update` and `advance`."""
    empty: dict[str, Any] = dict.fromkeys(CELLS, "")
    row = table.add_task(phase, total=total, **empty)
    begin_at(table, row, 0)
    return row


def begin_at(table: Progress, row: Any, completed: int) -> None:
    """So much was done before; time and speed count from now on."""
    table.reset(row, completed=completed)
    table.advance(row, 0)  # the clock of the speed starts
