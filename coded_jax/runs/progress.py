"""Progress on the terminal: bars, or a live table of a run's phases."""

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
    """Returns bars with a note, which are drawn only on a terminal."""
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
"""Columns that a terminal of less than `WIDE` does without."""
CELLS = ("loss", "score", "by_lost", "rate", "speed")
"""Cells of a row that are empty until the phase has logged them."""


class LiveTable(Progress):
    """A table of phases, a row of each with the metrics it logged last.

    Args:
      columns: by heading.
      prints: whether phases print lines where there is no terminal for the table.
      options: of `rich.progress.Progress`.
    """

    def __init__(
        self, columns: dict[str, ProgressColumn], *, prints: bool, **options: Any
    ) -> None:
        self._headings, self.prints = list(columns), prints
        super().__init__(*columns.values(), **options)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Returns all rows below the headings of their columns."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for heading in self._headings:
            table.add_column(heading, no_wrap=True)
        for task in tasks:
            if task.visible:
                columns: list[Any] = list(self.columns)
                table.add_row(*(column(task) for column in columns))
        return table


def live_table(console: Console, prints: bool = True) -> LiveTable:
    """Returns the table of a run's phases, which is drawn only on a terminal.

    A terminal of less than `WIDE` columns does without those of `NARROW`.

    Args:
      console: where it is drawn.
      prints: see `LiveTable`.
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
        prints=prints,
        console=console,
        disable=not (console.is_terminal or console.is_jupyter),
        speed_estimate_period=math.inf,
    )


def add_row(table: Progress, phase: str, total: int) -> Any:
    """Adds a row to a live table; returns its number, for `update` and `advance`."""
    empty: dict[str, Any] = dict.fromkeys(CELLS, "")
    row = table.add_task(phase, total=total, **empty)
    begin_at(table, row, 0)
    return row


def begin_at(table: Progress, row: Any, completed: int) -> None:
    """Sets what was done before, and starts the clocks of time and speed."""
    table.reset(row, completed=completed)
    table.advance(row, 0)  # the clock of the speed starts
