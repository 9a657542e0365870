r"""Runs one experiment: trains a base model and a code, tries every erasure pattern.

    python experiments/run.py --flagfile=experiments/flags/quickstart.flags

Run the same command again to resume. Later flags win, so a variant of a flagfile is

    python experiments/run.py --flagfile=experiments/flags/table5_k2_r1.flags \
        --recipe=systematic --workdir=runs/table5_k2_r1_systematic
"""

from __future__ import annotations

import shlex
import sys

from absl import app, flags, logging
from rich.console import Console

from coded_jax.cli.command_line import parse_flags, refuse_arguments
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.devices import processes, startup
from coded_jax.report import display, figures
from coded_jax.runs import experiment
from coded_jax.runs.prepare import prepare
from coded_jax.training import loop

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)
BASE_DIR = flags.DEFINE_string(
    "base_dir", None, "folder of a base model that runs share; trained there if missing"
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "how many to use, all if not given; a CPU stands for as many"
)
MESH = flags.DEFINE_string(
    "mesh", None, "devices along piece x data, as 3x2; a piece each if there are enough"
)
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "folder that keeps compiled programs, ~/.cache/coded_jax if not given; '' for none",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "for several processes: host:port of process 0, or auto on TPU pods and Slurm",
)
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes there are")
PROCESS = flags.DEFINE_integer("process", None, "number of this one, from 0")


def mesh_from_flags() -> tuple[int, int] | None:
    if MESH.value is None:
        return None
    sizes = MESH.value.split("x")
    if len(sizes) != 2 or not all(size.isdecimal() for size in sizes):
        raise ValueError(f"mesh: {MESH.value!r} given, piece x data as 3x2 accepted")
    return int(sizes[0]), int(sizes[1])


def start_jax() -> None:
    """Before the first device is touched."""
    if COORDINATOR.value is not None:
        processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    elif PROCESSES.value is not None or PROCESS.value is not None:
        raise ValueError("coordinator: not given, 'host:port' or 'auto' accepted")
    if DEVICES.value is not None:
        startup.offer_cpu_devices(-(-DEVICES.value // (PROCESSES.value or 1)))
    startup.keep_memory()
    startup.keep_compilations(COMPILATION_CACHE.value)


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # no notes on accelerators not found
    command = shlex.join(["python", *sys.argv])
    try:
        problem = prepared = None
        try:
            settings = config_from_flags()
            mesh = mesh_from_flags()
            start_jax()
            prepared = prepare(
                settings,
                WORKDIR.value,
                DATA_DIR.value,
                DEVICES.value,
                mesh,
                BASE_DIR.value,
            )
        except (ValueError, OSError, ImportError) as error:
            problem = error
        # Asked in any case: the others wait for the answer.
        if processes.any_process(prepared is None):
            sys.exit(f"error: {problem or 'another process could not start'}")
        results = experiment.run(prepared, command=command)
    except (loop.Interrupted, KeyboardInterrupt) as stop:
        message = str(stop) or "stopped"
        print(f"{message}; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except (loop.NonFiniteError, OSError) as error:
        sys.exit(f"error: {error}")

    if not processes.is_lead():
        return
    console = Console()
    try:
        figures.draw(prepared.folder, results)
    except ImportError as error:
        console.print(str(error))
    console.print(display.report(results), highlight=False)
    seconds = results["timing"]["seconds"]
    times = ", ".join(f"{phase} {value:.0f}" for phase, value in seconds.items())
    console.print(f"seconds: {times}", highlight=False)
    console.print(f"all of it is in {WORKDIR.value}", highlight=False)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
