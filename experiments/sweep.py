r"""Runs one experiment for every combination of some flags, and makes one table of all.

    python experiments/sweep.py --flagfile=experiments/flags/ablation_dilation.flags

A sweep's flagfile has the flags of an experiment, and what varies:

    --vary=decoder=mlp conv            a flag and its values; all combinations
    --variant=--k=2 --r=1              flags that go together

All cells share one base model (one for each setting of it that varies). Run the same
command again to resume: finished cells are skipped, failed ones are tried again.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator

import run
from absl import app, flags, logging
from rich.console import Console
from tables import sweep_tables

from coded_jax.cli.command_line import parse_flags, refuse_arguments
from coded_jax.cli.grid import VARIANT, cells_from_flags, varied
from coded_jax.report import display
from coded_jax.runs import sweep_table, sweeps, workdir
from coded_jax.runs.progress import LiveTable, add_row, live_table
from coded_jax.runs.sweeps import Cell, Outcome, Places
from coded_jax.training import loop

JOBS = flags.DEFINE_integer(
    "jobs", None, "cells at the same time, each in a process of its own, with Ray"
)
ADDRESS = flags.DEFINE_string(
    "address", None, "host:port of a Ray cluster; one of this machine if not given"
)


def places_from_flags(cells: list[Cell]) -> Places:
    """Where the sweep runs; makes its folder.

    Raises:
      ValueError: a flag is out of range, the folder cannot be written to, or the cells
        need other base models than the one whose folder was given.
    """
    bases = {tuple(cell.config.base.to_flags().items()) for cell in cells}
    if run.BASE_DIR.value is not None and len(bases) > 1:
        raise ValueError(
            f"base_dir: {run.BASE_DIR.value!r} given, none accepted where cells need "
            f"{len(bases)} base models"
        )
    if run.COORDINATOR.value is not None:
        raise ValueError(
            f"coordinator: {run.COORDINATOR.value!r} given, none accepted: a sweep's "
            "cells run in one process, or with --jobs in several"
        )
    if JOBS.value is not None and JOBS.value < 1:
        raise ValueError(f"jobs: {JOBS.value} given, 1 or more accepted")
    if ADDRESS.value is not None and JOBS.value is None:
        raise ValueError("jobs: not given, 1 or more accepted with an address")
    folder = workdir.absolute(run.WORKDIR.value)
    if (folder / workdir.FLAGS).exists():
        raise ValueError(f"workdir: {str(folder)!r} given, which holds a single run")
    workdir.make_folder(folder)
    command = shlex.join(["python", *sys.argv])
    where = (run.DATA_DIR.value, run.DEVICES.value, run.mesh_from_flags())
    return Places(folder, *where, run.BASE_DIR.value, command)


def run_cells(
    cells: list[Cell], places: Places, progress: LiveTable
) -> Iterator[Outcome]:
    """Those that are not finished: here, or in processes of their own."""
    if JOBS.value is None:
        return sweeps.run_in_turn(cells, places, progress)
    from coded_jax.studies.ray_sweep import run_with_ray

    return run_with_ray(cells, places, JOBS.value)


def sweep(
    cells: list[Cell], places: Places, done: dict[str, Outcome], console: Console
) -> list[Outcome]:
    """Runs what is not done by name, and writes the table after every cell.

    Raises:
      loop.Interrupted: a signal asked to stop.
    """
    outcomes = dict(done)
    waiting = [cell for cell in cells if cell.name not in outcomes]
    if outcomes:
        console.print(f"{len(outcomes)} of {len(cells)} cells are finished already")
    if others := sweeps.others(cells, places):
        console.print(
            f"{len(others)} more cells of this folder are not of this grid, and so not "
            f"in its table: {', '.join(others)}",
            highlight=False,
        )
    if waiting and not console.is_terminal:
        console.print("each cell has a line when it is done", highlight=False)
    with live_table(console, tells=False) as progress:
        row = add_row(progress, "cells", len(waiting))
        for outcome in run_cells(waiting, places, progress):
            outcomes[outcome.cell.name] = outcome
            progress.advance(row)
            text = line(outcome, len(outcomes), len(cells))
            if progress.disable and (left := progress.tasks[0].time_remaining):
                text += f", about {duration(left)} left"
            console.print(text, highlight=False, soft_wrap=True)
            write(places, cells, outcomes)
    write(places, cells, outcomes)
    return [outcomes[cell.name] for cell in cells]


def duration(seconds: float) -> str:
    """A time to wait, no finer than it can be foretold."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def line(outcome: Outcome, number: int, total: int) -> str:
    """One cell's outcome as text."""
    told = f"{number}/{total} {outcome.cell.name}: "
    if outcome.results is None:
        return told + outcome.error
    by_lost = outcome.results["summary"].items()
    means = ", ".join(f"{l} lost {display.spread(row, 'mean')}" for l, row in by_lost)
    spent = sweep_table.seconds(outcome.results)
    return f"{told}{means} after {spent:.0f} s of training and evaluation"


def write(places: Places, cells: list[Cell], outcomes: dict[str, Outcome]) -> None:
    """The tables of what has run, and how they were made."""
    found = [outcomes[cell.name] for cell in cells if cell.name in outcomes]
    rows = [row for outcome in found for row in sweep_table.rows(outcome)]
    sweep_table.write(places.folder, rows)
    content = sweep_table.summary(cells, found, varied(), VARIANT.value, places.command)
    text = json.dumps(content, indent=1) + "\n"
    workdir.write_atomically(places.folder / sweep_table.SWEEP, text)


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    console = Console()
    try:
        cells = cells_from_flags()
        places = places_from_flags(cells)
        sweeps.require_same_flags(cells, places)
        found = {cell.name: sweeps.finished(cell, places) for cell in cells}
        done = {name: outcome for name, outcome in found.items() if outcome}
        if len(done) < len(cells) and JOBS.value is not None:
            from coded_jax.devices import cluster

            cluster.connect(ADDRESS.value, JOBS.value)
        run.start_jax()
        outcomes = sweep(cells, places, done, console)
    except (loop.Interrupted, KeyboardInterrupt) as stop:
        message = str(stop) or "stopped"
        print(f"{message}; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    failed = [outcome for outcome in outcomes if outcome.results is None]
    if len(failed) < len(outcomes):
        console.print(sweep_tables.terminal(sweep_tables.read(places.folder)))
    told = f"all of it is in {places.folder}"
    console.print(told, highlight=False, soft_wrap=True)
    if failed:
        told = ", ".join(outcome.cell.name for outcome in failed)
        sys.exit(f"error: {len(failed)} of {len(cells)} cells failed: {told}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
