r"""Times this project and the same jobs in PyTorch, in turns, in one run.

    pip install 'coded_jax[bench]'
    python experiments/benchmark.py

Trains base models and codes, and infers with them; see `--sections` and `--subjects`.
It prints tables, and writes a JSON file that is named after the processor. Every time
is the median of several rounds. Where others compute meanwhile no file is written, but
what they have not disturbed is kept: the same command goes on from there. Without
PyTorch this project alone is timed. A quick look at one job:

    python experiments/benchmark.py --notorch_compile \
        --subjects=resnet18 --sections=base --train_batches=128 --rounds=5
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import jax
from absl import flags
from benchmarks import machine, measuring, tables
from rich.console import Console

from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import command, command_text, run
from coded_jax.devices import startup
from coded_jax.runs import provenance, workdir

WIDTH = 120  # of the tables, at least

setting_flags.define(measuring.Settings)
FOLDER = flags.DEFINE_string("folder", "runs/speed", "of the JSON file to be written")


def run_benchmark(wanted: measuring.Settings, folder: Path) -> None:
    """Measures, prints tables, and writes the file unless others computed."""
    torch, about = measuring.pytorch(), machine.about()
    pytorch = torch.set_up() if torch else None
    made = provenance.collect(command_text(), devices=jax.devices())
    origin = {
        "machine": about,
        "threads": {
            "coded_jax": int(about["variables"].get("NPROC", about["cores"])),
            "pytorch": pytorch and pytorch["threads"],
        },
        "versions": workdir.versions(),
        "pytorch": pytorch,
        **{name: made[name] for name in ("commit", "command")},
    }
    workdir.make_folder(folder, "folder")
    output = folder / f"{machine.slug(about)}.json"
    kept, began = output.with_suffix(".partial"), time.monotonic()
    rows = measuring.run(wanted, torch, kept, origin)
    report = {
        **origin,
        "date": made["date"],
        "seconds": round(time.monotonic() - began),  # since the last start
        "times": rows,
        "targets": tables.targets(rows),
    }
    console = Console(markup=False)
    console.width = max(console.width, WIDTH)
    console.print(tables.terminal(report), highlight=False)
    if (most := measuring.most_others(rows)) > measuring.LIMIT:
        print(
            f"no file is written: others used up to {most:.2f} cores meanwhile; the "
            "same command measures again what they have disturbed"
        )
        return
    workdir.write_atomically(output, json.dumps(report, indent=1) + "\n")
    kept.unlink()
    print(f"all of it is in {output}")


@command()
def main(argv: list[str]) -> None:
    startup.keep_memory()  # as run.py does; it serves PyTorch as well
    startup.run_one_by_one()  # likewise
    # Else JAX leaves no memory of a GPU for PyTorch.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    wanted = measuring.Settings(**setting_flags.read(measuring.Settings))
    run_benchmark(wanted, Path(FOLDER.value))


if __name__ == "__main__":
    run(main)
