"""Shows what codes on deep networks lose and cost: points below the base, work, memory.

    python experiments/drops.py --output=runs/drops runs/deep/vgg16_*

Arguments are workdirs of finished runs, or copies of their `results.json`. Prints a
table for each network and size of code: devices, encoding and decoding of r lost
results in percent of the coded blocks' work on one whole image (where more are lost,
`sharpen` decodes again), work of a device and of the client, bytes, rounds and memory;
the drop from the base (mean / worst pattern) for every number of lost results, and of
the other losses that the run has tried (`--other_stage_losses`). Beside the runs stands
what loses nothing: the whole image on r + 1 devices, copies of each piece, pieces of
which a missing one is sent once more, and exact codes of every convolution in the same
blocks, which are counted and not run. With `--output` it writes pictures there: these
drops over all work in `drops.png`, over the code's own in `drops_price.png`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags
from rich import box
from rich.console import Console
from rich.table import Table
from tables import drop_figure, drop_tables
from tables.finished_runs import read_current

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.runs.workdir import make_folder

OUTPUT = flags.DEFINE_string("output", None, "folder of the pictures")


@command(arguments=True)
def main(argv: list[str]) -> None:
    require("runs", argv[1:], bool(argv[1:]), "workdirs of finished runs")
    runs = [read_current(Path(path)) for path in argv[1:]]
    console = Console(width=None if sys.stdout.isatty() else 300)
    for table in drop_tables.tables(runs):
        shown = Table(*table.headings, box=box.SIMPLE_HEAD)
        for row in table.rows:
            shown.add_row(*row)
        console.print(table.title, shown, sep="\n", highlight=False)
    if OUTPUT.value is not None:
        folder = Path(OUTPUT.value)
        make_folder(folder, "output")
        drop_figure.draw(folder, runs)


if __name__ == "__main__":
    run(main)
