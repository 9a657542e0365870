r"""Runs one experiment for every combination of some flags, and makes one table of all.

    python -m coded_jax sweep --flagfile=ablation_dilation.flags

A sweep's flagfile has the flags of an experiment, and what varies:

    --vary=decoder=mlp conv            a flag and its values; all combinations
    --variant=--k=2 --r=1              flags that go together

All cells share one base model (one for each setting of it that varies). Run the same
command again to resume: finished cells are skipped, failed ones are tried again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from absl import flags
from rich.console import Console

from coded_jax import data
from coded_jax.checks import require
from coded_jax.cli import run_flags
from coded_jax.cli.command_line import command, command_text
from coded_jax.cli.grid import VARIANT, cells_from_flags, varied
from coded_jax.devices import startup
from coded_jax.report import sweep_tables
from coded_jax.report.formatting import measure_text
from coded_jax.runs import sweeps, workdir
from coded_jax.runs.progress import LiveTable, duration_text
from coded_jax.runs.sweeps import Cell, CellResult, Sweep
from coded_jax.runs.workdir import absolute
from coded_jax.types import Dataset

JOBS = flags.DEFINE_integer(
    "jobs",
    None,
    "cells at the same time, each in a process of its own, with Ray",
    lower_bound=1,
)
ADDRESS = flags.DEFINE_string(
    "address", None, "host:port of a Ray cluster; one of this machine if not given"
)


def sweep_from_flags(cells: list[Cell]) -> Sweep:
    """Returns the sweep, and makes its folder.

    Raises:
      ValueError: a flag is out of range, the folder cannot be written to, or the cells
        need other base models than the one whose folder was given.
    """
    base_dir, coordinator = run_flags.BASE_DIR.value, run_flags.COORDINATOR.value
    bases = {tuple(cell.config.base.to_flags().items()) for cell in cells}
    fits = base_dir is None or len(bases) == 1
    require(
        "base_dir", base_dir, fits, f"none where cells need {len(bases)} base models"
    )
    accepted = "none, since cells run in one process, or with --jobs in several,"
    require("coordinator", coordinator, coordinator is None, accepted)
    if ADDRESS.value is not None and JOBS.value is None:
        raise ValueError("jobs: not given, 1 or more accepted with an address")
    folder = absolute(run_flags.WORKDIR.value)
    single = (folder / workdir.FLAGS).exists()
    require("workdir", str(folder), not single, "one without a single run")
    workdir.make_folder(folder)
    return Sweep(
        places=run_flags.places_from_flags()._replace(workdir=folder),
        command=command_text(),
        cells=cells,
        vary=varied(),
        variants=VARIANT.value,
    )


def run_cells(
    cells: list[Cell], sweep: Sweep, progress: LiveTable
) -> Iterator[CellResult]:
    """Runs cells one after the other in this process, or in processes of their own;
    yields how each has ended."""
    if JOBS.value is not None:
        from coded_jax.service.studies.ray_sweep import run_with_ray

        yield from run_with_ray(cells, sweep, JOBS.value)
        return
    loaded: dict[tuple, Dataset] = {}
    for cell in cells:
        shown = set(progress.task_ids)
        yield sweeps.run_cell(cell, sweep, loaded, progress)
        for row in set(progress.task_ids) - shown:
            progress.remove_task(row)


def run_waiting(
    sweep: Sweep, finished: list[CellResult], console: Console
) -> list[CellResult]:
    """Runs the cells that are not finished, with a line for each, and writes the tables
    of all so far after each one.

    Returns:
      The results of all cells, in their order.

    Raises:
      loop.Interrupted: a signal asked to stop.
    """
    ended = {result.cell.name: result for result in finished}
    waiting = [cell for cell in sweep.cells if cell.name not in ended]
    if ended:
        console.print(f"{len(ended)} of {len(sweep.cells)} cells are finished already")
    if others := sweeps.others(sweep):
        console.print(
            f"{len(others)} more cells of this folder are not of this grid, and so not "
            f"in its table: {', '.join(others)}",
            highlight=False,
        )
    if waiting and not console.is_terminal:
        console.print("each cell has a line when it is done", highlight=False)

    def in_order() -> list[CellResult]:
        return [ended[cell.name] for cell in sweep.cells if cell.name in ended]

    with LiveTable(console, prints=False) as progress:
        row = progress.begin("cells", len(waiting))
        for result in run_cells(waiting, sweep, progress):
            ended[result.cell.name] = result
            progress.advance(row)
            text = f"{len(ended)}/{len(sweep.cells)} {result_text(result)}"
            if progress.disable and (left := progress.tasks[0].time_remaining):
                text += f", about {duration_text(left)} left"
            console.print(text, highlight=False, soft_wrap=True)
            sweeps.write(sweep, in_order())
    sweeps.write(sweep, in_order())  # also where all cells were finished
    return in_order()


def result_text(result: CellResult) -> str:
    """Returns the accuracies of a cell, or why it has none."""
    if result.results is None:
        return f"{result.cell.name}: {result.error}"
    by_lost = result.results["summary"].items()
    means = ", ".join(f"{l} lost {measure_text(row, 'mean')}" for l, row in by_lost)
    seconds = f"{sweeps.seconds(result.results):.0f} s of training and evaluation"
    return f"{result.cell.name}: {means} after {seconds}"


@command(resumes=True)
def main(argv: list[str]) -> None:
    """Runs the cells that are not finished, and prints the table of all."""
    console = Console()
    cells = cells_from_flags()
    sweep = sweep_from_flags(cells)
    sweeps.require_same_flags(sweep)
    left = [sweeps.finished(cell, sweep) for cell in cells]
    finished = [result for result in left if result]
    done = {result.cell.name for result in finished}
    names = {cell.config.dataset for cell in cells if cell.name not in done}
    if len(names) == 1:  # of several, cells of one that is missing fail alone
        data.check(names.pop(), sweep.places.data_dir)
    if len(finished) < len(cells) and JOBS.value is not None:
        from coded_jax.service import cluster

        cluster.connect(ADDRESS.value, JOBS.value)
    startup.run_one_by_one()
    run_flags.start_jax()
    results = run_waiting(sweep, finished, console)
    failed = [result.cell.name for result in results if result.results is None]
    if len(failed) < len(cells):
        console.print(sweep_tables.terminal(sweep_tables.read(sweep.folder)))
    folder = f"all of it is in {sweep.folder}"
    console.print(folder, highlight=False, soft_wrap=True)
    if failed:
        names = ", ".join(failed)
        sys.exit(f"error: {len(failed)} of {len(cells)} cells failed: {names}")
