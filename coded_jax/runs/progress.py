"""Progress on the terminal: bars, or a live table of a run's phases."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


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
ONLY_WIDE = ("", "step", "rate", "img/s")
ONLY_NARROW = ("done",)
"""Columns of a terminal of at least `WIDE` columns, and of one that has fewer."""
SCORE_HEADING = "accuracy, %,\n0 1 .. lost"
NARROW = 75
NOT_NARROW = ("loss", SCORE_HEADING)
"""Columns that a terminal of fewer than `NARROW` columns has no room for."""
CELLS = ("loss", "score", "rate", "speed")
"""Cells of a row that are empty until the phase has logged them."""
TITLES = {
    "base": "training the network",
    "code": "training the code",
    "evaluation": "trying every loss",
    "cells": "cells",
}
"""Plain names of phases; any other trains the code that it is named after."""


class Planned(NamedTuple):
    """A phase that a run is going to have.

    Attributes:
      steps: of the phase.
      images: that it trains on, each as often as it is seen; 0 where nothing is
        trained.
    """

    steps: int
    images: int


def title_of(phase: str) -> str:
    """Returns the plain name of a phase: of `code_2`, `training the code, seed 2`."""
    name, _, seed = phase.rpartition("_")
    if not name or not re.fullmatch(r"\d+(-\d+)?", seed):
        name, seed = phase, ""
    title = TITLES.get(name, f"training {name}")
    return f"{title}, seed {seed}" if seed else title


def duration_text(seconds: float) -> str:
    """Returns a time to wait, no finer than it can be foretold."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class TimeColumn(ProgressColumn):
    """The time that a phase took, that is left of it, or that it has been starting.

    A phase starts by compiling its programs, which says nothing of its speed.
    """

    def render(self, task: Task) -> str:
        """Returns the time of a phase, and nothing before it has begun."""
        if not task.started:
            return ""
        spent = task.finished_time if task.finished else task.elapsed
        spent = task.fields["starting"] + (spent or 0.0)
        if task.finished:
            return f"took {duration_text(spent)}"
        left = task.time_remaining
        return (
            f"starting {spent:.0f} s" if left is None else f"{duration_text(left)} left"
        )


class LiveTable(Progress):
    """A table of phases, a row of each with the metrics it logged last.

    Args:
      columns: by heading.
      prints: whether phases print lines where there is no terminal for the table.
      phases: that are known from the start, by name. They have numbers, and below the
        table stands the time left for all of them.
      options: of `rich.progress.Progress`.
    """

    def __init__(
        self,
        columns: dict[str, ProgressColumn],
        *,
        prints: bool,
        phases: Mapping[str, Planned],
        **options: Any,
    ) -> None:
        self._headings, self.prints = list(columns), prints
        self._phases, self._rows = phases, {}
        self._begun = time.monotonic()
        super().__init__(*columns.values(), **options)
        for number, (phase, planned) in enumerate(phases.items(), 1):
            title = f"{number} of {len(phases)}: {title_of(phase)}"
            self._rows[phase] = self._new_row(title, planned.steps)

    def _new_row(self, title: str, total: int) -> Any:
        empty: dict[str, Any] = dict.fromkeys(CELLS, "")
        return self.add_task(title, start=False, total=total, starting=0.0, **empty)

    def row_of(self, phase: str, total: int) -> Any:
        """Returns the number of a phase's row, which is new if it was not planned.

        Args:
          phase: its name.
          total: steps.
        """
        if phase not in self._rows:
            return self._new_row(title_of(phase), total)
        self.update(self._rows[phase], total=total)
        return self._rows[phase]

    def title(self, row: Any) -> str:
        """Returns the plain name of a row's phase, with its number if it has one."""
        return self._tasks[row].description

    def time_left(self) -> tuple[float, bool] | None:
        """Returns the seconds of training that are left of all planned phases, and
        whether they are a lower bound; None as long as nothing is known.

        A code that has not begun is taken to be as fast as those that have, or else as
        the network, which is the bound: a code may take longer for an image.
        """
        paces: dict[bool, list[float]] = {False: [], True: []}  # seconds for an image
        waiting: list[tuple[bool, int]] = []
        left = 0.0
        for phase, planned in self._phases.items():
            task, codes = self._tasks[self._rows[phase]], phase != "base"
            if speed := task.finished_speed or task.speed:
                paces[codes].append(planned.steps / (speed * max(1, planned.images)))
                left += (task.remaining or 0) / speed
            elif planned.images and not task.finished:
                waiting.append((codes, planned.images))
        known = paces[True] or paces[False]
        if not known:
            return None
        left += sum(images for _, images in waiting) * sum(known) / len(known)
        return left, bool(waiting) and not paces[True]

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the table, and below it the time of all phases if they are known."""
        yield self.make_tasks_table(self.tasks)
        if self._phases:
            yield Text(self._time_text())

    def _time_text(self) -> str:
        spent = duration_text(time.monotonic() - self._begun)
        if self.finished:
            return f"all phases took {spent}\n"
        text = f"all phases: {spent} so far"
        if left := self.time_left():
            seconds, bound = left
            kind = "at least" if bound else "about"
            text += f", {kind} {duration_text(seconds)} left"
        return text

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


def live_table(
    console: Console,
    prints: bool = True,
    phases: Mapping[str, Planned] | None = None,
) -> LiveTable:
    """Returns the table of a run's phases, which is drawn only on a terminal.

    A terminal of less than `WIDE` columns does without those of `ONLY_WIDE`, and one of
    less than `NARROW` without those of `NOT_NARROW` too.

    Args:
      console: where it is drawn.
      prints: see `LiveTable`.
      phases: see `LiveTable`; none if None.
    """
    columns: dict[str, ProgressColumn] = {
        "phase": TextColumn("{task.description}"),
        "": BarColumn(12),
        "step": MofNCompleteColumn(),
        "done": TaskProgressColumn(),
        "loss": TextColumn("{task.fields[loss]}"),
        SCORE_HEADING: TextColumn("{task.fields[score]}"),
        "rate": TextColumn("{task.fields[rate]}"),
        "img/s": TextColumn("{task.fields[speed]}"),
        "time": TimeColumn(),
    }
    left_out = ONLY_WIDE if console.width < WIDE else ONLY_NARROW
    if console.width < NARROW:
        left_out += NOT_NARROW
    # Time left is that of the mean speed so far: cells of a sweep take minutes.
    return LiveTable(
        {n: column for n, column in columns.items() if n not in left_out},
        prints=prints,
        phases=phases or {},
        console=console,
        disable=not (console.is_terminal or console.is_jupyter),
        speed_estimate_period=math.inf,
        refresh_per_second=4,
    )


def add_row(table: LiveTable, phase: str, total: int) -> Any:
    """Begins a phase's row in a live table; returns its number, for `update` and
    `advance`."""
    row = table.row_of(phase, total)
    begin_at(table, row, 0)
    return row


def begin_at(table: Progress, row: Any, completed: int) -> None:
    """Sets what was done before, and starts the clocks of time and speed."""
    table.reset(row, completed=completed)
    table.advance(row, 0)  # the clock of the speed starts
