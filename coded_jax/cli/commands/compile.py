r"""Compiles an experiment's programs for a TPU or GPU that need not be here.

    python -m coded_jax compile --target=v5e:2x4 --flagfile=table5_k4_r2.flags
    python -m coded_jax compile --target=h100:8 --base_model=vgg16 --stages=1-2,3-4 \
        --k=2 --image_shape=32x32x3 --batches=1,256 --precision=bfloat16

It takes the flags and flagfiles of `run`, and prints what each program would be on one
device of that machine: operations, bytes, memory, collectives, and the time below which
it cannot end. Nothing is trained or run. Targets are chips and their topology, as
v5e:2x4, v4:2x2x2, tpu7x:2x2x1 or h100:8; without one it is the devices at hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from coded_jax.cli.command_line import command, command_text, integers, mesh_of
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.cli.image_flags import example_from_flags, ignore
from coded_jax.devices import topologies
from coded_jax.devices.chips import chip_of
from coded_jax.devices.meshes import make_mesh
from coded_jax.report import mesh_picture, program_table
from coded_jax.runs import provenance, workdir
from coded_jax.studies import programs

TARGET = flags.DEFINE_string(
    "target", None, "the machine, as v5e:2x4 or h100:8; the devices here if not given"
)
MESH = flags.DEFINE_string(
    "mesh", None, "devices along piece x data, as 2x4; the cheapest if not given"
)
BATCHES = flags.DEFINE_list("batches", ["1", "64", "1024"], "images of an inference")
JSON = flags.DEFINE_string("json", None, "file of all figures; none if not given")
PICTURE = flags.DEFINE_string(
    "picture", "mesh.png", "file of the picture of the mesh; '' for none"
)
ignore("workdir base_dir devices compilation_cache coordinator processes process")


@command()
def main(argv: list[str]) -> None:
    """Compiles the programs of the flags, and prints their figures."""
    config, batches = config_from_flags(), integers("batches", BATCHES.value)
    if not batches or min(batches) < 1:
        raise ValueError(f"batches: {BATCHES.value} given, each 1 or more accepted")
    if TARGET.value is None:
        devices = jax.devices()
    else:
        jax.config.update("jax_platforms", "cpu")
        devices = topologies.describe(TARGET.value)
    mesh = make_mesh(config.n, shape=mesh_of(MESH.value), available=devices)
    example = example_from_flags()
    sizes = programs.Sizes(example.image.shape, example.classes, example.examples)
    chip, console = chip_of(devices[0].device_kind), Console()
    memory = None if chip is None else int(chip.memory)
    outcomes = []
    with Console(stderr=True).status("compiling") as status:
        for program in programs.programs_of(config, sizes, mesh, batches, memory):
            status.update(f"compiling: {program.name}")
            outcomes.append(programs.compile_program(program))
    console.print(program_table.table(outcomes, chip), highlight=False)
    if chip is not None:
        console.print(f"peaks of {chip.name}: {chip.source}", highlight=False)
    if JSON.value:
        _write(JSON.value, outcomes, devices)
    if PICTURE.value:
        try:
            mesh_picture.draw(PICTURE.value, mesh, config.k, config.r)
        except (ImportError, OSError, ValueError) as error:
            raise ValueError(f"picture: {error}") from error
        console.print(f"the mesh: {PICTURE.value}", highlight=False)


def _write(
    path: str, outcomes: list[programs.Compiled], devices: list[jax.Device]
) -> None:
    """Writes all figures, and where they are from.

    Raises:
      ValueError: the file cannot be written to.
    """
    config = config_from_flags()
    origin = provenance.collect(command_text(), config.to_flags(), devices)
    content = {
        "target": TARGET.value,
        "config": config.to_json(),
        "provenance": origin.to_json(),
        "versions": workdir.versions(),
        "programs": [outcome.to_json() for outcome in outcomes],
    }
    try:
        Path(path).write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise ValueError(
            f"json: {path!r} given, a file that can be written to accepted ({error})"
        ) from error
