r"""Shows how an experiment's images are split: a table, and a picture of the pieces.

    python -m coded_jax plan --flagfile=table5_k4_r2.flags
    python -m coded_jax plan --base_model=vgg16 --stages=1-2,3-4 --k=4 --r=2 \
        --image_shape=32x32x3 --picture=pieces.png

It takes the flags and flagfiles of `run`. Nothing is trained.
"""

from __future__ import annotations

import jax
import numpy as np
from absl import flags
from rich.console import Console

from coded_jax.cli.command_line import command
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.cli.image_flags import example_from_flags, ignore
from coded_jax.inference import costs
from coded_jax.inference.pipeline import Pipeline
from coded_jax.inference.stages import enter
from coded_jax.report import plan_picture, plan_table
from coded_jax.runs import build
from coded_jax.types import PyTree

PICTURE = flags.DEFINE_string("picture", "plan.png", "file of the picture; '' for none")
PARTS = (
    "blocks are parts of the network here: the convolutions of a round, and what the "
    "client computes between them"
)
ignore("workdir base_dir devices mesh compilation_cache coordinator processes process")


@command()
def main(argv: list[str]) -> None:
    """Prints the plan of the flags, and draws its pieces."""
    config = config_from_flags()
    if config.split == "group":
        raise ValueError(
            "split: 'group' given, 'image' accepted: a group is not split, each "
            "device computes a whole image"
        )
    image, classes, _ = example_from_flags()
    channels = image.shape[-1]
    pipeline = build.build_pipeline(
        config, image.shape, classes, (0.5,) * channels, (0.25,) * channels
    )
    variables = build.variable_shapes(pipeline.base, image.shape, classes)
    stages = costs.stage_costs(pipeline, variables, image.shape)
    console = Console()
    cost = costs.cost_of(pipeline, variables, image.shape)
    console.print(plan_table.table(stages, cost, config.r), highlight=False)
    if config.split == "convolution":
        console.print(PARTS, highlight=False)
        if config.stages and config.stages[0][0] > 1:
            return  # what the first convolution reads is no image
    if not PICTURE.value:
        return
    try:
        if config.split == "convolution":
            image = _padded(pipeline, variables, image)
        plan_picture.draw(PICTURE.value, image, pipeline.stages[0].plan)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"picture: {error}") from error
    console.print(f"the pieces over an image: {PICTURE.value}", highlight=False)


def _padded(pipeline: Pipeline, shapes: PyTree, image: np.ndarray) -> np.ndarray:
    """Returns an image as the client pads it for the first convolution."""
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    x, _ = enter(pipeline.stages[0], zeros, image[None].astype("float32"))
    return np.asarray(x[0]).astype(np.uint8)
