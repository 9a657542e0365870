"""Writes a finished run as one file that runs without this package.

    python experiments/export.py --workdir=runs/quickstart --output=coded.bin

It needs the `export` extra, and prints how to run the file.
"""

from __future__ import annotations

import sys

import jax
from absl import app, flags, logging

import coded_jax
from coded_jax.cli.command_line import parse_flags, refuse_arguments
from coded_jax.runs import export

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "file to be written", required=True)
PLATFORMS = flags.DEFINE_list(
    "platforms",
    list(export.DEFAULT_PLATFORMS),
    f"where it shall run, out of {', '.join(export.PLATFORMS)}",
)

USAGE = """\
import jax.export
import numpy as np

with open({path!r}, "rb") as file:
    coded = jax.export.deserialize(bytearray(file.read()))
images = np.zeros({images}, np.uint8)  # {batches}, pixel values as in the data set
available = np.ones(({n}, 1), bool)
available[[{lost}]] = False  # which results are lost, {r} at most
logits = coded.call(images, available)  # float32 {logits}
print(logits.argmax(-1))"""


def usage(model: coded_jax.CodedModel, path: str) -> str:
    """A program that runs the file at `path`, where this package is not installed."""
    r, batch = model.pipeline.r, 8 * model.pipeline.group
    return USAGE.format(
        path=path,
        images=(batch, *model.image_shape),
        batches="any batch" if batch == 8 else "any number of groups",
        n=model.pipeline.n,
        lost=", ".join(map(str, range(r))),
        r=r,
        logits=[batch, model.results["classes"]],
    )


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # no notes on accelerators not found
    try:
        model = coded_jax.load(WORKDIR.value)
        path = export.save(model, OUTPUT.value, PLATFORMS.value)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    megabytes = path.stat().st_size / 1e6
    print(
        f"{OUTPUT.value}: {megabytes:.1f} MB, runs on {', '.join(PLATFORMS.value)}\n"
        f"\nIt needs jax {jax.__version__}, or one up to 6 months newer, and "
        f"flatbuffers:\n\n{usage(model, str(path))}"
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
