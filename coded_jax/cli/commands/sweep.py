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
from coded_jax.report import sweep_progress, sweep_tables
from coded_jax.runs import sweeps, workdir
from coded_jax.runs.progress import LiveTable
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
    results = sweep_progress.run(sweep, finished, run_cells, console)
    failed = [result.cell.name for result in results if result.results is None]
    if len(failed) < len(cells):
        console.print(sweep_tables.terminal(sweep_tables.read(sweep.folder)))
    folder = f"all of it is in {sweep.folder}"
    console.print(folder, highlight=False, soft_wrap=True)
    if failed:
        names = ", ".join(failed)
        sys.exit(f"error: {len(failed)} of {len(cells)} cells failed: {names}")
