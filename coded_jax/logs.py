"""What a run shows and records on the way: progress bars and metrics."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from coded_jax import distributed
from coded_jax.workdir import METRICS, write_atomically

QUIET_SECONDS = 30.0  # between lines where there is no terminal for bars


def progress_bars(console: Console) -> Progress:
    """Bars for the phases of a run; nothing is drawn where there is no terminal."""
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


def phase_log(
    folder: Path, phase: str, steps: int, progress: Progress
) -> PhaseLog | SilentLog:
    """The observer of one phase: of several processes, the lead one's alone writes."""
    if distributed.is_lead():
        return PhaseLog(folder, phase, steps, progress)
    return SilentLog()


class SilentLog(AbstractContextManager):
    """Observes, and says nothing."""

    def start(self, step: int) -> None:
        """Nothing is shown."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing is recorded."""

    def __exit__(self, *exc_info: object) -> None:
        pass


class PhaseLog(AbstractContextManager):
    """Observes one phase: a progress bar, lines in `metrics.jsonl`, TensorBoard events.

    Args:
      folder: the workdir.
      phase: name of the phase.
      steps: its length.
      progress: the run's bars.
    """

    def __init__(
        self, folder: Path, phase: str, steps: int, progress: Progress
    ) -> None:
        self._path = folder / METRICS
        self._phase = phase
        self._steps = steps
        self._progress = progress
        self._bar = progress.add_task(phase, total=steps, note="")
        self._events = _event_writer(folder / "events" / phase)
        self._note: dict[str, float] = {}
        self._printed = time.monotonic()

    def start(self, step: int) -> None:
        """Drops what a killed process logged past the checkpoint it left."""
        if self._path.exists():
            kept = [
                line
                for line in self._path.read_text(errors="replace").splitlines()
                if _survives(line, self._phase, step)
            ]
            write_atomically(self._path, "".join(line + "\n" for line in kept))
        self._progress.update(self._bar, completed=step)
        if self._progress.disable:
            resumed = f", resumed at step {step}" if step else ""
            self._print(f"{self._phase}: {self._steps} steps{resumed}")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Records `metrics` at `step`."""
        record = {"phase": self._phase, "step": step, **metrics}
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(f"{self._phase}/{name}", value, step)
        self._note.update(metrics)
        note = "  ".join(f"{name} {value:.4g}" for name, value in self._note.items())
        self._progress.update(self._bar, completed=step, note=note)
        overdue = time.monotonic() - self._printed > QUIET_SECONDS
        if self._progress.disable and (step == self._steps or overdue):
            self._printed = time.monotonic()
            self._print(f"{self._phase}: step {step}/{self._steps}  {note}")

    def _print(self, line: str) -> None:
        self._progress.console.print(line, highlight=False)

    def __exit__(self, *exc_info: object) -> None:
        if self._events is not None:
            self._events.close()


def _survives(line: str, phase: str, step: int) -> bool:
    try:
        record = json.loads(line)
        return record["phase"] != phase or record["step"] <= step
    except (ValueError, KeyError, TypeError):  # cut short by a kill, or damaged
        return False


def _event_writer(folder: Path) -> Any:
    """A TensorBoard writer where the `tensorboard` extra is installed, else None."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
