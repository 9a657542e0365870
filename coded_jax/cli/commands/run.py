r"""Runs one experiment: trains a base model and a code, tries every erasure pattern.

    python -m coded_jax run --flagfile=quickstart.flags

Run the same command again to resume. Later flags win, so a variant of a flagfile is

    python -m coded_jax run --flagfile=table5_k2_r1.flags \
        --recipe=systematic --workdir=runs/table5_k2_r1_systematic
"""

from __future__ import annotations

import time

from rich.console import Console

from coded_jax.cli.command_line import command, command_text
from coded_jax.cli.run_flags import WORKDIR, prepare_from_flags
from coded_jax.devices import processes, startup
from coded_jax.report import run_figures, run_tables
from coded_jax.runs import experiment
from coded_jax.training import loop


@command(errors=(loop.NonFiniteError, OSError), resumes=True)
def main(argv: list[str]) -> None:
    """Runs the experiment of the flags, and prints its outcome."""
    imports = time.process_time()  # of one thread, so far
    startup.run_one_by_one()
    prepared = prepare_from_flags()
    results = experiment.run(prepared, command=command_text())
    if not processes.is_lead():
        return
    console = Console()
    try:
        run_figures.draw(prepared.folder, results)
    except ImportError as error:
        console.print(str(error))
    console.print(run_tables.tables(results), highlight=False)
    timing = results["timing"]
    console.print(f"seconds: {times_text(timing['seconds'])}", highlight=False)
    start_up = times_text({"imports": imports, **timing["start_up"]})
    console.print(f"of start-up: {start_up}", highlight=False)
    console.print(f"all of it is in {WORKDIR.value}", highlight=False)


def times_text(seconds: dict[str, float]) -> str:
    """Returns the seconds of each part in one line."""
    return ", ".join(f"{part} {value:.0f}" for part, value in seconds.items())
