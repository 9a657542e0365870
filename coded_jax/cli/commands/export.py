"""Writes a finished run as one file that runs without this package.

    python -m coded_jax export --workdir=runs/quickstart --output=coded.bin

It needs the `export` extra, and prints how to run the file.
"""

from __future__ import annotations

import jax
from absl import flags

from coded_jax.cli.command_line import command
from coded_jax.runs import export
from coded_jax.runs.load import load

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "file to be written", required=True)

USAGE = """\
import jax.export
import numpy as np

with open({path!r}, "rb") as file:
    coded = jax.export.deserialize(bytearray(file.read()))
images = np.zeros({images}, np.{dtype})  # {batches}, pixel values as in the data set
available = np.ones(({n}, 1), bool)
available[[{lost}]] = False  # which results are lost, {r} at most
{answers} = coded.call(images, available)  # float32 {shape}
print({shown})"""


@command()
def main(argv: list[str]) -> None:
    """Writes the file, and prints a program that runs it without this package."""
    model = load(WORKDIR.value)
    path = export.save(model, OUTPUT.value)
    r, batch = model.pipeline.r, 8 * model.pipeline.images_per_input
    positions = model.results.get("positions", [])
    usage = USAGE.format(
        path=str(path),
        images=(batch, *model.image_shape),
        dtype=model.pipeline.image_dtype,
        batches="any batch" if batch == 8 else "any number of groups",
        n=model.pipeline.n,
        lost=", ".join(map(str, range(r))),
        r=r,
        answers="values" if model.values else "logits",
        shape=[batch, *positions, model.results["classes"]],
        shown="values.mean()" if model.values else "logits.argmax(-1)",
    )
    megabytes = path.stat().st_size / 1e6
    print(
        f"{OUTPUT.value}: {megabytes:.1f} MB, runs on {', '.join(export.PLATFORMS)}\n"
        f"\nIt needs jax {jax.__version__}, or one up to 6 months newer, and "
        f"flatbuffers:\n\n{usage}"
    )
