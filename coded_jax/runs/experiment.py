"""One experiment from its configuration to `results.json`."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from coded_jax.devices import processes
from coded_jax.runs import results, run_evaluation, run_training, workdir
from coded_jax.runs.compile_clock import compile_clock
from coded_jax.runs.prepare import Experiment
from coded_jax.runs.progress import LiveTable, live_table
from coded_jax.runs.results import Finished
from coded_jax.runs.run_training import Run
from coded_jax.training.signals import stop_requests


@contextlib.contextmanager
def _showing(
    experiment: Experiment, console: Console | None, progress: LiveTable | None
) -> Iterator[Run]:
    """Shows the phases in a table of their own, or in one that is shown already."""
    if not processes.is_lead():
        console, progress = Console(file=io.StringIO()), None
    table = progress or live_table(console or Console(stderr=True))
    with stop_requests() as stop, contextlib.nullcontext() if progress else table:
        yield Run(experiment, table, stop)


def train_base(experiment: Experiment) -> None:
    """Trains the base model alone; errors as of `run`."""
    with _showing(experiment, None, None) as shown:
        run_training.train_base(shown)


def run(
    experiment: Experiment,
    *,
    console: Console | None = None,
    progress: LiveTable | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Trains base model, code and baselines, tries every pattern, writes the results.

    Whatever a former run of the same experiment finished is taken from its checkpoints.

    Args:
      experiment: from `prepare`.
      console: where progress is shown; standard error if None.
      progress: of `progress.live_table` that is shown already.
      command: recorded in the results.

    Returns:
      The content of `results.json`.

    Raises:
      NonFiniteError, Interrupted: see `training.loop.fit`.
      OSError: the workdir can no longer be written to.
    """
    begun = time.perf_counter()
    with (
        _showing(experiment, console, progress) as shown,
        compile_clock() as compilation,
    ):
        trained = run_training.train(shown)
        evaluated = run_evaluation.evaluate(shown, trained)
    ended = time.perf_counter()
    seconds = {**trained.seconds, "evaluation": evaluated.seconds}
    # The wall time of former processes is not known, but that of their steps is.
    resumed = experiment.resumed
    seconds["total"] = sum(seconds.values()) if resumed else ended - experiment.started
    start_up = {
        "preparation": begun - experiment.started,
        "compilation": compilation.seconds,
    }
    finished = Finished(experiment, trained, evaluated, seconds, start_up, command)
    content = results.content(finished)
    if processes.is_lead():
        workdir.write_results(experiment.folder, content)
    return content
