"""Compares all codes on one base model: accuracy against work and against failures.

    python experiments/frontier.py --output=runs/frontier runs/frontier_lenet5_*

Arguments are workdirs of finished runs, or copies of their `results.json`, with the
same base model; `A(f)` needs runs with a `--tried` of at least the devices less one.
Prints a table, and writes `frontier.json` and `frontier.png`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags
from rich import box
from rich.console import Console
from rich.table import Table
from tables import frontier_files, frontier_tables

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run

OUTPUT = flags.DEFINE_string("output", None, "folder of frontier.json and .png")
FAILURE = flags.DEFINE_multi_float(
    "failure", frontier_tables.FAILURES, "probability that a device's result is lost"
)


@command(arguments=True)
def main(argv: list[str]) -> None:
    for failure in FAILURE.value:
        require("failure", failure, 0 <= failure <= 1, "0..1")
    points, runs = frontier_tables.read(argv[1:])
    shown = []
    for headings, rows in frontier_tables.all_tables(points, runs, FAILURE.value):
        shown.append(Table(*headings, box=box.SIMPLE_HEAD))
        for row in rows:
            shown[-1].add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 200)
    lines = frontier_tables.against_no_parity(runs)
    heading = frontier_tables.heading(runs[0])
    console.print(heading, *shown, *lines, sep="\n", highlight=False)
    if OUTPUT.value is not None:
        frontier_files.write(Path(OUTPUT.value), points, runs[0], FAILURE.value)


if __name__ == "__main__":
    run(main)
