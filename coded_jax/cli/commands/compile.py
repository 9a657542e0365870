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

import json
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from coded_jax.aot import mesh_picture, program_table, programs, topologies
from coded_jax.aot.chips import chip_of
from coded_jax.checks import require
from coded_jax.cli.command_line import command, command_text, integers, mesh_of
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.cli.image_flags import example_from_flags, ignore
from coded_jax.devices import startup
from coded_jax.devices.meshes import TPU, arrange, make_mesh
from coded_jax.runs import provenance

TARGET = flags.DEFINE_string(
    "target", None, "the machine, as v5e:2x4 or h100:8; the devices here if not given"
)
MESH = flags.DEFINE_string(
    "mesh", None, "devices along piece x data, as 2x4; the cheapest if not given"
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "how many to use, all if not given; a CPU stands for as many"
)
BATCHES = flags.DEFINE_list("batches", ["1", "64", "1024"], "images of an inference")
KINDS = flags.DEFINE_list(
    "kinds", list(programs.KINDS), f"of programs: some of {', '.join(programs.KINDS)}"
)
COMPARE = flags.DEFINE_list(
    "compare",
    [],
    "meshes, as 6x1,2x4: coded inference alone, on each of them in place of --mesh, "
    "whether or not a run may use it",
)
JSON = flags.DEFINE_string("json", None, "file of all figures; none if not given")
PICTURE = flags.DEFINE_string(
    "picture", "mesh.png", "file of the picture of the mesh; '' for none"
)
ignore("workdir", "base_dir", "compilation_cache")
ignore("coordinator", "processes", "process")


@command()
def main(argv: list[str]) -> None:
    """Compiles the programs of the flags, and prints their figures."""
    config, batches = config_from_flags(), integers("batches", BATCHES.value)
    fits = bool(batches) and min(batches) >= 1
    require("batches", BATCHES.value, fits, "each 1 or more")
    if TARGET.value is None:
        if DEVICES.value is not None:
            startup.offer_cpu_devices(DEVICES.value)
        devices = jax.devices()
    else:
        jax.config.update("jax_platforms", "cpu")
        devices = topologies.describe(TARGET.value)
    sizes = [size for text in COMPARE.value if (size := mesh_of(text, "compare"))]
    fits = all(1 <= p * d <= len(devices) for p, d in sizes)
    accepted = f"meshes of 1..{len(devices)} devices, as 2x4,"
    require("compare", ",".join(COMPARE.value), fits, accepted)
    # With one image for each chip libtpu ends the process on a part of a TPU.
    parts = {p * d for p, d in sizes if 1 < p * d < len(devices)}
    ends = devices[0].platform == TPU and parts & {*batches}
    accepted = f"others than {sorted(parts)} on a part of a TPU,"
    require("batches", ",".join(BATCHES.value), not ends, accepted)
    mesh = make_mesh(config.n, DEVICES.value, mesh_of(MESH.value), available=devices)
    path = Path(JSON.value or "none.json").expanduser()
    fits = path.parent.is_dir() and not path.is_dir()
    require("json", JSON.value, fits, "a file in a folder that exists")
    image, classes, examples = example_from_flags()
    described = programs.Sizes(image.shape, classes, examples)
    chip, console = chip_of(devices[0].device_kind), Console(highlight=False)
    if sizes:
        meshes_compared = [arrange(devices, size) for size in sizes]
        made = [*programs.inferences(config, described, meshes_compared, batches)]
    else:
        kinds = KINDS.value
        made = [*programs.programs_of(config, described, mesh, batches, kinds)]
    # Nothing is lowered yet, but all is checked.
    if PICTURE.value:
        try:
            mesh_picture.draw(PICTURE.value, mesh, config.k, config.r)
        except (ImportError, OSError, ValueError) as error:
            raise ValueError(f"picture: {error} (--picture= draws none)") from error
    outcomes: list[programs.Compiled] = []
    try:
        with Console(stderr=True).status("compiling") as status:
            for program in made:
                status.update(f"compiling: {program.name}")
                outcomes.append(programs.compile_program(program))
    finally:  # stopped by Ctrl-C, what has been compiled is shown and kept
        if outcomes:
            console.print(program_table.table(outcomes, chip))
        if outcomes and JSON.value:
            text = command_text()
            content = {
                "target": TARGET.value,
                "config": config.to_json(),
                "exchanged": programs.exchanged(config, described),
                "programs": [outcome.to_json() for outcome in outcomes],
                "seconds": sum(outcome.seconds for outcome in outcomes),
                "command": text,
                "provenance": provenance.collect(
                    text, config.to_flags(), jax.devices()
                ),
                "versions": programs.versions(),
            }
            path.write_text(json.dumps(content, indent=1) + "\n")
    if chip is not None:
        console.print(f"peaks of {chip.name}: {chip.source}")
    if PICTURE.value:
        console.print(f"the mesh: {PICTURE.value}")
