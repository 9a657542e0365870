"""One tidy table of all cells of a sweep, and how the sweep was made.

<folder>/table.csv     `rows` of every cell; table.jsonl has the same
<folder>/sweep.json    the `summary`
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coded_jax.runs import provenance, workdir
from coded_jax.runs.reading import base_accuracy, code_work, total_work
from coded_jax.runs.sweeps import CellResult, Sweep

TABLE, SWEEP = "table", "sweep.json"
MEASURES = ("mean", "worst", "base_accuracy", "work", "price", "train_seconds")
OF_IMAGES = ("mean_iou", "worst_iou", "mean_psnr", "worst_psnr")
"""Measures of answers that are images alone."""
COLUMNS = ("cell", "method", "trial", "lost", *MEASURES, "error")


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
    for code, cost in results["costs"].items():
        summary = results["summary"] if code == "code" else results["baselines"][code]
        trials = results["seeds"].get(code, [summary])
        spent = results["timing"]["seconds"].get(code, 0.0) / len(trials)
        shared = {
            "cell": cell.name,
            "method": flags["code"] if code == "code" else code,
            "base_accuracy": base_accuracy(results),
            "work": round(total_work(cost), 4),
            "price": round(code_work(cost), 4),
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


def write(folder: Path, table: Sequence[dict[str, Any]]) -> None:
    """Writes `table.csv` and `table.jsonl`, the same rows with all columns in both.

    Raises:
      OSError: the folder cannot be written to.
    """
    known = {name for row in table for name in row}
    measured = [name for name in OF_IMAGES if name in known]
    names = [*COLUMNS, *measured, *sorted(known - {*COLUMNS, *measured})]
    complete = [{name: row.get(name) for name in names} for row in table]
    lines = "".join(json.dumps(row) + "\n" for row in complete)
    workdir.write_atomically(folder / f"{TABLE}.jsonl", lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(complete)
    workdir.write_atomically(folder / f"{TABLE}.csv", text.getvalue())


def summary(sweep: Sweep, results: Sequence[CellResult]) -> dict[str, Any]:
    """Returns the content of `sweep.json`: the sweep's origin, cells and seconds.

    Args:
      sweep: the sweep.
      results: of the cells that have run; the machine of the first one is recorded.
    """
    done = [result.results for result in results if result.results is not None]
    flags = {name: " ".join(values) for name, values in sweep.vary.items()}
    origin = provenance.collect(sweep.command, flags).to_json()
    if done and "provenance" in done[0]:  # this process may have computed nothing
        origins = [content["provenance"] for content in done]
        origin |= {"hardware": origins[0]["hardware"]}
    return {
        "command": sweep.command,
        "provenance": origin,
        "versions": done[0]["versions"] if done else workdir.versions(),
        "machine": done[0]["machine"] if done else {"cores": os.cpu_count()},
        "vary": dict(sweep.vary),
        "variants": list(sweep.variants),
        "cells": [cell.name for cell in sweep.cells],
        "failed": {x.cell.name: x.error for x in results if x.error},
        "seconds": round(sum(map(seconds, done)), 1),
    }
