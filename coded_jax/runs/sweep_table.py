"""One tidy table of all cells of a sweep, and how the sweep was made.

<folder>/table.csv     what `rows` makes of every cell; table.jsonl has the same
<folder>/sweep.json    what `summary` says
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coded_jax.runs import workdir
from coded_jax.runs.reading import work_of
from coded_jax.runs.sweeps import Cell, Outcome

TABLE, SWEEP = "table", "sweep.json"
MEASURES = ("mean", "worst", "base_accuracy", "work", "train_seconds")
COLUMNS = ("cell", "method", "trial", "lost", *MEASURES, "error")


def seconds(results: dict[str, Any]) -> float:
    """A finished cell's training steps and evaluation.

    Without its base model, which is trained once for all, and without validation,
    checkpoints and loading, of which a cell that was resumed does not know all.
    """
    spent = results["timing"]["seconds"]
    return sum(spent.values()) - spent["total"] - spent["base"]


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
            "work": round(sum(work_of(cost).values()), 4),
            "train_seconds": round(spent, 1),
        }
        for trial, by_lost in enumerate(trials):
            for lost, row in by_lost.items():
                accuracy = {"mean": row["mean"], "worst": row["worst"]}
                place = {"trial": trial, "lost": int(lost)}
                found.append({**measured, **place, **accuracy, **flags})
    return found


def write(folder: Path, table: Sequence[dict[str, Any]]) -> None:
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
