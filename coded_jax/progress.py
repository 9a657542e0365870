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


class LiveTable(Progress):
    """A row for each phase of a run, with what was logged of it last."""

    headings: Sequence[str] = ()

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """All rows below the headings of their columns."""
        table = Table(*self.headings, box=box.SIMPLE_HEAD, pad_edge=False)
        for task in tasks:
            if task.visible:
                table.add_row(*(column(task) for column in self.columns))
        return table


def live_table(console: Console) -> LiveTable:
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
    table.headings = list(columns)
    return table


def add_row(table: Progress, phase: str, total: int, **cells: str) -> Any:
    """A row of a live table: its number, for `update` and `advance`."""
    empty = dict.fromkeys(("loss", "score", "by_lost", "rate", "speed"), "")
    row = table.add_task(phase, total=total, **{**empty, **cells})
    table.advance(row, 0)  # the clock starts
    return row
