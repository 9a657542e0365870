r"""Times this project and the same jobs in PyTorch, in turns, in one run.

    pip install 'coded_jax[bench]'
    python experiments/benchmark.py

Trains base models and codes, and infers with them; see `--sections` and `--subjects`.
It prints tables, and writes a JSON file that is named after the processor. Every time
is the median of several rounds. While others compute it refuses to measure, and keeps
what it has measured: the same command goes on from there. Without PyTorch it times this
project alone. A quick look at one job, on a machine that does other things as well:

    python experiments/benchmark.py --allow_busy --notorch_compile \
        --subjects=resnet18 --sections=base --train_batches=128 --rounds=5

And where its time goes, by operations of XLA:

    python experiments/benchmark.py --profile=base:resnet18:128
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import jax
from absl import flags
from benchmarks import hlo_profile, machine, sections
from benchmarks.rows import targets
from benchmarks.sections import Bench, Settings, Store
from benchmarks.tables import tables
from rich.console import Console

from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import command, run
from coded_jax.devices import startup
from coded_jax.runs import provenance, workdir

WIDTH = 120  # of the tables, at least

setting_flags.define(Settings)
flags.DEFINE_string("folder", "runs/speed", "of the JSON file to be written")
flags.DEFINE_bool(
    "allow_busy",
    False,
    "show what is measured while others compute; no file is written then",
)
flags.DEFINE_string(
    "profile",
    None,
    "only tells where the time of one of our jobs goes: section:subject:batch, as "
    "code:vgg16:128",
)
flags.DEFINE_string("worker", None, "used by the script, for processes of its own")


def run_benchmark(settings: Settings, folder: Path, watch: machine.Watch) -> None:
    """Measures, writes the file, and prints tables of it.

    Where others may compute and did, no file is written.

    Args:
      settings: what is measured.
      folder: of the file.
      watch: looks whether others compute.

    Raises:
      machine.Busy: they do; what was measured before is kept for the next start.
    """
    watch.wait()  # before anything that takes long
    torch, about = sections.pytorch(), machine.about()
    pytorch = torch.set_up() if torch else None
    started = shlex.join(["python", *sys.argv])
    origin = provenance.collect(started, devices=jax.devices())
    report = {
        "machine": about,
        "threads": {
            "coded_jax": int(about["variables"].get("NPROC", about["cores"])),
            "pytorch": pytorch and pytorch["threads"],
        },
        "versions": workdir.versions(),
        "pytorch": pytorch,
        **{name: origin[name] for name in ("commit", "command")},
    }
    workdir.make_folder(folder, "folder")
    output = folder / f"{machine.slug(about)}.json"
    store = Store(output, report)
    began = None if store.rows else time.monotonic()  # else a part was measured before
    report |= sections.run(Bench(settings, torch, watch), store)
    report |= {
        "date": origin["date"],
        "seconds": None if began is None else round(time.monotonic() - began),
        "busy": watch.busy,
        "others": watch.most,
        "targets": targets(report),
    }
    show(tables(report))
    store.path.unlink()
    if watch.busy:
        print(f"no file is written: the machine was not idle (--folder={folder})")
        return
    workdir.write_atomically(output, json.dumps(report, indent=1) + "\n")
    print(f"all of it is in {output}")


def show(what: Any) -> None:
    """Prints tables, if need be wider than the terminal."""
    console = Console(markup=False)
    console.width = max(console.width, WIDTH)
    console.print(what, highlight=False)


@command()
def main(argv: list[str]) -> None:
    startup.keep_memory()  # as run.py does; it serves PyTorch as well
    startup.run_one_by_one()  # likewise
    # Else JAX leaves no memory of a GPU for PyTorch and for processes of its own.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    values = flags.FLAGS.flag_values_dict()
    if values["worker"]:
        print(json.dumps(sections.peak_memory(**json.loads(values["worker"]))))
    elif values["profile"] is not None:
        show(hlo_profile.profile(values["profile"]))
    else:
        watch = machine.Watch(allow=values["allow_busy"])
        settings = Settings(**setting_flags.read(Settings))
        run_benchmark(settings, Path(values["folder"]), watch)


if __name__ == "__main__":
    run(main)
