"""Sweeps: many runs side by side, each a cell with a folder of its own.

<folder>/cells/<cell>/   a run's workdir; error.txt says why one has failed
<folder>/bases/<base>/   a base model, which all cells with these settings share

`sweep_table` has the files of all cells together.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax import data
from coded_jax.checks import first_line
from coded_jax.runs import experiment, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.prepare import Experiment, prepare
from coded_jax.runs.progress import LiveTable
from coded_jax.training.loop import Interrupted
from coded_jax.types import Dataset

ERROR = "error.txt"


class Cell(NamedTuple):
    """One run of a sweep: its name, which is that of its folder, and its settings."""

    name: str
    config: Config


class Places(NamedTuple):
    """Where a sweep runs; see `experiment.prepare`.

    Attributes:
      folder: of the sweep.
      command: recorded in the results.
    """

    folder: Path
    data_dir: str | None = None
    devices: int | None = None
    mesh: tuple[int, int] | None = None
    base_dir: str | None = None
    command: str = ""

    def cell(self, cell: Cell) -> Path:
        """The workdir of a cell."""
        return self.folder / "cells" / cell.name

    def base(self, config: Config) -> str:
        """The folder of the base model that cells like this one share."""
        if self.base_dir is not None:
            return self.base_dir
        told = json.dumps(config.base.to_flags(), sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:6]
        name = f"{config.dataset}_{config.base_model}_{digest}"
        return str(self.folder / "bases" / name)


class Outcome(NamedTuple):
    """A finished cell has results, the content of its `results.json`, a failed one the
    line that says why."""

    cell: Cell
    results: dict[str, Any] | None
    error: str = ""


def finished(cell: Cell, places: Places) -> Outcome | None:
    """What a former sweep has left of a cell; None if it is to be run."""
    try:
        results = workdir.read_results(places.cell(cell))
        same = Config.from_json(results["config"]) == cell.config
    except (ValueError, TypeError, KeyError):  # not finished, or by another version
        return None
    return Outcome(cell, results) if same and "costs" in results else None


def others(cells: Iterable[Cell], places: Places) -> list[str]:
    """Names of the cells in the sweep's folder that are none of these."""
    found = {path.parent.name for path in (places.folder / "cells").glob("*/*")}
    return sorted(found - {cell.name for cell in cells})


def require_same_flags(cells: Iterable[Cell], places: Places) -> None:
    """Raises ValueError if a cell's folder was made with other flags."""
    defaults = Config().to_flags()
    for cell in cells:
        if (folder := places.cell(cell)).exists():
            flags = cell.config.to_flags()
            workdir.open_workdir(folder, flags, defaults=defaults, write=False)


def run_cell(
    cell: Cell,
    places: Places,
    loaded: dict[str, Dataset] | None = None,
    progress: LiveTable | None = None,
) -> Outcome:
    """Runs a cell, from where a former sweep stopped; whatever goes wrong is told.

    Args:
      cell: what to run.
      places: where.
      loaded: the data set of the cell before, which takes this one's place.
      progress: of `progress.live_table` that is shown already.

    Raises:
      training.Interrupted: a signal asked to stop; the state is saved.
    """
    told = {"progress": progress, "command": places.command}
    run = lambda prepared: experiment.run(prepared, **told)
    return Outcome(cell, *_attempt(cell, places, loaded, run))


def train_base(cell: Cell, places: Places) -> str:
    """Trains a cell's base model alone; returns what goes wrong, or an empty string."""
    return _attempt(cell, places, None, experiment.train_base)[1]


def _attempt(
    cell: Cell,
    places: Places,
    loaded: dict[str, Dataset] | None,
    do: Callable[[Experiment], Any],
) -> tuple[Any, str]:
    """What is done, and what goes wrong; its traceback goes into the cell's folder."""
    folder, name = places.cell(cell), cell.config.dataset
    error = folder / ERROR
    where = (places.data_dir, places.devices, places.mesh, places.base(cell.config))
    loaded = {} if loaded is None else loaded
    try:
        if name not in loaded:
            loaded.clear()
            loaded[name] = data.load(name, places.data_dir)
        prepared = prepare(cell.config, folder, *where, dataset=loaded[name])
        error.unlink(missing_ok=True)
        return do(prepared), ""
    except Interrupted:
        raise
    except Exception as problem:  # of any kind: the other cells go on
        with contextlib.suppress(OSError):  # the disk may be what went wrong
            folder.mkdir(parents=True, exist_ok=True)
            error.write_text(traceback.format_exc())
        return None, f"{type(problem).__name__}: {first_line(problem)}"
    finally:
        # Each cell compiles programs of its own, of which the next one has no use.
        jax.clear_caches()
        gc.collect()


def run_in_turn(
    cells: Iterable[Cell], places: Places, progress: LiveTable
) -> Iterator[Outcome]:
    """The outcome of each cell, one after the other in this process.

    Raises:
      training.Interrupted: see `run_cell`.
    """
    loaded: dict[str, Dataset] = {}
    for cell in cells:
        shown = set(progress.task_ids)
        yield run_cell(cell, places, loaded, progress)
        for row in set(progress.task_ids) - shown:
            progress.remove_task(row)
