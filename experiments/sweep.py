r"""Runs one experiment for every combination of some flags, and makes one table of all.

    python experiments/sweep.py --flagfile=experiments/flags/ablation_dilation.flags

A sweep's flagfile has the flags of an experiment, and what varies:

    --vary=decoder=mlp conv            a flag and its values; all combinations
    --variant=--k=2 --r=1              flags that go together

All cells share one base model (one for each setting of it that varies). Run the same
command again to resume: finished cells are skipped, failed ones are tried again.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

from absl import flags
from rich.console import Console
from tables import sweep_progress, sweep_tables

from coded_jax.checks import require
from coded_jax.cli import run_flags
from coded_jax.cli.command_line import command, run
from coded_jax.cli.grid import VARIANT, cells_from_flags, varied
from coded_jax.runs import sweeps, workdir
from coded_jax.runs.progress import LiveTable
from coded_jax.runs.sweeps import Cell, Outcome, Places

JOBS = flags.DEFINE_integer(
    "jobs", None, "cells at the same time, each in a process of its own, with Ray"
)
ADDRESS = flags.DEFINE_string(
    "address", None, "host:port of a Ray cluster; one of this machine if not given"
)


def places_from_flags(cells: list[Cell]) -> Places:
    """Returns where the sweep runs, and makes its folder.

    Raises:
      ValueError: a flag is out of range, the folder cannot be written to, or the cells
        need other base models than the one whose folder was given.
    """
    base_dir, coordinator = run_flags.BASE_DIR.value, run_flags.COORDINATOR.value
    bases = {tuple(cell.config.base.to_flags().items()) for cell in cells}
    if base_dir is not None and len(bases) > 1:
        raise ValueError(
            f"base_dir: {base_dir!r} given, none accepted where cells need "
            f"{len(bases)} base models"
        )
    if coordinator is not None:
        raise ValueError(
            f"coordinator: {coordinator!r} given, none accepted: a sweep's cells run "
            "in one process, or with --jobs in several"
        )
    require("jobs", JOBS.value, JOBS.value is None or JOBS.value >= 1, "1 or more")
    if ADDRESS.value is not None and JOBS.value is None:
        raise ValueError("jobs: not given, 1 or more accepted with an address")
    folder = workdir.absolute(run_flags.WORKDIR.value)
    if (folder / workdir.FLAGS).exists():
        raise ValueError(f"workdir: {str(folder)!r} given, which holds a single run")
    workdir.make_folder(folder)
    return Places(
        folder,
        data_dir=run_flags.DATA_DIR.value,
        devices=run_flags.DEVICES.value,
        mesh=run_flags.mesh_from_flags(),
        base_dir=base_dir,
        command=shlex.join(["python", *sys.argv]),
    )


def run_cells(
    cells: list[Cell], places: Places, progress: LiveTable
) -> Iterator[Outcome]:
    """Runs cells in this process, or in processes of their own."""
    if JOBS.value is None:
        return sweeps.run_in_turn(cells, places, progress)
    from coded_jax.studies.ray_sweep import run_with_ray

    return run_with_ray(cells, places, JOBS.value)


@command(resumes=True)
def main(argv: list[str]) -> None:
    console = Console()
    cells = cells_from_flags()
    places = places_from_flags(cells)
    sweeps.require_same_flags(cells, places)
    outcomes = [sweeps.finished(cell, places) for cell in cells]
    finished = [outcome for outcome in outcomes if outcome]
    if len(finished) < len(cells) and JOBS.value is not None:
        from coded_jax.devices import cluster

        cluster.connect(ADDRESS.value, JOBS.value)
    run_flags.start_jax()
    sweep = sweep_progress.Sweep(cells, places, varied(), tuple(VARIANT.value))
    outcomes = sweep_progress.run(sweep, finished, run_cells, console)
    failed = [outcome.cell.name for outcome in outcomes if outcome.results is None]
    if len(failed) < len(outcomes):
        console.print(sweep_tables.terminal(sweep_tables.read(places.folder)))
    folder = f"all of it is in {places.folder}"
    console.print(folder, highlight=False, soft_wrap=True)
    if failed:
        names = ", ".join(failed)
        sys.exit(f"error: {len(failed)} of {len(cells)} cells failed: {names}")


if __name__ == "__main__":
    run(main)
