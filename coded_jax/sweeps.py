"""Sweeps: many runs side by side, each a cell with a folder of its own, and one table.

<folder>/cells/<cell>/   a run's workdir; error.txt says why one has failed
<folder>/bases/<base>/   a base model, which all cells with these settings share
<folder>/table.csv       what `rows` makes of every cell; table.jsonl has the same
<folder>/sweep.json      how the sweep was made
"""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import io
import json
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax import data, experiment, frontier, workdir
from coded_jax.config import Config
from coded_jax.data import Dataset
from coded_jax.geometry import first_line
from coded_jax.progress import LiveTable
from coded_jax.training import Interrupted

TABLE, SWEEP, ERROR = "table", "sweep.json", "error.txt"
MEASURES = ("mean", "worst", "base_accuracy", "work", "train_seconds")
COLUMNS = ("cell", "method", "trial", "lost", *MEASURES, "error")


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
    do: Callable[[experiment.Experiment], Any],
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
        prepared = experiment.prepare(cell.config, folder, *where, dataset=loaded[name])
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


def seconds(results: dict[str, Any]) -> float:
    """Of a finished cell, without its base model, which is trained once for all."""
    spent = results["timing"]["seconds"]
    return spent["total"] - spent["base"]


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A cell's rows of the tidy table: one for each method, trial and number of losses.

    Returns:
      Dictionaries with the keys `COLUMNS`, of a failed cell without measures, and one
      of every flag that its settings have: the flag's name, and its value as text.
      Accuracies are fractions; `method` is a code, `trial` the number of its training;
      `work` is that of the busiest device for one image, over the whole `F_Conv`.
    """
    cell, results, error = outcome
    flags = cell.config.to_flags()
    if results is None:
        return [{"cell": cell.name, "error": error, **flags}]
    found = []
    for code, cost in results["costs"].items():
        summary = results["summary"] if code == "code" else results["baselines"][code]
        trials = results["seeds"].get(code, [summary])
        spent = results["timing"]["seconds"].get(code, 0.0) / len(trials)
        measured = {
            "cell": cell.name,
            "method": cell.config.code if code == "code" else code,
            "base_accuracy": results["base"]["test_accuracy"],
            "work": round(sum(frontier.work_of(cost).values()), 4),
            "train_seconds": round(spent, 1),
        }
        for trial, by_lost in enumerate(trials):
            for lost, row in by_lost.items():
                accuracy = {"mean": row["mean"], "worst": row["worst"]}
                place = {"trial": trial, "lost": int(lost)}
                found.append({**measured, **place, **accuracy, **flags})
    return found


def write_table(folder: Path, table: Sequence[dict[str, Any]]) -> None:
    """Writes `table.csv` and `table.jsonl`, the same rows with all columns in both.

    Raises:
      OSError: the folder cannot be written to.
    """
    flags = {name for row in table for name in row} - set(COLUMNS)
    names = [*COLUMNS, *sorted(flags)]
    every = [{name: row.get(name) for name in names} for row in table]
    lines = "".join(json.dumps(row) + "\n" for row in every)
    workdir.write_atomically(folder / f"{TABLE}.jsonl", lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    workdir.write_atomically(folder / f"{TABLE}.csv", text.getvalue())


def summary(
    cells: Sequence[Cell],
    outcomes: Sequence[Outcome],
    vary: dict[str, list[str]],
    variants: Sequence[str],
    command: str,
) -> dict[str, Any]:
    """What `sweep.json` says: how the sweep was made, its cells, and their seconds.

    Args:
      cells: all of them.
      outcomes: of those that have run.
      vary: see `rows` for the flags' names; each with its values.
      variants: flags that go together, as text.
      command: that made it.
    """
    done = [o.results for o in outcomes if o.results is not None]
    return {
        "command": command,
        "versions": done[0]["versions"] if done else workdir.versions(),
        "machine": done[0]["machine"] if done else {"cores": os.cpu_count()},
        "vary": vary,
        "variants": list(variants),
        "cells": [cell.name for cell in cells],
        "failed": {o.cell.name: o.error for o in outcomes if o.error},
        "seconds": round(sum(map(seconds, done)), 1),
    }
