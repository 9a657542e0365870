"""Sweeps: many runs side by side, each a cell with a folder of its own.

<folder>/cells/<cell>/   a run's workdir; error.txt says why one has failed
<folder>/bases/<base>/   a base model, which all cells with these settings share

<folder>/table.csv       `rows` of every cell; table.jsonl has the same
<folder>/sweep.json      how the sweep was made
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gc
import hashlib
import io
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax import data
from coded_jax.checks import first_line
from coded_jax.runs import experiment, provenance, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.phases import watching
from coded_jax.runs.prepare import prepare
from coded_jax.runs.progress import LiveTable
from coded_jax.runs.reading import base_accuracy, read_cost
from coded_jax.runs.workdir import Places, absolute
from coded_jax.training.loop import Interrupted
from coded_jax.types import Dataset

ERROR = "error.txt"
TABLE, SWEEP = "table", "sweep.json"
MEASURES = ("mean", "worst", "base_accuracy", "work", "price", "train_seconds")
OF_IMAGES = ("mean_iou", "worst_iou", "mean_psnr", "worst_psnr")
"""Measures of answers that are images alone."""
COLUMNS = ("cell", "method", "trial", "lost", *MEASURES, "error")


class Cell(NamedTuple):
    """One run of a sweep: its name, which is that of its folder, and its settings."""

    name: str
    config: Config


class Sweep(NamedTuple):
    """A sweep: where it runs, and the flags that made its cells.

    Attributes:
      places: where the cells run; the workdir is the sweep's folder. Without a
        `base_dir` the base models are kept in that folder.
      command: that made it, recorded in the results.
      cells: all of them, in the order of the tables.
      vary: each flag that varies, with its values.
      variants: flags that go together, as text.
    """

    places: Places
    command: str = ""
    cells: Sequence[Cell] = ()
    vary: Mapping[str, Sequence[str]] = {}
    variants: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Returns the sweep's folder."""
        return absolute(self.places.workdir)

    def workdir(self, cell: Cell) -> Path:
        """Returns the workdir of a cell."""
        return self.folder / "cells" / cell.name

    def base_dir(self, config: Config) -> str:
        """Returns the folder of the base model that cells with these settings share."""
        if self.places.base_dir is not None:
            return str(self.places.base_dir)
        settings = sorted(config.base.to_flags().items() - Config().to_flags().items())
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]
        name = f"{config.dataset}_{config.base_model}_{digest}"
        return str(self.folder / "bases" / name)


class CellResult(NamedTuple):
    """The end of a cell.

    Attributes:
      cell: that has run.
      results: the content of its `results.json`; None if it has failed.
      error: the reason in one line, then.
    """

    cell: Cell
    results: dict[str, Any] | None
    error: str = ""


def finished(cell: Cell, sweep: Sweep) -> CellResult | None:
    """Returns the result of a cell that a former sweep has finished, or None.

    Raises:
      ValueError: its folder was made with other settings.
    """
    folder = sweep.workdir(cell)
    # A run adds the digest of images of the user's own, and checks it again.
    digest = (workdir.read_flags(folder) or {}).get("images_digest")
    asked = dataclasses.replace(cell.config, images_digest=digest)
    if folder.exists():
        workdir.open_workdir(folder, asked.to_flags(), write=False)
    try:
        results = workdir.read_results(folder)
        same = Config.from_json(results["config"]) == asked
    except (ValueError, TypeError):  # not finished, or by another version
        return None
    return CellResult(cell, results) if same else None


def run_cell(
    cell: Cell,
    sweep: Sweep,
    loaded: dict[tuple, Dataset] | None = None,
    progress: LiveTable | None = None,
    base_alone: bool = False,
) -> CellResult:
    """Runs a cell, from where a former sweep stopped; no error of it is raised, but its
    traceback written into its folder.

    Args:
      cell: what to run.
      sweep: of which it is a part.
      loaded: the data set of the cell before, which takes this one's place.
      progress: a table that is shown already.
      base_alone: whether only its base model is trained; there are no results then.

    Raises:
      Interrupted: a signal asked to stop; the state is saved.
    """
    config, folder = cell.config, sweep.workdir(cell)
    error, results = folder / ERROR, None
    places = sweep.places._replace(workdir=folder, base_dir=sweep.base_dir(config))
    images = (config.dataset, config.image_size)
    loaded = {} if loaded is None else loaded
    try:
        if images not in loaded:
            loaded.clear()
            loaded[images] = data.load(images[0], places.data_dir, images[1])
        prepared = prepare(config, places, dataset=loaded[images])
        error.unlink(missing_ok=True)
        if base_alone:
            with watching(folder) as watch:
                experiment.train_base(prepared, watch)
        else:
            model = experiment.run(prepared, progress=progress, command=sweep.command)
            results = model.results
        return CellResult(cell, results)
    except Interrupted:
        raise
    except Exception as problem:  # of any kind: the other cells go on
        with contextlib.suppress(OSError):  # the disk may be what went wrong
            folder.mkdir(parents=True, exist_ok=True)
            error.write_text(traceback.format_exc())
        return CellResult(
            cell, None, f"{type(problem).__name__}: {first_line(problem)}"
        )
    finally:
        # Each cell compiles programs of its own, of which the next one has no use.
        jax.clear_caches()
        gc.collect()


def seconds(results: dict[str, Any]) -> float:
    """Returns the seconds of a finished cell's training steps and evaluation.

    Without its base model, which is trained once for all, and without validation,
    checkpoints and loading, of which a cell that was resumed does not know all.
    """
    phases = results["timing"]["seconds"]
    return sum(phases.values()) - phases["total"] - phases["base"]


def rows(result: CellResult) -> list[dict[str, Any]]:
    """Returns a cell's rows: one for each method, trial and number of lost results.

    Returns:
      Dictionaries with the keys `COLUMNS`, of a failed cell without measures, those of
      `OF_IMAGES` that it has, and one of every flag that its settings have: the flag's
      name, and its value as text.
      Accuracies are fractions; `method` is a code, `trial` the number of its training;
      `work` is that of the busiest device for one image, over the whole `F_Conv`, and
      `price` that of encoding and decoding, over the coded blocks'.
    """
    cell, results, error = result
    flags = cell.config.to_flags()
    if results is None:
        return [{"cell": cell.name, "error": error, **flags}]
    table = []
    for code in results["costs"]:
        cost = read_cost(results, code)
        summary = results["summary"] if code == "code" else results["baselines"][code]
        trials = results["seeds"].get(code, [summary])
        spent = results["timing"]["seconds"].get(code, 0.0) / len(trials)
        shared = {
            "cell": cell.name,
            "method": flags["code"] if code == "code" else code,
            "base_accuracy": base_accuracy(results),
            "work": round(sum(cost.parts.values()), 4),
            "price": round(cost.price, 4),
            "train_seconds": round(spent, 1),
        }
        for trial, by_lost in enumerate(trials):
            for lost, row in by_lost.items():
                accuracy = {
                    x: row[x] for x in ("mean", "worst", *OF_IMAGES) if x in row
                }
                place = {"trial": trial, "lost": int(lost)}
                table.append({**shared, **place, **accuracy, **flags})
    return table


def write(sweep: Sweep, results: Sequence[CellResult]) -> None:
    """Writes `table.csv` and `table.jsonl`, the same rows with all columns in both, and
    `sweep.json`, which says how the sweep was made; of the cells that have run, the
    machine of the first one is recorded.

    Raises:
      OSError: the folder cannot be written to.
    """
    table = [row for result in results for row in rows(result)]
    known = {column for row in table for column in row}
    measured = [column for column in OF_IMAGES if column in known]
    columns = [*COLUMNS, *measured, *sorted(known - {*COLUMNS, *measured})]
    complete = [{column: row.get(column) for column in columns} for row in table]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(complete)
    done = [result.results for result in results if result.results is not None]
    flags = {flag: " ".join(values) for flag, values in sweep.vary.items()}
    made = {
        "command": sweep.command,
        "provenance": provenance.collect(sweep.command, flags),
        "versions": workdir.versions(),
        "machine": {"cores": os.cpu_count()},
        "vary": dict(sweep.vary),
        "variants": list(sweep.variants),
        "cells": [cell.name for cell in sweep.cells],
        "failed": {x.cell.name: x.error for x in results if x.error},
        "seconds": round(sum(map(seconds, done)), 1),
    }
    if done:  # this process may have computed nothing
        first = done[0]
        made["provenance"]["hardware"] = first["provenance"]["hardware"]
        made |= {"versions": first["versions"], "machine": first["machine"]}
    files = {
        f"{TABLE}.jsonl": "".join(json.dumps(row) + "\n" for row in complete),
        f"{TABLE}.csv": text.getvalue(),
        SWEEP: json.dumps(made, indent=1) + "\n",
    }
    for file, content in files.items():
        workdir.write_atomically(sweep.folder / file, content)
