r"""Runs one experiment for every combination of some flags, and makes one table of all.

    python -m coded_jax sweep --flagfile=ablation_dilation.flags

A sweep's flagfile has the flags of an experiment, and what varies:

    --vary=decoder=mlp conv            a flag and its values; all combinations
    --variant=--k=2 --r=1              flags that go together

All cells share one base model (one for each setting of it that varies). Run the same
command again to resume: finished cells are skipped, failed ones are tried again.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator

from absl import flags
from absl.testing import flagsaver  # restores all flags; it needs no test
from rich.console import Console

from coded_jax import data
from coded_jax.checks import require
from coded_jax.cli import experiment_flags
from coded_jax.cli.command_line import command, command_text
from coded_jax.devices import startup
from coded_jax.report import sweep_tables
from coded_jax.report.formatting import measure_text
from coded_jax.runs import sweeps, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.progress import LiveTable
from coded_jax.runs.sweeps import Cell, CellResult, Sweep
from coded_jax.runs.workdir import absolute
from coded_jax.settings import settings
from coded_jax.types import Dataset

VARY = flags.DEFINE_multi_string(
    "vary", [], "a flag and its values, as 'k=2 4'; repeated, all combinations"
)
VARIANT = flags.DEFINE_multi_string(
    "variant",
    [],
    "flags that go together, as '--k=4 --r=2'; repeated, each with all combinations",
)
JOBS = flags.DEFINE_integer(
    "jobs",
    None,
    "cells at the same time, each in a process of its own, with Ray",
    lower_bound=1,
)
ADDRESS = flags.DEFINE_string(
    "address", None, "host:port of a Ray cluster; one of this machine if not given"
)
KNOWN = sorted(declared.name for declared in settings(Config))
LONGEST = 120  # characters of the name of a cell's folder

Options = dict[str, str]
"""Maps names of flags to the texts that a cell has in place of the command line's."""


def cells_from_flags() -> list[Cell]:
    """Returns a cell for every variant with every combination of values.

    Raises:
      ValueError: the flags name no cell, or one that is out of range.
    """
    together, alone = [_variant_of(text) for text in VARIANT.value] or [{}], _varied()
    both = sorted({flag for variant in together for flag in variant} & alone.keys())
    require("vary", both, not both, "none that --variant sets")
    require("vary", [], together != [{}] or bool(alone), "one or more, or --variant,")
    cells = [
        _cell_of({**variant, **dict(zip(alone, values, strict=True))})
        for variant in together
        for values in itertools.product(*alone.values())
    ]
    return [*{cell.name: cell for cell in cells}.values()]  # each folder once


def _varied() -> dict[str, list[str]]:
    """Returns the values of each flag that varies."""
    values_of: dict[str, list[str]] = {}
    for text in VARY.value:
        name, _, values = text.partition("=")
        fits = name in KNOWN and bool(values.split()) and name not in values_of
        accepted = f"all values of a flag at once, as 'k=2 4', of one of {KNOWN},"
        require("vary", text, fits, accepted)
        values_of[name] = values.split()
    return values_of


def _variant_of(text: str) -> Options:
    """Returns the flags of one variant, as `--k=4 --r=2`."""
    try:
        words = shlex.split(text)
    except ValueError:  # an open quotation
        words = [""]
    matches = [re.fullmatch(r"--?(\w+)=(.*)", word) for word in words]
    options = {match[1]: match[2] for match in matches if match}
    fits = len(options) == len(words) and {*options} <= {*KNOWN}
    require("variant", text, fits, f"flags as '--k=4 --r=2', of {KNOWN},")
    return options


def _cell_of(options: Options) -> Cell:
    """Returns the cell in which `options` take the place of the flags given. Its name
    is that of a folder: `epochs=2_k=4`, shortened if need be, or `default`."""
    text = "_".join(f"{flag}={value}" for flag, value in options.items()) or "default"
    name = re.sub(r"[^\w=.,+:-]", "-", text)
    if name != text or len(name) > LONGEST:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST - 9]}_{digest}"
    with flagsaver.flagsaver():
        try:
            for flag, value in options.items():
                flags.FLAGS[flag].parse(value)
            return Cell(name, experiment_flags.config_from_flags())
        except (flags.Error, ValueError) as error:
            raise ValueError(f"cell {name}: {error} (blanks part values)") from None


def _sweep_from_flags(cells: list[Cell]) -> Sweep:
    """Returns the sweep, and makes its folder."""
    places = experiment_flags.places_from_flags()
    coordinator = experiment_flags.COORDINATOR.value
    accepted = "none, since cells run in one process, or with --jobs in several,"
    require("coordinator", coordinator, coordinator is None, accepted)
    if ADDRESS.value is not None and JOBS.value is None:
        raise ValueError("jobs: not given, 1 or more accepted with an address")
    folder = absolute(places.workdir)
    workdir.make_folder(folder)
    places = places._replace(workdir=folder)
    return Sweep(places, command_text(), cells, _varied(), VARIANT.value)


def _run_cells(
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


def _result_text(result: CellResult) -> str:
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
    console = Console(highlight=False, soft_wrap=True)
    cells = cells_from_flags()
    sweep = _sweep_from_flags(cells)
    # In the order of the cells, whatever ends first.
    ended = {cell.name: sweeps.finished(cell, sweep) for cell in cells}
    waiting = [cell for cell in cells if ended[cell.name] is None]
    datasets = {cell.config.dataset for cell in waiting}
    if len(datasets) == 1:  # of several, cells of one that is missing fail alone
        data.check(datasets.pop(), sweep.places.data_dir)
    if waiting and JOBS.value is not None:
        from coded_jax.service import cluster

        cluster.connect(ADDRESS.value, JOBS.value)
    startup.run_one_by_one()
    experiment_flags.start_jax()
    finished = len(cells) - len(waiting)
    if finished:
        console.print(f"{finished} of {len(cells)} cells are finished already")
    if waiting and not console.is_terminal:
        console.print("each cell has a line when it is done")
    write = lambda: sweeps.write(sweep, [*filter(None, ended.values())])
    with LiveTable(console, prints=False) as progress:
        row = progress.begin("cells", len(waiting))
        results = _run_cells(waiting, sweep, progress)
        for done, result in enumerate(results, finished + 1):
            ended[result.cell.name] = result
            progress.advance(row.id)
            console.print(f"{done}/{len(cells)} {_result_text(result)}")
            write()
    write()  # also where all cells were finished
    failed = [x.cell.name for x in ended.values() if x and x.results is None]
    if len(failed) < len(cells):
        table = sweep_tables.terminal(sweep_tables.read(sweep.folder))
        console.print(table, soft_wrap=False)
    console.print(f"all of it is in {sweep.folder}")
    if failed:
        names = ", ".join(failed)
        sys.exit(f"error: {len(failed)} of {len(cells)} cells failed: {names}")
