r"""Runs one experiment: trains a base model and a code, tries every erasure pattern.

    python -m coded_jax run --flagfile=quickstart.flags

Run the same command again to resume. Later flags win, so a variant of a flagfile is

    python -m coded_jax run --flagfile=table5_k2_r1.flags \
        --recipe=systematic --workdir=runs/table5_k2_r1_systematic
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from coded_jax.cli.command_line import command, command_text
from coded_jax.cli.experiment_flags import WORKDIR, prepare_from_flags
from coded_jax.devices import processes, startup
from coded_jax.report import run_figures, run_overview, run_tables
from coded_jax.runs import experiment
from coded_jax.runs.progress import LiveTable
from coded_jax.training import loop

PREPARING = (
    "preparing data, network and pieces (the first time also fast kernels, 10 s)"
)


@command(errors=(loop.NonFiniteError, OSError), resumes=True)
def main(argv: list[str]) -> None:
    """Runs the experiment of the flags, and prints its outcome."""
    startup.run_one_by_one()
    progress, console = Console(stderr=True), Console()
    with progress.status(PREPARING):
        prepared = prepare_from_flags()
    lead, folder, phases = processes.is_lead(), WORKDIR.value, {}
    if lead:
        phases = run_overview.phases(prepared)
        for line in run_overview.opening(prepared, folder):
            progress.print(line, highlight=False)
    with LiveTable(progress, phases=phases) if lead else nullcontext() as table:
        model = experiment.run(prepared, progress=table, command=command_text())
    if not lead:
        return
    results = model.results
    try:
        with progress.status("drawing figures"):
            run_figures.draw(Path(folder), results)
    except ImportError as error:
        console.print(str(error), markup=False)
    seconds = results["timing"]["seconds"].items()
    times = ", ".join(f"{name} {value:.0f}" for name, value in seconds)
    tables = run_tables.tables(results)
    console.print(tables, f"seconds: {times}", sep="\n", highlight=False)
    console.print(f"all of it is in {folder}; to try next:", highlight=False)
    for line in run_overview.closing(results, folder):
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
