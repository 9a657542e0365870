"""The flags of an experiment: a setting of `Config` each; its folders, devices and
processes."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import sizes
from coded_jax.devices import processes, startup
from coded_jax.runs.config import Config
from coded_jax.runs.prepare import Experiment, prepare
from coded_jax.runs.workdir import Places

setting_flags.define(Config)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "folder of prepared TFDS data, TFDS_DATA_DIR if not given; or, with "
    "dataset=folder, of images: train/, and val/ or test/, with a folder for each "
    "class",
)
BASE_DIR = flags.DEFINE_string(
    "base_dir", None, "folder of a base model that runs share; trained there if missing"
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "how many to use, all if not given; a CPU stands for as many"
)
MESH = flags.DEFINE_string(
    "mesh", None, "devices along piece x data, as 3x2; the cheapest if not given"
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

BASES = Path("experiments/bases")
"""Base models of the repository, which its flagfiles name."""


def config_from_flags() -> Config:
    """Returns the settings that the flags have.

    Raises:
      ValueError: a value is out of range.
    """
    return Config(**setting_flags.read(Config))


def mesh_from_flags() -> tuple[int, int] | None:
    """Returns the devices along piece and data; None where they are not given.

    Raises:
      ValueError: they are not two integers.
    """
    if MESH.value is None:
        return None
    pieces, data = sizes("mesh", MESH.value, 2, "piece x data as 3x2")
    return pieces, data


def places_from_flags() -> Places:
    """Returns the folders and devices of the run.

    Raises:
      ValueError: there is no workdir; the mesh is not two integers; or a base model of
        the repository is named where it is not: it would be trained anew, and runs that
        are compared must share one.
    """
    base_dir = BASE_DIR.value
    if WORKDIR.value is None:
        raise ValueError("workdir: not given, --workdir=... accepted")
    if base_dir and Path(base_dir).is_relative_to(BASES) and not BASES.is_dir():
        raise ValueError(
            f"base_dir: {base_dir!r} given, which only the repository has: start this "
            "in a clone of it, or give another folder, where one is trained if it has "
            "none"
        )
    return Places(
        workdir=WORKDIR.value,
        data_dir=DATA_DIR.value,
        devices=DEVICES.value,
        mesh=mesh_from_flags(),
        base_dir=base_dir,
    )


def start_jax() -> None:
    """Starts JAX as the flags say; before the first device is touched.

    Raises:
      ValueError: a flag is out of range, or no coordinator answers.
    """
    if COORDINATOR.value is not None:
        processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    elif PROCESSES.value is not None or PROCESS.value is not None:
        raise ValueError("coordinator: not given, 'host:port' or 'auto' accepted")
    if DEVICES.value is not None:
        startup.offer_cpu_devices(-(-DEVICES.value // (PROCESSES.value or 1)))
    startup.keep_memory()
    startup.keep_compilations(COMPILATION_CACHE.value)


def prepare_from_flags() -> Experiment:
    """Starts JAX and prepares the experiment, in all processes or in none.

    Exits with one line if this or another process cannot start.
    """
    problem = prepared = None
    try:
        config, places = config_from_flags(), places_from_flags()
        start_jax()
        prepared = prepare(config, places)
    except (ValueError, OSError, ImportError) as error:
        problem = error
    # Asked in any case: the others wait for the answer.
    if processes.any_process(prepared is None) or prepared is None:
        sys.exit(f"error: {problem or 'another process could not start'}")
    return prepared
