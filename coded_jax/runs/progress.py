"""Progress of a run: bars, a live table of its phases, metrics, TensorBoard events."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import optax
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from coded_jax.runs.workdir import METRICS, read_metrics, write_atomically
from coded_jax.training.loop import SCORE, Observer

QUIET_SECONDS = 30.0  # between lines where there is no terminal
CELLS = {
    "loss": ("loss", 85),
    "score": ("accuracy, %,\n0 1 .. lost", 85),
    "rate": ("rate", 110),
    "speed": ("img/s", 110),
}
"""Maps what a phase has logged last to its heading, and to the least width of a
terminal that has room for it."""


def progress_bars(console: Console) -> Progress:
    """Returns bars with a note, which are drawn only on a terminal."""
    return Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not (console.is_terminal or console.is_jupyter),
    )


def duration_text(seconds: float) -> str:
    """Returns a time to wait, no finer than it can be foretold."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class LiveTable(Progress):
    """A table of phases, a row of each with the metrics it logged last.

    It is drawn only on a terminal.

    Args:
      console: where it is drawn.
      prints: whether phases print lines where there is no terminal for the table.
    """

    def __init__(self, console: Console, prints: bool = True) -> None:
        self.prints = prints
        column = lambda heading: Column(heading, no_wrap=True)
        metrics = [
            TextColumn(f"{{task.fields[{name}]}}", table_column=column(heading))
            for name, (heading, least) in CELLS.items()
            if console.width >= least
        ]
        # Time left is that of the mean speed so far: cells of a sweep take minutes.
        super().__init__(
            TextColumn("{task.description}", table_column=column("phase")),
            BarColumn(12, table_column=column("")),
            MofNCompleteColumn(table_column=column("step")),
            *metrics,
            TimeRemainingColumn(
                compact=True, elapsed_when_finished=True, table_column=column("time")
            ),
            console=console,
            disable=not (console.is_terminal or console.is_jupyter),
            speed_estimate_period=math.inf,
            refresh_per_second=4,
        )

    def begin(self, phase: str, total: int) -> Task:
        """Begins the row of a phase of so many steps."""
        empty: dict[str, Any] = dict.fromkeys(CELLS, "")
        task = self._tasks[self.add_task(phase, total=total, **empty)]
        self.advance(task.id, 0)  # the clock of the speed starts
        return task

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Returns all rows below the headings of their columns."""
        table = super().make_tasks_table(tasks)
        table.show_header, table.box, table.pad_edge = True, box.SIMPLE_HEAD, False
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
    """

    folder: Path | None
    phase: str
    table: LiveTable
    steps: int
    batch_size: int
    rate: float | optax.Schedule

    def __post_init__(self) -> None:
        self._events = self.folder and _event_writer(
            self.folder / "events" / self.phase
        )
        self._task = self.table.begin(self.phase, self.steps)
        self._latest: dict[str, float] = {}
        self._logged_step, self._log_time = 0, time.monotonic()
        self._print_time = self._log_time

    def start(self, step: int) -> None:
        """Drops lines that a killed process logged after its last checkpoint."""
        if self.folder and (lines := read_metrics(self.folder)):
            kept = [x for x in lines if x["phase"] != self.phase or x["step"] <= step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(self.folder / METRICS, text)
        # The clock of the speed starts with the first metrics, after the compilation.
        self.table.reset(self._task.id, completed=step)
        self.table.update(self._task.id, completed=step)  # it may be finished already
        self._logged_step, self._log_time = step, time.monotonic()
        resumed = f", resumed at step {step}" if step else ""
        self._print(f"{self.steps} steps{resumed}")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Records `metrics` at `step`, with the learning rate and the images/s."""
        now, rate = time.monotonic(), self.rate
        rate = rate(min(step, self.steps - 1)) if callable(rate) else rate
        metrics = {**metrics, "learning_rate": float(np.asarray(rate))}
        if SCORE not in metrics:  # else the time is that of the validation too
            images = (step - self._logged_step) * self.batch_size
            metrics["images_per_second"] = round(images / (now - self._log_time), 1)
        self._logged_step, self._log_time = step, now
        if self.folder:
            record = {"phase": self.phase, "step": step, **metrics}
            with open(self.folder / METRICS, "a") as file:
                file.write(json.dumps(record) + "\n")
        if self._events:
            for name, value in metrics.items():
                self._events.add_scalar(f"{self.phase}/{name}", value, step)
        latest = self._latest
        latest.update(metrics)
        scores = [x for name, x in latest.items() if name.endswith("_lost")]
        if not scores and SCORE in latest:
            scores = [latest[SCORE]]
        self.table.update(
            self._task.id,
            completed=step,
            loss=f"{latest['loss']:.4g}",
            score=" ".join(f"{100 * score:.2f}" for score in scores),
            rate=f"{latest['learning_rate']:.2g}",
            speed=f"{latest.get('images_per_second', 0):,.0f}",
        )
        if step == self.steps or now - self._print_time > QUIET_SECONDS:
            self._print_time = now
            left = self._task.time_remaining
            wait = f", about {duration_text(left)} left" if left else ""
            values = "  ".join(f"{name} {x:.4g}" for name, x in latest.items())
            self._print(f"step {step} of {self.steps}{wait}  {values}")

    def _print(self, line: str) -> None:
        if self.table.disable and self.table.prints:
            line = f"{self._task.description}: {line}"
            self.table.console.print(line, highlight=False)

    def __exit__(self, *exc_info: object) -> None:
        if self._events:
            self._events.close()


def _event_writer(folder: Path) -> Any:
    """Returns a TensorBoard writer if the `tensorboard` extra is installed, or None."""
    # It imports PyTorch where there is one, 0.8 s, of which nothing is used here.
    absent: Any = None
    sys.modules.setdefault("torch", absent)
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    finally:
        if sys.modules["torch"] is None:
            del sys.modules["torch"]
    return SummaryWriter(str(folder))
