"""Progress of a run: bars, a live table of its phases, metrics, TensorBoard events."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
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

from coded_jax.runs.workdir import METRICS, write_atomically
from coded_jax.training.loop import BY_LOST, SCORE, Observer
from coded_jax.types import PyTree


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


QUIET_SECONDS = 30.0  # between lines where there is no terminal
SCORES = "accuracy, %,\n0 1 .. lost"
LEFT_OUT = {
    100: ("done",),
    75: ("", "step", "rate", "img/s"),
    0: ("", "step", "rate", "img/s", "loss", SCORES),
}
"""Maps the least width of a terminal to the columns that it does without."""
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
    match = re.fullmatch(r"(.+)_(\d+(?:-\d+)?)", phase)
    name, seed = match.groups() if match else (phase, "")
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

    It is drawn only on a terminal.

    Args:
      console: where it is drawn.
      prints: whether phases print lines where there is no terminal for the table.
      phases: that are known from the start, by name. They have numbers, and below the
        table stands the time left for all of them.
    """

    def __init__(
        self,
        console: Console,
        prints: bool = True,
        phases: Mapping[str, Planned] | None = None,
    ) -> None:
        columns: dict[str, ProgressColumn] = {
            "phase": TextColumn("{task.description}"),
            "": BarColumn(12),
            "step": MofNCompleteColumn(),
            "done": TaskProgressColumn(),
            "loss": TextColumn("{task.fields[loss]}"),
            SCORES: TextColumn("{task.fields[score]}"),
            "rate": TextColumn("{task.fields[rate]}"),
            "img/s": TextColumn("{task.fields[speed]}"),
            "time": TimeColumn(),
        }
        left_out = next(x for width, x in LEFT_OUT.items() if console.width >= width)
        shown = {x: column for x, column in columns.items() if x not in left_out}
        self.prints = prints
        self._headings, self._phases, self._rows = list(shown), phases or {}, {}
        self._begun = time.monotonic()
        # Time left is that of the mean speed so far: cells of a sweep take minutes.
        super().__init__(
            *shown.values(),
            console=console,
            disable=not (console.is_terminal or console.is_jupyter),
            speed_estimate_period=math.inf,
            refresh_per_second=4,
        )
        for number, (phase, planned) in enumerate(self._phases.items(), 1):
            title = f"{number} of {len(self._phases)}: {title_of(phase)}"
            self._rows[phase] = self._new_row(title, planned.steps)

    def _new_row(self, title: str, total: int) -> Any:
        empty: dict[str, Any] = dict.fromkeys(CELLS, "")
        return self.add_task(title, start=False, total=total, starting=0.0, **empty)

    def begin(self, phase: str, total: int) -> Any:
        """Begins the row of a phase of so many steps, which is new if it was not
        planned; returns its number, for `update` and `advance`."""
        row = self._rows.get(phase)
        if row is None:
            row = self._new_row(title_of(phase), total)
        self.update(row, total=total)
        self.go_on(row, 0)
        return row

    def go_on(self, row: Any, completed: int) -> None:
        """Sets what was done before, and starts the clocks of time and speed."""
        self.reset(row, completed=completed)
        self.advance(row, 0)  # the clock of the speed starts

    def task_of(self, row: Any) -> Task:
        """Returns the task of a row, with its title and the time that is left."""
        return self._tasks[row]

    def time_left(self) -> tuple[float, bool] | None:
        """Returns the seconds of training that are left of all planned phases, and
        whether they are a lower bound; None as long as nothing is known.

        A code that has not begun is taken to be as fast as those that have, or else as
        the network, which is the bound: a code may take longer for an image.
        """
        paces: dict[bool, list[float]] = {False: [], True: []}  # seconds for an image
        waiting, left = 0, 0.0
        for phase, planned in self._phases.items():
            task = self._tasks[self._rows[phase]]
            if speed := task.finished_speed or task.speed:
                pace = planned.steps / (speed * max(1, planned.images))
                paces[phase != "base"].append(pace)
                left += (task.remaining or 0) / speed
            elif not task.finished:
                waiting += planned.images
        known = paces[True] or paces[False]
        if not known:
            return None
        left += waiting * sum(known) / len(known)
        return left, bool(waiting) and not paces[True]

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the table, and below it the time of all phases if they are known."""
        yield self.make_tasks_table(self.tasks)
        spent = duration_text(time.monotonic() - self._begun)
        if self._phases and self.finished:
            yield Text(f"all phases took {spent}\n")
        elif self._phases:
            text = f"all phases: {spent} so far"
            if left := self.time_left():
                seconds, bound = left
                kind = "at least" if bound else "about"
                text += f", {kind} {duration_text(seconds)} left"
            yield Text(text)

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


@dataclasses.dataclass
class PhaseLog(Observer, AbstractContextManager):
    """Logs one phase: a row of the table, `metrics.jsonl`, TensorBoard events.

    Attributes:
      folder: the workdir; None where nothing is kept.
      phase: its name.
      table: the run's live table.
      steps: of the phase.
      batch_size: examples of a step.
      rate: the learning rate, constant or of every step.
      picture: `params -> uint8 [rows, columns, 3]`, drawn after every epoch where
        TensorBoard's writer is installed; None for none.
    """

    folder: Path | None
    phase: str
    table: LiveTable
    _: dataclasses.KW_ONLY
    steps: int
    batch_size: int
    rate: float | optax.Schedule
    picture: Callable[[PyTree], np.ndarray] | None = None

    def __post_init__(self) -> None:
        self._path = self.folder and self.folder / METRICS
        self._events = self.folder and _event_writer(
            self.folder / "events" / self.phase
        )
        self._prints = self.table.disable and self.table.prints
        self._row = self.table.begin(self.phase, self.steps)
        self._begun = self._print_time = self._log_time = time.monotonic()
        self._starting = True  # until the first metrics, as the programs are compiled
        self._latest: dict[str, float] = {}
        self._log_step = 0

    def start(self, step: int) -> None:
        """Drops lines that a killed process logged after its last checkpoint."""
        if self._path and self._path.exists():
            kept = [
                line
                for line in self._path.read_text(errors="replace").splitlines()
                if _survives(line, self.phase, step)
            ]
            write_atomically(self._path, "".join(line + "\n" for line in kept))
        self.table.go_on(self._row, step)
        self._log_step, self._log_time = step, time.monotonic()
        if self._prints:
            resumed = f", resumed at step {step}" if step else ""
            self._print(f"{self.steps} steps{resumed}")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Records `metrics` at `step`, with the learning rate and the images/s."""
        now = time.monotonic()
        number = min(step, self.steps - 1)
        rate: Any = self.rate
        rate = rate(number) if callable(rate) else rate
        metrics = {**metrics, "learning_rate": float(rate)}
        if SCORE not in metrics:  # else the time is that of the validation too
            images = (step - self._log_step) * self.batch_size
            metrics["images_per_second"] = round(images / (now - self._log_time), 1)
        self._log_step, self._log_time = step, now
        record = {"phase": self.phase, "step": step, **metrics}
        if self._path:
            with open(self._path, "a") as file:
                file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(f"{self.phase}/{name}", value, step)
        if self._starting:
            self._starting = False
            self.table.update(self._row, starting=now - self._begun)
            self.table.go_on(self._row, step)
        self._latest.update(metrics)
        latest, by_lost = self._latest, []
        while (name := BY_LOST.format(len(by_lost))) in latest:
            by_lost.append(f"{100 * latest[name]:.2f}")
        if not by_lost and SCORE in latest:
            by_lost = [f"{100 * latest[SCORE]:.2f}"]
        self.table.update(
            self._row,
            completed=step,
            loss=f"{latest['loss']:.4g}",
            score=" ".join(by_lost),
            rate=f"{latest['learning_rate']:.2g}",
            speed=f"{latest.get('images_per_second', 0):,.0f}",
        )
        overdue = now - self._print_time > QUIET_SECONDS
        if self._prints and (step == self.steps or overdue):
            self._print_time = now
            values = "  ".join(f"{name} {x:.4g}" for name, x in self._latest.items())
            left = self.table.task_of(self._row).time_remaining
            wait = f", about {duration_text(left)} left" if left else ""
            self._print(f"step {step} of {self.steps}{wait}  {values}")

    def end_epoch(self, step: int, params: PyTree) -> None:
        """Draws the images that the parameters reconstruct."""
        if self._events is not None and self.picture is not None:
            name = f"{self.phase}/original_arrived_reconstructed"
            image = self.picture(params)
            self._events.add_image(name, image, step, dataformats="HWC")
        self._log_time = time.monotonic()

    def _print(self, line: str) -> None:
        title = self.table.task_of(self._row).description
        self.table.console.print(f"{title}: {line}", highlight=False)

    def __exit__(self, *exc_info: object) -> None:
        if self._events is not None:
            self._events.close()


def _survives(line: str, phase: str, step: int) -> bool:
    """Returns whether a line is of another phase, or of `step` or an earlier one."""
    try:
        record = json.loads(line)
        return record["phase"] != phase or record["step"] <= step
    except (ValueError, KeyError, TypeError):  # cut short by a kill, or damaged
        return False


def _event_writer(folder: Path) -> Any:
    """Returns a TensorBoard writer if the `tensorboard` extra is installed, or None."""
    # It imports PyTorch where there is one, 0.8 s, to name its tensors in annotations.
    hides_torch = "torch" not in sys.modules
    if hides_torch:
        sys.modules["torch"] = None  # type: ignore
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    finally:
        if hides_torch:
            del sys.modules["torch"]
    return SummaryWriter(str(folder))
