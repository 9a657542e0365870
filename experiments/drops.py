"""Shows what codes on deep networks lose and cost: points below the base, work, memory.

    python experiments/drops.py runs/deep/vgg16_*

Arguments are workdirs of finished runs, or copies of their `results.json`. Prints a
table for each network and size of code: devices, encoding and decoding of r lost
results in percent of the coded blocks' work on one whole image (where more are lost,
`sharpen` decodes again), work of a device and of the client, bytes, rounds and memory;
the drop from the base (mean and worst pattern) for every number of lost results, and of
the other losses that the run has tried (`--other_stage_losses`). Beside the runs stands
what loses nothing: the whole image on r + 1 devices, copies of each piece, pieces of
which a missing one is sent once more, and exact codes of every convolution in the same
blocks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from tables import deep
from tables.stored import read_current

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.report import table


@command(arguments=True)
def main(argv: list[str]) -> None:
    require("runs", argv[1:], bool(argv[1:]), "workdirs of finished runs")
    runs = [read_current(Path(path)) for path in argv[1:]]
    console = Console(width=None if sys.stdout.isatty() else 300)
    for title, shown in deep.tables(runs):
        console.print(title, table.to_terminal(shown), sep="\n", highlight=False)


if __name__ == "__main__":
    run(main)
