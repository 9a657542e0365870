"""The record of a phase of a run: lines of metrics, TensorBoard events, a table row."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import optax

from coded_jax.runs.progress import LiveTable, add_row, begin_at, duration_text
from coded_jax.runs.workdir import METRICS, write_atomically
from coded_jax.training.loop import BY_LOST, SCORE, Observer
from coded_jax.types import PyTree

QUIET_SECONDS = 30.0  # between lines where there is no terminal


class PhaseLog(Observer, AbstractContextManager):
    """Logs one phase: a row of the table, `metrics.jsonl`, TensorBoard events.

    Args:
      folder: the workdir; None where nothing is kept.
      phase: its name.
      table: the run's live table.
      steps: of the phase.
      batch_size: examples of a step.
      rate: the learning rate, constant or of every step.
      picture: `params -> uint8 [rows, columns, 3]`, drawn after every epoch where
        TensorBoard's writer is installed; None for none.
    """

    def __init__(
        self,
        folder: Path | None,
        phase: str,
        table: LiveTable,
        *,
        steps: int,
        batch_size: int,
        rate: float | optax.Schedule,
        picture: Callable[[PyTree], np.ndarray] | None = None,
    ) -> None:
        self._path = folder and folder / METRICS
        self._phase = phase
        self._table = table
        self._steps = steps
        self._batch_size = batch_size
        self._rate: Any = rate if callable(rate) else lambda step: rate
        self._picture = picture
        self._prints = table.disable and table.prints
        self._row = add_row(table, phase, steps)
        self._begun = time.monotonic()
        self._starting = True  # until the first metrics, as the programs are compiled
        self._events = folder and _event_writer(folder / "events" / phase)
        self._latest: dict[str, float] = {}
        self._print_time = self._log_time = time.monotonic()
        self._log_step = 0

    def start(self, step: int) -> None:
        """Drops lines that a killed process logged after its last checkpoint."""
        if self._path and self._path.exists():
            kept = [
                line
                for line in self._path.read_text(errors="replace").splitlines()
                if _survives(line, self._phase, step)
            ]
            write_atomically(self._path, "".join(line + "\n" for line in kept))
        begin_at(self._table, self._row, step)
        self._log_step, self._log_time = step, time.monotonic()
        if self._prints:
            resumed = f", resumed at step {step}" if step else ""
            self._print(f"{self._steps} steps{resumed}")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Records `metrics` at `step`, with the learning rate and the images/s."""
        now = time.monotonic()
        rate = float(self._rate(min(step, self._steps - 1)))
        metrics = {**metrics, "learning_rate": rate}
        if SCORE not in metrics:  # else the time is that of the validation too
            images = (step - self._log_step) * self._batch_size
            metrics["images_per_second"] = round(images / (now - self._log_time), 1)
        self._log_step, self._log_time = step, now
        record = {"phase": self._phase, "step": step, **metrics}
        if self._path:
            with open(self._path, "a") as file:
                file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(f"{self._phase}/{name}", value, step)
        if self._starting:
            self._starting = False
            self._table.update(self._row, starting=now - self._begun)
            begin_at(self._table, self._row, step)
        self._latest.update(metrics)
        self._table.update(self._row, completed=step, **_cells(self._latest))
        overdue = now - self._print_time > QUIET_SECONDS
        if self._prints and (step == self._steps or overdue):
            self._print_time = now
            values = "  ".join(f"{name} {x:.4g}" for name, x in self._latest.items())
            left = self._table.tasks[self._row].time_remaining
            wait = f", about {duration_text(left)} left" if left else ""
            self._print(f"step {step} of {self._steps}{wait}  {values}")

    def end_epoch(self, step: int, params: PyTree) -> None:
        """Draws the images that the parameters reconstruct."""
        if self._events is not None and self._picture is not None:
            name = f"{self._phase}/original_arrived_reconstructed"
            image = self._picture(params)
            self._events.add_image(name, image, step, dataformats="HWC")
        self._log_time = time.monotonic()

    def _print(self, line: str) -> None:
        title = self._table.title(self._row)
        self._table.console.print(f"{title}: {line}", highlight=False)

    def __exit__(self, *exc_info: object) -> None:
        if self._events is not None:
            self._events.close()


def _cells(latest: dict[str, float]) -> dict[str, Any]:
    """Returns the cells of the table's row, from the metrics that were logged last."""
    by_lost = []
    while (name := BY_LOST.format(len(by_lost))) in latest:
        by_lost.append(f"{100 * latest[name]:.2f}")
    if not by_lost and SCORE in latest:
        by_lost = [f"{100 * latest[SCORE]:.2f}"]
    return {
        "loss": f"{latest['loss']:.4g}",
        "score": " ".join(by_lost),
        "rate": f"{latest['learning_rate']:.2g}",
        "speed": f"{latest.get('images_per_second', 0):,.0f}",
    }


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
