r"""Compiles an experiment's programs for a TPU or GPU that need not be here.

    python -m coded_jax compile --target=v5e:2x4 --flagfile=quickstart.flags
    python -m coded_jax compile --target=h100:8 --base_model=vgg16 --stages=1-2,3-4 \
        --k=2 --image_shape=32x32x3 --batches=1,256 --precision=bfloat16

It takes the flags and flagfiles of `run`, and prints what each program would be on one
device of that machine: operations, bytes, memory, collectives, and the time below which
it cannot end. Nothing is trained or run. Targets are chips and their topology, as
v5e:2x4, v4:2x2x2, tpu7x:2x2x1 or h100:8; without one it is the devices at hand.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from coded_jax.aot import mesh_picture, program_table, programs, topologies
from coded_jax.aot.chips import chip_of
from coded_jax.checks import require
from coded_jax.cli import experiment_flags
from coded_jax.cli.command_line import command, integers, origin
from coded_jax.cli.image_flags import example_from_flags
from coded_jax.devices import startup
from coded_jax.devices.meshes import make_mesh

TARGET = flags.DEFINE_string(
    "target", None, "the machine, as v5e:2x4 or h100:8; the devices here if not given"
)
BATCHES = flags.DEFINE_list("batches", ["1", "64", "1024"], "images of an inference")
KINDS = flags.DEFINE_list(
    "kinds", list(programs.KINDS), f"of programs: some of {', '.join(programs.KINDS)}"
)
JSON = flags.DEFINE_string("json", None, "file of all figures; none if not given")
PICTURE = flags.DEFINE_string(
    "picture", "mesh.png", "file of the picture of the mesh; '' for none"
)


@command()
def main(argv: list[str]) -> None:
    """Compiles the programs of the flags, and prints their figures."""
    config = experiment_flags.config_from_flags()
    batches, count = integers("batches", BATCHES.value), experiment_flags.DEVICES.value
    require("batches", BATCHES.value, all(x >= 1 for x in batches), "each 1 or more")
    if TARGET.value is not None:
        jax.config.update("jax_platforms", "cpu")
        devices = topologies.describe(TARGET.value)
    else:
        if count is not None:
            startup.offer_cpu_devices(count)
        devices = jax.devices()
    shape = experiment_flags.mesh_from_flags()
    mesh = make_mesh(config.n, count, shape, available=devices)
    path = Path(JSON.value).expanduser() if JSON.value else None
    if path is not None:
        path.touch()  # or refused, before minutes of compiling
    image, classes, examples = example_from_flags()
    described = programs.Sizes(image.shape, classes, examples)
    subject = programs.Subject(config, described, mesh)
    # Nothing is lowered yet, but all is checked.
    made = [*subject.programs(batches, KINDS.value)]
    if PICTURE.value:
        try:
            picture = mesh_picture.figure_of(mesh, config.k, config.r)
            picture.savefig(PICTURE.value, dpi=150)
        except (ImportError, OSError, ValueError) as error:
            raise ValueError(f"picture: {error} (--picture= draws none)") from error
    chip, console = chip_of(devices[0].device_kind), Console(highlight=False)
    outcomes: list[programs.Compiled] = []
    try:
        with Console(stderr=True).status("compiling") as status:
            for program in made:
                status.update(f"compiling: {program.name}")
                outcomes.append(programs.compile_program(program))
    finally:  # stopped by Ctrl-C, what has been compiled is shown and kept
        if outcomes:
            console.print(program_table.table(outcomes, chip))
        if outcomes and path is not None:
            content = {
                **origin(config.to_flags()),
                "versions": programs.versions(),
                "target": TARGET.value,
                "config": config.to_json(),
                "exchanged": subject.exchanged,
                "programs": [*map(dataclasses.asdict, outcomes)],
                "seconds": sum(outcome.seconds for outcome in outcomes),
            }
            path.write_text(json.dumps(content, indent=1) + "\n")
    if chip is not None:
        console.print(f"peaks of {chip.name}: {chip.source}")
    if PICTURE.value:
        console.print(f"the mesh: {PICTURE.value}")
